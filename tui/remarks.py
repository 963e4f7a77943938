"""What an answer does not say itself about how it came about, in the app's words."""

from __future__ import annotations

from edgespec.types import Completion


def remarks(completion: Completion, max_tokens: int | None, num_dropped_before: int) -> list[str]:
    """Lines to show after an answer; the left-out messages are told when their number changes."""
    lines = []
    if completion.num_dropped_messages not in (0, num_dropped_before):
        lines.append(_dropped(completion.num_dropped_messages))
    if completion.finish_reason == "length":
        at_limit = max_tokens is not None and len(completion.token_ids) >= max_tokens
        reason = f"the limit is {max_tokens:,} tokens" if at_limit else "the context is full"
        lines.append(f"cut off: {reason}")
    elif completion.finish_reason == "cancelled":
        lines += ["stopped"] if completion.text else []
    elif not completion.text:
        lines.append("the model had nothing to say")
    return lines


def _dropped(num_dropped: int) -> str:
    if num_dropped == 1:
        return "1 oldest message no longer fits and was left out"
    return f"{num_dropped} oldest messages no longer fit and were left out"
