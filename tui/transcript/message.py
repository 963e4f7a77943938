"""One entry laid out: its pieces, and where each begins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from edgespec.tui.sources import Category
from edgespec.tui.transcript.blocks import Blocks
from edgespec.tui.transcript.items import Entry
from edgespec.tui.transcript.look import Frame
from edgespec.tui.transcript.pieces import (
    Piece,
    block_piece,
    foot_piece,
    question_pieces,
    remark_piece,
    source_piece,
    thought_piece,
)
from edgespec.tui.transcript.sources import coloured
from edgespec.tui.transcript.thought import Thought, split_thought
from edgespec.tui.transcript.wrapping import displayed
from edgespec.types import Span

SourceLine = list[tuple[str, Category | None]]


class Message:
    """An entry and the pieces it is drawn from, made when they are first asked for."""

    def __init__(self, entry: Entry, tint: bool = False) -> None:
        self.entry = entry
        self.is_shown = False
        self._tint = tint
        self._pieces: list[Piece] | None = None
        self._tops: list[int] | None = None
        self._width = 0
        self._reset()

    def _reset(self) -> None:
        """Forget what was drawn."""
        self._pieces = self._tops = None
        self._blocks = Blocks()
        self._num_read = 0
        self._body: list[Piece] = []
        self._num_kept = 0
        self._source: list[SourceLine] = []

    # What it says

    def update(self, entry: Entry) -> None:
        """Show `entry` instead; what its text begins with stays as it is drawn."""
        old, self.entry = self.entry, entry
        if entry.kind != "answer" or old.kind != "answer" or not entry.text.startswith(old.text):
            self._reset()
        self.touch()
        self._pieces = None

    def grow(self, text: str, spans: Sequence[Span] = ()) -> None:
        """Add `text` to the entry's."""
        entry = self.entry
        self.update(replace(entry, text=entry.text + text, spans=(*entry.spans, *spans)))

    def tint(self, tint: bool) -> None:
        """Colour the text of an answer by its sources, or no longer."""
        if tint != self._tint and self.entry.kind == "answer":
            self._tint = tint
            self._reset()

    @property
    def is_foldable(self) -> bool:
        """True if some of it can be shown or hidden."""
        if self.entry.kind == "question":
            return len(self.pieces()) > 1 or len(self.entry.text) > 200
        thought, _ = self._thought()
        return thought is not None and not thought.is_open and not self._tint

    def fold(self) -> None:
        """Show what is hidden, or hide it again."""
        self.is_shown = not self.is_shown
        self._pieces = self._tops = None

    # Where it is

    def pieces(self) -> list[Piece]:
        """All pieces, from the top."""
        if self._pieces is None:
            self._pieces = self._made()
            self._tops = None
        return self._pieces

    @property
    def is_made(self) -> bool:
        """True once its text was read."""
        return self._pieces is not None

    def height(self, frame: Frame) -> int:
        """Its rows, partly or wholly estimated."""
        if self._pieces is None:
            text = self.entry.text
            return 1 + text.count("\n") + len(text) // frame.width
        return self.tops(frame)[-1]

    def tops(self, frame: Frame) -> list[int]:
        """The row each piece begins at, counted from the entry's first; then its height."""
        if self._tops is None or self._width != frame.width:
            pieces = self.pieces()
            for piece in pieces:
                piece.estimate(frame)
            self._tops = [0, *accumulate(piece.height for piece in pieces)]
            self._width = frame.width
        return self._tops

    def touch(self) -> None:
        """Say that heights of pieces have changed."""
        self._tops = None

    def piece_at(self, row: int, frame: Frame) -> tuple[Piece, int]:
        """The piece with that row of the entry, and which of the piece's rows it is."""
        tops = self.tops(frame)
        index = min(bisect_right(tops, row), len(tops) - 1) - 1
        return self.pieces()[index], row - tops[index]

    # What it is made of

    def _made(self) -> list[Piece]:
        entry = self.entry
        if entry.kind == "question":
            body = question_pieces(entry, self.is_shown)
        elif entry.kind == "answer":
            body = self._answer_pieces()
        else:
            return [remark_piece(entry)]
        foot = foot_piece(entry, gap=1 if entry.kind == "answer" and body else 0)
        return body if foot is None else [*body, foot]

    def _thought(self) -> tuple[Thought | None, int]:
        return split_thought(self.entry.text, self.entry.state == "open")

    def _answer_pieces(self) -> list[Piece]:
        if self._tint:
            return self._source_pieces()
        thought, start = self._thought()
        start = max(start, self._num_read)
        self._blocks.grow(self.entry.text[start:])
        self._num_read = len(self.entry.text) if start < len(self.entry.text) else self._num_read
        if self.entry.state != "open":
            self._blocks.end()
        body = self._body[: self._num_kept]
        for block in self._blocks.all()[len(body) :]:
            first = not body and thought is None
            body.append(block_piece(block, gap=0 if first or block.joined else 1))
        self._body, self._num_kept = body, self._blocks.num_final
        head = [] if thought is None else [thought_piece(thought, self.is_shown, self.entry.key)]
        return head + body

    def _source_pieces(self) -> list[Piece]:
        lines: list[SourceLine] = [[]]
        for text, category in coloured(self.entry.text.rstrip("\n"), self.entry.spans):
            first, *others = displayed(text).split("\n")
            if first:
                lines[-1].append((first, category))
            lines += [[(other, category)] if other else [] for other in others]
        same = sum(1 for _ in _equal_start(lines, self._source))
        self._body = self._body[:same] + [source_piece(line) for line in lines[same:]]
        self._source = lines
        return list(self._body)


def _equal_start(new: Sequence[SourceLine], old: Sequence[SourceLine]) -> list[SourceLine]:
    """The lines that both begin with."""
    same = []
    for one, other in zip(new, old, strict=False):
        if one != other:
            break
        same.append(one)
    return same
