"""Request bodies: what clients may send, and the `CompletionRequest` that it means.

Types are strict (no "0.5" for 0.5); null means that the field was left out; unknown fields are
ignored. Fields that would change the meaning of the answer and are not served (several choices,
tools, images, token ids) are refused rather than ignored.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, Field, ValidationError

from edgespec.server.errors import ApiError, from_validation
from edgespec.server.fields import (
    Bias,
    Content,
    Count,
    Limit,
    NotEmpty,
    Penalty,
    Prompt,
    ResponseFormat,
    Seed,
    Share,
    StopStrings,
    StreamOptions,
    Strict,
    TokenId,
)
from edgespec.types import CompletionRequest, Constraint, Message, Role, SamplingParams

_NUM_SEEDS = 2**32 - 1
"""llama.cpp takes 2**32 - 1 for "any seed", so seeds are told apart modulo this."""

_ROLES: dict[str, Role] = {"developer": "system", "function": "tool"}


class AnswerBody(Strict, ABC):
    """What both endpoints take."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    stop: StopStrings | None = None
    n: int | None = None
    response_format: ResponseFormat | None = None
    grammar: NotEmpty | None = None
    speculate: bool | None = None
    seed: Seed | None = None
    logit_bias: dict[TokenId, Bias] | None = None

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Limit | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: Annotated[float, Field(gt=0)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    penalty_last_n: Count | None = Field(
        default=None, validation_alias=AliasChoices("penalty_last_n", "repeat_last_n")
    )
    dry_multiplier: Annotated[float, Field(ge=0)] | None = None
    dry_base: Annotated[float, Field(ge=1)] | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Count | None = None

    @property
    def include_usage(self) -> bool:
        """True if a streamed answer is to end with its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    @abstractmethod
    def num_top_logprobs(self) -> int | None:
        """Log-probabilities to return beside the chosen token's; None for none at all."""

    @property
    def token_limit(self) -> int | None:
        """Most tokens to emit; None, as -1, means until the context is full."""
        return _limit(self.max_tokens, "max_tokens")

    @abstractmethod
    def to_request(self, default: SamplingParams) -> CompletionRequest:
        """What is asked of the completer; `default` fills what was left out. Raises ApiError."""

    def _request(
        self, prompt: tuple[Message, ...] | str, default: SamplingParams
    ) -> CompletionRequest:
        if self.n not in (None, 1):
            raise _unsupported("n", "only one choice a request is supported")
        return CompletionRequest(
            prompt=prompt,
            sampling=self._sampling(default),
            max_tokens=self.token_limit,
            stop=tuple(self.stop or ()),
            num_top_logprobs=self.num_top_logprobs,
            speculate=self.speculate is not False,
        )

    def _sampling(self, default: SamplingParams) -> SamplingParams:
        given = {
            name: value for name in _SAMPLING_FIELDS if (value := getattr(self, name)) is not None
        }
        if given.get("top_k") == -1:
            given["top_k"] = 0
        schema = self.response_format.schema_text() if self.response_format else None
        if schema is not None and self.grammar is not None:
            raise ApiError(
                400,
                "grammar and response_format exclude each other; send one",
                param="grammar",
                code="invalid_value",
            )
        if schema is not None:
            given["constraint"] = Constraint("json_schema", schema)
        elif self.grammar is not None:
            given["constraint"] = Constraint("gbnf", self.grammar)
        if self.logit_bias is not None:
            given["logit_bias"] = tuple((int(key), bias) for key, bias in self.logit_bias.items())
        return replace(default, **given, seed=_seed(self.seed))


_SAMPLING_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "penalty_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
)


class ChatMessage(Strict):
    """One turn; only an assistant's turn may lack text."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None


class ChatBody(AnswerBody):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None

    @property
    def num_top_logprobs(self) -> int | None:
        """`top_logprobs`, which needs `logprobs`."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise ApiError(
                400,
                "top_logprobs needs logprobs to be true",
                param="top_logprobs",
                code="invalid_value",
            )
        return None

    @property
    def token_limit(self) -> int | None:
        """`max_completion_tokens`, or the older `max_tokens`."""
        if self.max_completion_tokens is not None:
            return _limit(self.max_completion_tokens, "max_completion_tokens")
        return super().token_limit

    def to_request(self, default: SamplingParams) -> CompletionRequest:
        """The conversation, rendered later through the target's own chat template."""
        if (self.tools or self.functions) and self.tool_choice != "none":
            raise _unsupported("tools", "tools are not supported")
        messages = tuple(
            Message(_role(message.role), _content(message, index))
            for index, message in enumerate(self.messages)
        )
        return self._request(messages, default)


class TextBody(AnswerBody):
    """Body of POST /v1/completions."""

    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """`logprobs`: the number itself."""
        return self.logprobs

    def to_request(self, default: SamplingParams) -> CompletionRequest:
        """The prompt as it stands, without a chat template."""
        if self.best_of not in (None, 1):
            raise _unsupported("best_of", "only one choice a request is supported")
        if self.echo:
            raise _unsupported("echo", "echo is not supported")
        if self.suffix:
            raise _unsupported("suffix", "a suffix is not supported")
        return self._request(self.prompt, default)


Body = TypeVar("Body", bound=AnswerBody)


def parse_body(kind: type[Body], raw: bytes) -> Body:
    """Read a request body; raises ApiError 400 for anything but a valid one."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"the body is not UTF-8: {error.reason} at byte {error.start}", code="invalid_json"
        ) from error
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise from_validation(error) from error


def _role(name: str) -> Role:
    return _ROLES.get(name) or name  # type: ignore[return-value]


def _content(message: ChatMessage, index: int) -> str:
    if message.content is None and message.role != "assistant":
        param = f"messages[{index}].content"
        raise ApiError(400, f"{param} is required", param=param, code="missing_required_parameter")
    return message.content or ""


def _limit(value: int | None, field: str) -> int | None:
    if value == 0:
        raise ApiError(400, f"{field} must be at least 1", param=field, code="invalid_value")
    return None if value == -1 else value


def _seed(given: int | None) -> int:
    """The seed to use; as in llama.cpp, -1 asks for a random one."""
    return secrets.randbelow(_NUM_SEEDS) if given in (None, -1) else given % _NUM_SEEDS


def _unsupported(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="unsupported_parameter")
