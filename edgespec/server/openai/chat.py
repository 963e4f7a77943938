"""POST /v1/chat/completions, and what goes with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgespec.server.fields import Json, TopLogprobs, invalid
from edgespec.server.figures import logprob_entries
from edgespec.server.forms import Told
from edgespec.server.models import Served
from edgespec.server.openai.fields import AnswerBody, CompletionForm, Wishes, wishes_of
from edgespec.server.openai.messages import ChatMessage, continues, conversation
from edgespec.server.service import Endpoint, Service, in_thread
from edgespec.server.speech import Arguments, Begun, Part, Speech, Words, speech_of
from edgespec.server.tools import Toolbox, ToolChoice, Tools, toolbox
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    SamplingParams,
    TemplateValues,
    TokenLogprob,
)

_FINAL_NAMES = ("continue_final_message", "add_generation_prompt")


class ChatBody(AnswerBody):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: Json | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """`top_logprobs`, which needs `logprobs`."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise invalid("top_logprobs", "top_logprobs needs logprobs to be true")
        return None

    def toolbox(self, served: Served) -> Toolbox | None:
        """The tools that the answer may use; raises ApiError."""
        return toolbox(
            [tool.function for tool in self.tools or ()],
            self.tool_choice,
            served.details,
            is_parallel=self.parallel_tool_calls,
        )

    def asked(
        self, served: Served, default: SamplingParams, tools: Toolbox | None
    ) -> CompletionRequest:
        """The question, once; raises ApiError."""
        constraint = self.constraint()
        if tools is not None:
            constraint = tools.constraint(constraint)
        is_open = continues(self.messages, self._asked_to_continue())
        return replace(
            self.question(served, default, constraint),
            prompt=conversation(self.messages),
            continue_final_message=is_open,
            template=TemplateValues(tools.text if tools is not None else "", self._variables()),
        )

    def _asked_to_continue(self) -> bool | None:
        """As vLLM has it: a prompt that is generated leaves no message open."""
        if self.add_generation_prompt and self.continue_final_message:
            raise invalid(_FINAL_NAMES[0], f"{' and '.join(_FINAL_NAMES)} exclude each other")
        if self.add_generation_prompt is False and not self.continue_final_message:
            if self.messages[-1].role != "assistant":
                raise invalid(_FINAL_NAMES[1], "only an assistant's message can be left open")
            return True
        return False if self.add_generation_prompt else self.continue_final_message

    def _variables(self) -> str:
        variables = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            variables.setdefault("reasoning_effort", self.reasoning_effort)
        try:
            return json.dumps(variables, allow_nan=False) if variables else ""
        except (ValueError, RecursionError) as error:
            raise invalid("chat_template_kwargs", f"chat_template_kwargs: {error}") from error


class ChatForm(CompletionForm):
    """`chat.completion` and `chat.completion.chunk`."""

    def __init__(
        self, served: Served, tools: Toolbox | None, wishes: Wishes, *, stream: bool
    ) -> None:
        kind = "chat.completion.chunk" if stream else "chat.completion"
        super().__init__("chatcmpl-", kind, served, wishes)
        self._tools = tools
        self._speeches: dict[int, Speech] = {}

    def whole(self, answers: Sequence[Told]) -> Json:
        """One message each."""
        choices = [self._whole_choice(index, told) for index, told in enumerate(answers)]
        return self._whole(choices, [told.completion for told in answers])

    def piece(self, index: int, chunk: Chunk) -> list[Json]:
        """More of a message, begun with whose turn it is."""
        events: list[Json] = []
        if index not in self._speeches:
            self._speeches[index] = speech_of(self._tools)
            events.append(self._part(_choice(index, {"role": "assistant", "content": ""})))
        if chunk.progress is not None:
            return events + self._progress(_choice(index, {}), chunk)
        deltas = [_delta(part) for part in self._speeches[index].feed(chunk.text)]
        if chunk.logprobs and not deltas:
            deltas = [{"content": ""}]
        for number, delta in enumerate(deltas):
            first = chunk if number == 0 else None
            logprobs = self._logprobs(chunk.logprobs) if first is not None else None
            events.append(self._part(_choice(index, delta, logprobs), first))
        return events

    def ended(self, index: int, completion: Completion) -> list[Json]:
        """What was held back, and an empty delta with the finish reason."""
        speech = self._speeches[index]
        events = [self._part(_choice(index, _delta(part))) for part in speech.finish()]
        last = _choice(index, {}) | {"finish_reason": _finish(completion, speech)}
        return [*events, self._part(last) | self._figures(completion)]

    def _whole_choice(self, index: int, told: Told) -> Json:
        speech = speech_of(self._tools)
        speech.feed(told.completion.text)
        speech.finish()
        message: Json = {"role": "assistant", "content": speech.text, "refusal": None}
        if speech.calls:
            message["content"] = speech.text or None
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in speech.calls
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(told.logprobs),
            "finish_reason": _finish(told.completion, speech),
        }

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not logprobs:
            return None
        return {"content": logprob_entries(logprobs, self._decode_token), "refusal": None}


def _finish(completion: Completion, speech: Speech) -> str:
    is_calling = bool(speech.calls) and completion.finish_reason == "stop"
    return "tool_calls" if is_calling else completion.finish_reason


def _choice(index: int, delta: Json, logprobs: Json | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _delta(part: Part) -> Json:
    match part:
        case Words(text):
            return {"content": text}
        case Begun(index, id_, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": id_, "type": "function", "function": function}
        case Arguments(index, text):
            call = {"index": index, "function": {"arguments": text}}
    return {"tool_calls": [call]}


class Chat:
    """The endpoints that take a conversation in OpenAI's form."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def complete(self, request: Request) -> Response:
        """The assistant's next turn."""
        body = await self._service.read(request, ChatBody)
        served = await self._service.models.acquire(body.model)
        default = self._service.settings.default_sampling
        tools = body.toolbox(served)
        question = await in_thread(body.asked, served, default, tools)
        stream = body.stream is True
        form = ChatForm(served, tools, await in_thread(wishes_of, body, served), stream=stream)
        return self._service.respond(served, body.choices(question), form, stream=stream)

    async def count(self, request: Request) -> Response:
        """How many tokens a conversation would take."""
        served, question = await self._read(request)
        tokens = await in_thread(served.completer.encode, question)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": len(tokens)})

    async def render(self, request: Request) -> Response:
        """The text that a conversation becomes."""
        served, question = await self._read(request)
        return JSONResponse({"prompt": await in_thread(served.completer.render, question)})

    async def _read(self, request: Request) -> tuple[Served, CompletionRequest]:
        body = await self._service.read(request, ChatBody)
        served = await self._service.models.acquire(body.model)
        default = self._service.settings.default_sampling
        question = await in_thread(body.asked, served, default, body.toolbox(served))
        return served, question


def endpoints(service: Service) -> list[Endpoint]:
    """What this module serves."""
    chat = Chat(service)
    path = "/v1/chat/completions"
    return [
        Endpoint(
            "POST",
            (path, "/chat/completions"),
            chat.complete,
            "Answer a conversation.",
            ChatBody,
            streams="text/event-stream",
        ),
        Endpoint(
            "POST",
            (f"{path}/input_tokens", "/chat/completions/input_tokens"),
            chat.count,
            "Count the tokens of a conversation.",
            ChatBody,
        ),
        Endpoint(
            "POST", ("/apply-template",), chat.render, "Render a conversation as text.", ChatBody
        ),
    ]
