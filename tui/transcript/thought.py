"""What a model thinks before it answers, between `<think>` and `</think>`."""

from __future__ import annotations

from dataclasses import dataclass

from edgespec.tui.transcript.inline import clickable
from edgespec.tui.transcript.look import Frame, Line
from edgespec.tui.transcript.wrapping import displayed, wrap

BEGIN, END = "<think>", "</think>"

NUM_TAIL_ROWS = 3
"""Rows of a thought that is under way: its end."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought; `is_open` while more of it may come."""

    text: str
    is_open: bool


def split_thought(text: str, is_open: bool) -> tuple[Thought | None, int]:
    """The thought that `text` begins with, if any, and where the answer begins.

    While the text is open, what may yet become `<think>` counts to neither.

    >>> split_thought("<think>Hm.</think>Yes.", False)
    (Thought(text='Hm.', is_open=False), 18)
    """
    start = len(text) - len(text.lstrip())
    if not text.startswith(BEGIN, start):
        undecided = is_open and BEGIN.startswith(text[start:])
        return None, len(text) if undecided else 0
    start += len(BEGIN)
    end = text.find(END, start)
    if end < 0:
        return Thought(text[start:], is_open), len(text)
    return Thought(text[start:end], False), end + len(END)


def draw_thought(thought: Thought, is_shown: bool, key: str, frame: Frame) -> list[Line]:
    """The end of a thought that is under way; one line for one that is not, or all of it."""
    style = frame.look.base + frame.look["muted"]
    text = displayed(thought.text).strip()
    if thought.is_open:
        tail = text[-frame.width * NUM_TAIL_ROWS :]
        return wrap([(tail, style)], frame.width)[-NUM_TAIL_ROWS:]
    sign, verb = ("▾", "hide") if is_shown else ("▸", "show")
    count = len(text.split())
    words = f"{count:,} word{'' if count == 1 else 's'}"
    said = f"{sign} thought for {words} · click or press to {verb}"
    lines = wrap([(said, style + clickable("fold", key))], frame.width)
    return lines + wrap([(text, style)], frame.width) if is_shown else lines
