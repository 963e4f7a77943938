"""Long text that stands in the box as a short label: a paste, or an attached file.

The box's text, with labels in it, is a *draft*. A label is told from what users write by its
spaces: they are figure spaces, which look like spaces and which nothing else in a draft may
contain. Text that has some itself becomes a chip whatever its length, so a draft always stands for
exactly what was put into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgespec.tui.attachments import Attachment, appended
from edgespec.tui.plain import plain

MARK = "\u2007"
FOLDED_LINES = 8
FOLDED_CHARACTERS = 2_000
"""Pastes beyond either are folded into a chip."""
RECALLED_CHARACTERS = 20_000
"""Messages beyond that are folded when they come back into the box: it lays out all its text."""

_LABEL = re.compile(rf"\[[^\[\]\n]*{MARK}[^\[\]\n]*\]")


@dataclass(frozen=True, slots=True)
class Pasted:
    """Text that was pasted."""

    text: str


Chip = Pasted | Attachment


def folds(text: str) -> bool:
    """True for a paste that is shown as a chip."""
    return (
        len(text) > FOLDED_CHARACTERS or text.rstrip("\n").count("\n") >= FOLDED_LINES
    ) or MARK in text


class Chips:
    """The chips of one box, by label. Labels never lose their meaning: undo brings them back."""

    def __init__(self) -> None:
        self._by_label: dict[str, Chip] = {}

    def label(self, chip: Chip, num_tokens: int | None = None) -> str:
        """The label that stands for `chip` from now on; `num_tokens` are a file's, if known."""
        base, number = _base(chip, num_tokens), 1
        label = f"[{base}]"
        while self._by_label.setdefault(label, chip) != chip:
            number += 1
            label = f"[{base}{MARK}#{number}]"
        return label

    def chip(self, label: str) -> Chip | None:
        """What `label` stands for."""
        return self._by_label.get(label)

    def spans(self, line: str) -> list[tuple[int, int]]:
        """Where labels stand in a line of a draft: columns of their begin and end."""
        if MARK not in line:
            return []
        return [m.span() for m in _LABEL.finditer(line) if m[0] in self._by_label]

    def draft(self, text: str) -> str:
        """A draft that stands for `text`, which was no draft."""
        if len(text) > RECALLED_CHARACTERS or MARK in text:
            return self.label(Pasted(text))
        return plain(text)

    def expand(self, draft: str) -> str:
        """What `draft` stands for: pastes in their places, files by name and added at the end."""
        files: list[Attachment] = []

        def content(match: re.Match[str]) -> str:
            chip = self._by_label.get(match[0])
            if isinstance(chip, Attachment):
                files.extend(() if chip in files else (chip,))
                return chip.name
            return chip.text if chip is not None else match[0]

        return appended(_LABEL.sub(content, draft) if MARK in draft else draft, files)


def _base(chip: Chip, num_tokens: int | None) -> str:
    if isinstance(chip, Pasted):
        num_lines = chip.text.rstrip("\n").count("\n") + 1
        text = f"pasted {num_lines:,} line{'s' if num_lines != 1 else ''}"
    elif num_tokens is None:
        text = f"@{chip.short_name} {max(1, round(chip.num_bytes / 1000)):,} KB"
    else:
        text = f"@{chip.short_name} {num_tokens:,} token{'s' if num_tokens != 1 else ''}"
    return text.replace(" ", MARK)


def shown(draft: str) -> str:
    """A draft as it is to be read: labels with ordinary spaces."""
    return draft.replace(MARK, " ")
