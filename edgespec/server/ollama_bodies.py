"""What clients of Ollama send."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from edgespec.server.constraints import ANY_OBJECT, of_schema
from edgespec.server.fields import (
    Body,
    Json,
    Seed,
    Share,
    StopStrings,
    Strict,
    TopLogprobs,
    refuse_meaningful,
    unsupported,
)
from edgespec.server.models import Served
from edgespec.server.openai.completions import infill
from edgespec.server.sampling import sampling_of
from edgespec.server.tools import Toolbox, Tools, toolbox
from edgespec.types import (
    CompletionRequest,
    Constraint,
    Message,
    SamplingParams,
    TemplateValues,
    ToolCall,
)


class Options(Body):
    """How the next token is chosen; what only says how to load a model is ignored."""

    seed: Seed | None = None
    num_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    stop: StopStrings | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    def sampling(
        self, default: SamplingParams, num_context: int, constraint: Constraint | None
    ) -> SamplingParams:
        """What these mean; raises ApiError."""
        refuse_meaningful(self.model_extra or {}, "options.")
        given = {name: getattr(self, name) for name in _SAMPLING}
        last_n = self.repeat_last_n
        given["penalty_last_n"] = num_context if last_n == -1 else last_n
        return sampling_of(given, default, seed=self.seed, constraint=constraint)


_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)


class AskBody(Body):
    """What both ways to ask have."""

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | Json | None = None
    options: Options | None = None
    keep_alive: str | float | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    def question(
        self, served: Served, default: SamplingParams, constraint: Constraint | None
    ) -> CompletionRequest:
        """What is asked for, but for the prompt; raises ApiError."""
        if self.think not in (None, False):
            raise unsupported("think", f"{served.name!r} does not support thinking")
        options = self.options or Options()
        limit = options.num_predict
        return CompletionRequest(
            prompt="",
            sampling=options.sampling(default, served.completer.model.num_context, constraint),
            max_tokens=-1 if limit is not None and limit < 0 else limit,
            stop=tuple(options.stop or ()),
            num_top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def constraint(self) -> Constraint | None:
        """What the answer must be."""
        if self.format in (None, ""):
            return None
        if self.format == "json":
            return ANY_OBJECT
        assert isinstance(self.format, dict)
        return of_schema(self.format, "format")

    @property
    def loads_only(self) -> bool:
        """Whether nothing is asked: clients have models loaded so."""
        return False


class CalledFunction(Strict):
    """A function that was called."""

    name: str
    arguments: Json | None = None


class GivenCall(Strict):
    """A call that the assistant made."""

    id: str = ""
    function: CalledFunction


class OllamaMessage(Strict):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Annotated[list[str], Field(max_length=0)] | None = None
    tool_calls: list[GivenCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        """The turn as templates know it."""
        calls = tuple(
            ToolCall(call.function.name, json.dumps(call.function.arguments or {}), call.id)
            for call in self.tool_calls or ()
        )
        return Message(
            self.role, self.content or "", calls, self.tool_call_id or "", self.tool_name or ""
        )


class ChatBody(AskBody):
    """Body of POST /api/chat."""

    messages: list[OllamaMessage] | None = None
    tools: Tools | None = None

    @property
    def loads_only(self) -> bool:
        """Without messages."""
        return not self.messages

    def toolbox(self, served: Served) -> Toolbox | None:
        """The tools that the answer may use; raises ApiError."""
        return toolbox([tool.function for tool in self.tools or ()], None, served.details)

    def asked(
        self, served: Served, default: SamplingParams, tools: Toolbox | None
    ) -> CompletionRequest:
        """The question; raises ApiError."""
        constraint = self.constraint()
        if tools is not None:
            constraint = tools.constraint(constraint)
        messages = tuple(message.message() for message in self.messages or ())
        return replace(
            self.question(served, default, constraint),
            prompt=messages,
            continue_final_message=messages[-1].role == "assistant" and not messages[-1].tool_calls,
            template=TemplateValues(tools.text if tools is not None else ""),
        )


class GenerateBody(AskBody):
    """Body of POST /api/generate."""

    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None

    @property
    def loads_only(self) -> bool:
        """Without a prompt."""
        return not self.prompt and not self.suffix

    def asked(self, served: Served, default: SamplingParams) -> CompletionRequest:
        """The question: a turn of the user's, a gap, or plain text; raises ApiError."""
        question = self.question(served, default, self.constraint())
        if self.suffix:
            return replace(question, prompt_tokens=infill(self.prompt, self.suffix, served))
        if self.raw:
            return replace(question, prompt=self.prompt)
        first = (Message("system", self.system),) if self.system else ()
        return replace(question, prompt=(*first, Message("user", self.prompt)))


class ShowBody(Body):
    """Body of POST /api/show."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
