"""llama-server's /completion and /infill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from edgespec.server.fields import MAX_CHOICES, Json, TokenIds, invalid
from edgespec.server.figures import finite, progress_of, timings_of, token_text
from edgespec.server.forms import AnswerForm, Told
from edgespec.server.models import Served
from edgespec.server.openai.completions import OnePrompt, ask, check_tokens, infill, prompt_text
from edgespec.server.openai.fields import AnswerBody
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.types import Chunk, Completion, CompletionRequest, SamplingParams, TokenLogprob

MixedPrompt = Annotated[list[str | int], Field(min_length=1)]


class CompletionBody(AnswerBody):
    """Body of POST /completion; a list that mixes texts and tokens is one prompt."""

    prompt: str | TokenIds | MixedPrompt | list[OnePrompt | MixedPrompt]
    n_probs: Annotated[int, Field(ge=0, le=20)] | None = None
    return_tokens: bool | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """`n_probs`, none by default."""
        return self.n_probs or None

    def asked(self, served: Served, default: SamplingParams) -> list[CompletionRequest]:
        """The questions; raises ApiError."""
        prompts = self._prompts(served)
        if len(prompts) * (self.n or 1) > MAX_CHOICES:
            raise invalid("prompt", f"prompts times n: at most {MAX_CHOICES} answers a request")
        question = self.question(served, default, self.constraint())
        questions = [ask(question, prompt, served) for prompt in prompts]
        return [choice for each in questions for choice in self.choices(each)]

    @property
    def is_list(self) -> bool:
        """Whether several answers are wanted, which come as a list."""
        is_one = isinstance(self.prompt, str) or any(isinstance(each, int) for each in self.prompt)
        return not is_one or (self.n or 1) > 1

    def _prompts(self, served: Served) -> list[OnePrompt]:
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if not given:
            raise invalid("prompt", "prompt: there is none")
        if any(isinstance(each, int) for each in given):
            return [_joined(given, served)]  # type: ignore[arg-type]
        return [
            each if isinstance(each, str) else _joined(each, served)  # type: ignore[arg-type]
            for each in given
        ]


class InfillBody(AnswerBody):
    """Body of POST /infill."""

    input_prefix: str
    input_suffix: str
    prompt: str | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """None."""
        return None

    def asked(self, served: Served, default: SamplingParams) -> CompletionRequest:
        """The gap between the two texts; `prompt` is what is there of it."""
        question = self.question(served, default, self.constraint())
        tokens = infill(self.input_prefix, self.input_suffix, served)
        begun = served.completer.tokenize(self.prompt) if self.prompt else ()
        return replace(question, prompt_tokens=(*tokens, *begun))


def _joined(parts: Sequence[str | int], served: Served) -> list[int]:
    """The tokens of a prompt of texts and tokens."""
    tokens: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
        else:
            tokens += served.completer.tokenize(part, add_special=not index, parse_special=True)
    check_tokens(tokens, served)
    return tokens


class NativeForm(AnswerForm):
    """llama-server's object of a completion, whole and in pieces."""

    def __init__(
        self, served: Served, body: AnswerBody, prompts: Sequence[str], *, many: bool
    ) -> None:
        self.wants_progress = body.return_progress is True
        self._served = served
        self._prompts = prompts
        self._is_list = many
        self._returns_tokens = isinstance(body, CompletionBody) and body.return_tokens is True
        self._times_tokens = body.timings_per_token is True

    def whole(self, answers: Sequence[Told]) -> Json | list[Json]:
        """One object, or a list of several."""
        told = [
            self._last(index, each.completion, each.completion.text, each.logprobs)
            for index, each in enumerate(answers)
        ]
        return told if self._is_list else told[0]

    def piece(self, index: int, chunk: Chunk) -> list[Json]:
        """More of the text."""
        part: Json = {"index": index, "content": chunk.text, "tokens": [], "stop": False}
        if chunk.progress is not None:
            time_ms = chunk.timings.prompt_ms if chunk.timings is not None else 0.0
            return [part | {"prompt_progress": progress_of(chunk.progress, time_ms)}]
        if not chunk.text and not chunk.logprobs:
            return []
        if chunk.logprobs:
            part["completion_probabilities"] = self._probabilities(chunk.logprobs)
        if self._times_tokens and chunk.timings is not None:
            part["timings"] = timings_of(chunk.timings, chunk.stats)
        return [part]

    def ended(self, index: int, completion: Completion) -> list[Json]:
        """The object without its text, which was told."""
        return [self._last(index, completion, "", ())]

    def _last(
        self, index: int, completion: Completion, text: str, logprobs: Sequence[TokenLogprob]
    ) -> Json:
        timings = completion.timings
        stop_type = "limit" if completion.finish_reason == "length" else "eos"
        if completion.stop_string is not None:
            stop_type = "word"
        last: Json = {
            "index": index,
            "content": text,
            "tokens": list(completion.token_ids) if self._returns_tokens else [],
            "stop": True,
            "model": self._served.name,
            "prompt": self._prompts[index],
            "tokens_predicted": len(completion.token_ids),
            "tokens_evaluated": timings.num_prompt_tokens,
            "tokens_cached": timings.num_prompt_tokens + len(completion.token_ids),
            "has_new_line": "\n" in completion.text,
            "truncated": completion.is_context_full,
            "stop_type": stop_type,
            "stopping_word": completion.stop_string or "",
            "timings": timings_of(timings, completion.stats),
        }
        if logprobs:
            last["completion_probabilities"] = self._probabilities(logprobs)
        return last

    def _probabilities(self, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        return [
            self._entry(each.token, each.logprob)
            | {"top_logprobs": [self._entry(*pair) for pair in each.top]}
            for each in logprobs
        ]

    def _entry(self, token: int, logprob: float) -> Json:
        raw = self._served.completer.decode_token(token)
        return {
            "id": token,
            "token": token_text(raw),
            "bytes": list(raw),
            "logprob": finite(logprob),
        }


class NativeCompletion:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, request: Request) -> Response:
        """What follows a text, or several."""
        body = await self._service.read(request, CompletionBody)
        served = await self._service.models.acquire(body.model)
        default = self._service.settings.default_sampling
        questions = await in_thread(body.asked, served, default)
        prompts = await in_thread(_texts, questions, served)
        form = NativeForm(served, body, prompts, many=body.is_list)
        return self._service.respond(served, questions, form, stream=body.stream is True)

    async def infill(self, request: Request) -> Response:
        """What is between two texts."""
        body = await self._service.read(request, InfillBody)
        served = await self._service.models.acquire(body.model)
        default = self._service.settings.default_sampling
        question = await in_thread(body.asked, served, default)
        form = NativeForm(served, body, await in_thread(_texts, [question], served), many=False)
        return self._service.respond(served, [question], form, stream=body.stream is True)


def _texts(questions: Sequence[CompletionRequest], served: Served) -> list[str]:
    """The prompts of questions as text."""
    decode_token = served.completer.decode_token
    return [
        prompt_text(list(each.prompt_tokens), decode_token)
        if each.prompt_tokens
        else str(each.prompt)
        for each in questions
    ]


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    native = NativeCompletion(service)
    events = "text/event-stream"
    return [
        Endpoint(
            "POST",
            ("/completion",),
            native.complete,
            "Continue a text (llama-server).",
            CompletionBody,
            streams=events,
            is_list=True,
        ),
        Endpoint(
            "POST",
            ("/infill",),
            native.infill,
            "Fill a gap (llama-server).",
            InfillBody,
            streams=events,
        ),
    ]
