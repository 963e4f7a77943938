"""What an answer does not say itself about how it came about, in the app's words."""

from __future__ import annotations

from edgespec.tui.session import Session
from edgespec.types import Completion

_NEARLY_FULL = 0.85


def remarks(
    completion: Completion,
    max_tokens: int | None,
    num_dropped_before: int,
    *,
    has_older: bool = True,
) -> list[str]:
    """Lines to show after an answer; the left-out messages are told when their number changes.

    `has_older` says that there are older questions, which can be left out.
    """
    lines = []
    if completion.num_dropped_messages not in (0, num_dropped_before):
        lines.append(_dropped(completion.num_dropped_messages))
    if completion.finish_reason == "length":
        if max_tokens is not None and len(completion.token_ids) >= max_tokens:
            lines.append(f"the limit is {max_tokens:,} tokens")
        else:
            older = "/continue leaves out the oldest questions, " if has_older else ""
            lines.append(f"the context is full · {older}/summary goes on in a new conversation")
    elif not completion.text and completion.finish_reason != "cancelled":
        lines.append("the model had nothing to say")
    return lines


def context_remark(completion: Completion, num_context: int) -> list[str]:
    """Say that the context is nearly full, before it is."""
    timings = completion.timings
    used = timings.num_prompt_tokens + timings.num_decoded_tokens
    if used < _NEARLY_FULL * num_context or completion.finish_reason == "length":
        return []
    return [
        f"the context is {min(used / num_context, 1.0):.0%} full: the oldest questions will be left"
        " out · /summary goes on in a new conversation"
    ]


def same_bytes_remark(session: Session, answer: int) -> list[str]:
    """An answer without speculation beside the one with it: whether they differ, and both times."""
    message = session.messages[answer]
    seed = message.figures.get("seed")
    for other in map(session.messages.__getitem__, reversed(session.versions(answer))):
        is_pair = other.figures.get("seed") == seed and not other.figures.get("plain")
        if other.id != answer and is_pair and other.state == message.state:
            times = [each.figures.get("decode_ms", 0.0) / 1e3 for each in (other, message)]
            same = "the same bytes" if other.content == message.content else "another answer"
            return [f"{same}: {times[0]:.1f} s with speculation, {times[1]:.1f} s without"]
    return []


def _dropped(num_dropped: int) -> str:
    if num_dropped == 1:
        return "1 oldest message no longer fits and was left out"
    return f"{num_dropped} oldest messages no longer fit and were left out"
