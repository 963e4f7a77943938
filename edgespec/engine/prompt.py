"""A request's prompt as token ids that fit the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgespec.errors import ContextOverflowError, UsageError
from edgespec.protocols import TextBridge
from edgespec.types import CompletionRequest, EncodedPrompt, Message

_ANSWER_SHARE = 4
"""Dropping old turns leaves a quarter of the context for the answer, unless it needs less."""


def encode_prompt(
    request: CompletionRequest, bridge: TextBridge, num_context: int
) -> EncodedPrompt:
    """Token ids of the request's prompt, with room for at least one token of answer.

    Raises ContextOverflowError when it does not fit and the policy is "error", or when the system
    message and the last turn alone do not fit; UsageError for nonsense limits or an empty prompt.
    """
    if request.max_tokens is not None and request.max_tokens < 1:
        raise UsageError(f"max_tokens is {request.max_tokens}", "give at least 1")
    if request.prompt_tokens or isinstance(request.prompt, str):
        return EncodedPrompt(_fitting(prompt_tokens(request, bridge), num_context), request.prompt)
    messages = list(request.prompt)
    if not messages:
        raise UsageError("the conversation has no messages", "give at least one")

    def encode(turns: Sequence[Message]) -> Sequence[int]:
        return prompt_tokens(replace(request, prompt=tuple(turns)), bridge)

    if request.overflow == "error":
        return EncodedPrompt(_fitting(encode(messages), num_context), request.prompt)
    return _drop_oldest(messages, encode, num_context, request.max_tokens)


def prompt_tokens(request: CompletionRequest, bridge: TextBridge) -> Sequence[int]:
    """Token ids of the request's prompt, whether they fit or not; raises UsageError."""
    if request.prompt_tokens:
        for token in {min(request.prompt_tokens), max(request.prompt_tokens)}:
            try:
                bridge.piece(token)
            except ValueError as error:
                raise UsageError(
                    f"the prompt has a token {token}", "send the model's own"
                ) from error
        return request.prompt_tokens
    if isinstance(request.prompt, str):
        return bridge.encode(request.prompt)
    return bridge.encode_chat(
        request.prompt,
        continue_final_message=request.continue_final_message,
        template=request.template,
    )


def _drop_oldest(
    messages: list[Message],
    encode: Callable[[Sequence[Message]], Sequence[int]],
    num_context: int,
    max_tokens: int | None,
) -> EncodedPrompt:
    reserve = max(min(max_tokens or num_context, num_context // _ANSWER_SHARE), 1)
    num_dropped = 0
    while True:
        tokens = encode(messages)
        if len(tokens) <= num_context - reserve:
            return EncodedPrompt(tuple(tokens), tuple(messages), num_dropped)
        droppable = _oldest_turn(messages)
        if not droppable:
            return EncodedPrompt(_fitting(tokens, num_context), tuple(messages), num_dropped)
        messages = [m for i, m in enumerate(messages) if i not in droppable]
        num_dropped += len(droppable)


def _oldest_turn(messages: Sequence[Message]) -> list[int]:
    """Indices of the oldest question and its answers; empty if only the last turn is left."""
    spoken = [i for i, m in enumerate(messages) if m.role != "system"]
    following = (i for i in spoken[1:] if messages[i].role == "user")
    end = next(following, None)
    return [i for i in spoken if i < end] if end is not None else []


def _fitting(tokens: Sequence[int], num_context: int) -> tuple[int, ...]:
    if not tokens:
        raise UsageError("the prompt is empty", "give at least one word")
    if len(tokens) >= num_context:
        raise ContextOverflowError(
            # Clients know that they may shorten it and try again by "prompt is too long".
            f"the prompt is too long: {len(tokens)} tokens, and the context holds {num_context}",
            "shorten it or use a larger context (--context)",
            len(tokens),
            num_context,
        )
    return tuple(tokens)
