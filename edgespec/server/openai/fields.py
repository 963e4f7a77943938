"""What chat and text completions share in a body, and in an answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgespec import __version__
from edgespec.server.constraints import ConstraintFields
from edgespec.server.fields import Choices, Json, Limit, StopStrings, Strict, invalid
from edgespec.server.figures import (
    DecodeToken,
    progress_of,
    speculation_of,
    timings_of,
    usage_of,
)
from edgespec.server.forms import AnswerForm, new_id, now
from edgespec.server.models import Served
from edgespec.server.sampling import SamplingFields, also, with_choice
from edgespec.types import Chunk, Completion, CompletionRequest, Constraint, SamplingParams


class StreamOptions(Strict):
    """What a streamed answer carries beside text."""

    include_usage: bool | None = None


class Prediction(Strict):
    """Text that the answer may well be."""

    type: str
    content: str | list[Json]

    @property
    def text(self) -> str:
        """All of it; raises ApiError."""
        if isinstance(self.content, str):
            return self.content
        texts = [part.get("text") for part in self.content if part.get("type") == "text"]
        if len(texts) < len(self.content) or not all(isinstance(text, str) for text in texts):
            raise invalid("prediction.content", "prediction.content: send text parts only")
        return "".join(map(str, texts))


class AnswerBody(SamplingFields, ConstraintFields):
    """What both endpoints take."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = also("max_tokens", "n_predict", "max_length")
    max_completion_tokens: Limit | None = None
    stop: StopStrings | None = None
    n: Choices | None = None
    prediction: Prediction | None = None
    speculate: bool | None = None
    cache_prompt: bool | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None
    return_sources: bool | None = None

    @property
    @abstractmethod
    def num_top_logprobs(self) -> int | None:
        """Log-probabilities to return beside the chosen token's; None for none at all."""

    @property
    def token_limit(self) -> int | None:
        """Most tokens to emit; None where nothing was said, -1 for no limit."""
        for name in ("max_completion_tokens", "max_tokens"):
            value: int | None = getattr(self, name)
            if value == 0:
                raise invalid(name, f"{name} must be at least 1")
            if value is not None:
                return value
        return None

    def question(
        self, served: Served, default: SamplingParams, constraint: Constraint | None
    ) -> CompletionRequest:
        """What is asked for, but for the prompt."""
        return CompletionRequest(
            prompt="",
            sampling=self.sampling(default, served.details, served.completer.tokenize, constraint),
            max_tokens=self.token_limit,
            stop=tuple(self.stop or ()),
            num_top_logprobs=self.num_top_logprobs,
            speculate=self.speculate is not False,
            reuse_prefix=self.cache_prompt is not False,
            prediction=self.prediction.text if self.prediction is not None else "",
        )

    def choices(self, question: CompletionRequest) -> list[CompletionRequest]:
        """The question as often as answers are wanted; each draws another one."""
        return [
            replace(question, sampling=with_choice(question.sampling, index))
            for index in range(self.n or 1)
        ]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wants to be told beside the answer; `prediction` are the tokens of one."""

    include_usage: bool = False
    timings_per_token: bool = False
    return_progress: bool = False
    return_sources: bool = False
    prediction: tuple[int, ...] = ()


def wishes_of(body: AnswerBody, served: Served) -> Wishes:
    """What this body wants."""
    text = body.prediction.text if body.prediction is not None else ""
    return Wishes(
        body.stream_options is not None and body.stream_options.include_usage is True,
        body.timings_per_token is True,
        body.return_progress is True,
        body.return_sources is True,
        served.completer.tokenize(text) if text else (),
    )


class CompletionForm(AnswerForm):
    """What the two forms share: the envelope, pieces and the end.

    A streamed answer is: pieces as they come, one with the finish reason and our own `timings` and
    `speculation`, and, if asked for, one with the usage.
    """

    last_words = b"data: [DONE]\n\n"

    def __init__(self, prefix: str, kind: str, served: Served, wishes: Wishes) -> None:
        self.wants_progress = wishes.return_progress
        self._model = served.completer.model
        self._decode_token: DecodeToken = served.completer.decode_token
        self._wishes = wishes
        self._envelope: Json = {
            "id": new_id(prefix),
            "object": kind,
            "created": now(),
            "model": served.name,
            "system_fingerprint": f"edgespec-{__version__}",
        }

    def closing(self, completions: Sequence[Completion]) -> list[Json]:
        """The usage of all answers, if it was asked for."""
        if not self._wishes.include_usage:
            return []
        return [self._envelope | {"choices": [], "usage": self._usage(completions)}]

    def _whole(self, choices: list[Json], completions: Sequence[Completion]) -> Json:
        return {
            **self._envelope,
            "choices": choices,
            "usage": self._usage(completions),
            **self._figures(completions[0]),
        }

    def _part(self, choice: Json, chunk: Chunk | None = None) -> Json:
        """One streamed object; OpenAI writes a null usage in each if one follows at the end."""
        usage = {"usage": None} if self._wishes.include_usage else {}
        more: Json = {}
        if self._wishes.timings_per_token and chunk is not None and chunk.timings is not None:
            more["timings"] = timings_of(chunk.timings, chunk.stats)
        if self._wishes.return_sources and chunk is not None and chunk.spans:
            more["sources"] = [[span.length, span.source] for span in chunk.spans]
        return {**self._envelope, "choices": [choice], **usage, **more}

    def _progress(self, choice: Json, chunk: Chunk) -> list[Json]:
        assert chunk.progress is not None
        time_ms = chunk.timings.prompt_ms if chunk.timings is not None else 0.0
        return [self._part(choice) | {"prompt_progress": progress_of(chunk.progress, time_ms)}]

    def _usage(self, completions: Sequence[Completion]) -> Json:
        return usage_of(completions, self._wishes.prediction)

    def _figures(self, completion: Completion) -> Json:
        return {
            "timings": timings_of(completion.timings, completion.stats),
            "speculation": speculation_of(completion, self._model),
        }
