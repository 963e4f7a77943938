"""POST /v1/completions: plain text is continued, or a gap in it filled."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from edgespec.server.fields import MAX_CHOICES, Json, TokenIds, TopLogprobs, invalid, unsupported
from edgespec.server.figures import finite, token_text
from edgespec.server.forms import Told
from edgespec.server.models import Served
from edgespec.server.openai.fields import AnswerBody, CompletionForm, Wishes, wishes_of
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.types import Chunk, Completion, CompletionRequest, SamplingParams, TokenLogprob

OnePrompt = str | TokenIds
Prompts = str | TokenIds | list[OnePrompt]


class TextBody(AnswerBody):
    """Body of POST /v1/completions."""

    prompt: Prompts
    logprobs: TopLogprobs | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """`logprobs`: the number itself."""
        return self.logprobs

    @property
    def prompts(self) -> list[OnePrompt]:
        """The prompts, one at least; raises ApiError."""
        given = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        if not given:
            raise invalid("prompt", "prompt: there is none")
        return given  # type: ignore[return-value]

    def asked(self, served: Served, default: SamplingParams) -> list[CompletionRequest]:
        """The questions, prompt by prompt; raises ApiError."""
        num_choices = self.n or 1
        if self.best_of is not None and self.best_of != num_choices:
            raise unsupported("best_of", "best_of is not supported but for the value of n")
        if self.echo and self.logprobs is not None:
            raise unsupported("echo", "echo with logprobs is not supported: prompts have none")
        prompts = self.prompts
        if len(prompts) * num_choices > MAX_CHOICES:
            raise invalid("prompt", f"prompts times n: at most {MAX_CHOICES} answers a request")
        question = self.question(served, default, self.constraint())
        return [
            choice
            for prompt in prompts
            for choice in self.choices(ask(question, prompt, served, self.suffix))
        ]

    def echoes(self, served: Served) -> list[str]:
        """What stands before each answer's text."""
        if not self.echo:
            return []
        texts = [prompt_text(prompt, served.completer.decode_token) for prompt in self.prompts]
        return [text for text in texts for _ in range(self.n or 1)]


def ask(
    question: CompletionRequest, prompt: OnePrompt, served: Served, suffix: str | None = None
) -> CompletionRequest:
    """The question about one prompt; with a suffix it is the gap between the two."""
    if suffix:
        return replace(question, prompt_tokens=infill(prompt, suffix, served))
    if isinstance(prompt, str):
        return replace(question, prompt=prompt)
    check_tokens(prompt, served)
    return replace(question, prompt_tokens=tuple(prompt))


def infill(prefix: OnePrompt, suffix: str, served: Served) -> tuple[int, ...]:
    """The prompt for what is between two texts, in the model's own tokens; raises ApiError."""
    marks = served.details.infill_tokens
    if marks is None:
        raise unsupported("suffix", "suffix: this model has no tokens for filling gaps")
    tokenize = served.completer.tokenize
    if not isinstance(prefix, str):
        check_tokens(prefix, served)
    before = tokenize(prefix) if isinstance(prefix, str) else tuple(prefix)
    first, second, last = marks
    begins = tuple(tokenize("", add_special=True))[:1]
    return (*begins, first, *before, second, *tokenize(suffix), last)


def check_tokens(tokens: Sequence[int], served: Served, param: str = "prompt") -> None:
    """Raise ApiError for a token that the model does not have, and where there is none."""
    if not tokens:
        raise invalid(param, f"{param}: there is none")
    num_vocab = served.details.num_vocab
    if num_vocab and max(tokens) >= num_vocab:
        raise invalid(param, f"{param}: tokens go from 0 to {num_vocab - 1}, not {max(tokens)}")


def prompt_text(prompt: OnePrompt, decode_token: Callable[[int], bytes]) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    return b"".join(map(decode_token, prompt)).decode("utf-8", "replace")


@dataclass(slots=True)
class _Progress:
    """How far the text of one answer is, for the offsets of its tokens."""

    characters: codecs.IncrementalDecoder
    offset: int = 0


class TextForm(CompletionForm):
    """`text_completion`, the same for both ways."""

    def __init__(self, served: Served, wishes: Wishes, echoes: Sequence[str] = ()) -> None:
        super().__init__("cmpl-", "text_completion", served, wishes)
        self._echoes = list(echoes)
        self._progress_of: dict[int, _Progress] = {}

    def whole(self, answers: Sequence[Told]) -> Json:
        """One text each."""
        choices = [
            _choice(index, self._echo(index) + told.completion.text)
            | {
                "logprobs": self._logprobs(index, told.logprobs),
                "finish_reason": told.completion.finish_reason,
            }
            for index, told in enumerate(answers)
        ]
        return self._whole(choices, [told.completion for told in answers])

    def opening(self) -> list[Json]:
        """The prompts, if they are to be echoed."""
        return [self._part(_choice(index, text)) for index, text in enumerate(self._echoes)]

    def piece(self, index: int, chunk: Chunk) -> list[Json]:
        """More of a text."""
        if chunk.progress is not None:
            return self._progress(_choice(index, ""), chunk)
        if not chunk.text and not chunk.logprobs:
            return []
        logprobs = {"logprobs": self._logprobs(index, chunk.logprobs)}
        return [self._part(_choice(index, chunk.text) | logprobs, chunk)]

    def ended(self, index: int, completion: Completion) -> list[Json]:
        """An empty text with the finish reason."""
        last = _choice(index, "") | {"finish_reason": completion.finish_reason}
        return [self._part(last) | self._figures(completion)]

    def _echo(self, index: int) -> str:
        return self._echoes[index] if self._echoes else ""

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json | None:
        """Parallel lists; offsets count characters from the start of the answer."""
        if not logprobs:
            return None
        at = self._progress_of.setdefault(
            index, _Progress(codecs.getincrementaldecoder("utf-8")(errors="replace"))
        )
        tokens, offsets, top = [], [], []
        for entry in logprobs:
            raw = self._decode_token(entry.token)
            tokens.append(token_text(raw))
            offsets.append(at.offset)
            at.offset += len(at.characters.decode(raw))
            top.append(self._top(entry))
        return {
            "tokens": tokens,
            "token_logprobs": [finite(entry.logprob) for entry in logprobs],
            "top_logprobs": top,
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """The most likely tokens and the chosen one, so one more at most, as OpenAI does."""
        pairs = (*entry.top, (entry.token, entry.logprob))
        return {token_text(self._decode_token(token)): finite(logprob) for token, logprob in pairs}


def _choice(index: int, text: str) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": None}


class Completions:
    """Plain text in, plain text out."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, request: Request) -> Response:
        """What follows a text, or several."""
        body = await self._service.read(request, TextBody)
        served = await self._service.models.acquire(body.model)
        default = self._service.settings.default_sampling
        questions = await in_thread(body.asked, served, default)
        wishes = await in_thread(wishes_of, body, served)
        echoes = await in_thread(body.echoes, served)
        form = TextForm(served, wishes, echoes)
        return self._service.respond(served, questions, form, stream=body.stream is True)


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    return [
        Endpoint(
            "POST",
            ("/v1/completions",),
            Completions(service).complete,
            "Continue a text.",
            TextBody,
            streams="text/event-stream",
        )
    ]
