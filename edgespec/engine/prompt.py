"""A request's prompt as token ids that fit the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.errors import ContextOverflowError, UsageError
from edgespec.protocols import TextBridge
from edgespec.types import CompletionRequest, Message, Prompt

_ANSWER_SHARE = 4
"""Dropping old turns leaves a quarter of the context for the answer, unless it needs less."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of a prompt, what of it they stand for, and how many messages were left out."""

    tokens: list[int]
    prompt: Prompt
    num_dropped_messages: int = 0


def encode_prompt(
    request: CompletionRequest, bridge: TextBridge, num_context: int
) -> EncodedPrompt:
    """Token ids of the request's prompt, with room for at least one token of answer.

    Raises ContextOverflowError when it does not fit and the policy is "error", or when the system
    message and the last turn alone do not fit; UsageError for nonsense limits or an empty prompt.
    """
    if request.max_tokens is not None and request.max_tokens < 1:
        raise UsageError(f"max_tokens is {request.max_tokens}", "give at least 1")
    if isinstance(request.prompt, str):
        tokens = _fitting(bridge.encode(request.prompt), num_context - 1, num_context)
        return EncodedPrompt(tokens, request.prompt)
    messages = list(request.prompt)
    if not messages:
        raise UsageError("the conversation has no messages", "give at least one")
    if request.overflow == "error":
        tokens = _fitting(bridge.encode_chat(messages), num_context - 1, num_context)
        return EncodedPrompt(tokens, request.prompt)
    return _drop_oldest(messages, bridge, num_context, request.max_tokens)


def _drop_oldest(
    messages: list[Message], bridge: TextBridge, num_context: int, max_tokens: int | None
) -> EncodedPrompt:
    reserve = max(min(max_tokens or num_context, num_context // _ANSWER_SHARE), 1)
    num_dropped = 0
    while True:
        tokens = bridge.encode_chat(messages)
        if len(tokens) <= num_context - reserve:
            return EncodedPrompt(tokens, tuple(messages), num_dropped)
        droppable = _oldest_turn(messages)
        if not droppable:
            fitting = _fitting(tokens, num_context - 1, num_context)
            return EncodedPrompt(fitting, tuple(messages), num_dropped)
        messages = [m for i, m in enumerate(messages) if i not in droppable]
        num_dropped += len(droppable)


def _oldest_turn(messages: Sequence[Message]) -> list[int]:
    """Indices of the oldest question and its answers; empty if only the last turn is left."""
    spoken = [i for i, m in enumerate(messages) if m.role != "system"]
    following = (i for i in spoken[1:] if messages[i].role == "user")
    end = next(following, None)
    return [i for i in spoken if i < end] if end is not None else []


def _fitting(tokens: list[int], limit: int, num_context: int) -> list[int]:
    if not tokens:
        raise UsageError("the prompt is empty", "give at least one word")
    if len(tokens) > limit:
        raise ContextOverflowError(
            f"the prompt takes {len(tokens)} tokens and the context holds {num_context}",
            "shorten it or use a larger context (--context)",
        )
    return tokens
