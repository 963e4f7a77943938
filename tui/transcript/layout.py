"""Where each message of a transcript is, in rows from the top; what is far is estimated."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from textual.strip import Strip

from edgespec.tui.transcript.look import Frame
from edgespec.tui.transcript.message import Message
from edgespec.tui.transcript.pieces import Piece

TOP = 1
"""Empty rows before the first message."""

GAP = 1
"""Empty rows after each message."""

MAX_DRAWN = 600
"""Pieces whose rows are kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row by what is in it, whatever heights are above: `row` of `piece` of `message`.

    `height` is the piece's at that time: at another width the row is as far down in its text.
    """

    message: Message
    piece: Piece | None
    row: int
    height: int = 1


class Column:
    """Messages, one below the other, in a frame."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.frame: Frame | None = None
        self._tops: list[int] | None = None
        self._drawn: dict[Piece, None] = {}

    def touch(self) -> None:
        """Say that messages or their heights have changed."""
        self._tops = None

    def tops(self) -> list[int]:
        """The row each message begins at, then the height of all."""
        assert self.frame is not None
        if self._tops is None:
            frame = self.frame
            heights = (message.height(frame) + GAP for message in self.messages)
            self._tops = list(accumulate(heights, initial=TOP))
        return self._tops

    def message_at(self, row: int) -> int | None:
        """The number of the message with that row, the empty rows after it included."""
        index = bisect_right(self.tops(), row) - 1
        return index if 0 <= index < len(self.messages) else None

    def find(self, row: int) -> tuple[Message, Piece, int] | None:
        """The message and piece with that row, and which of the piece's rows it is."""
        index = self.message_at(row)
        if index is None or self.frame is None:
            return None
        message = self.messages[index]
        inner = row - self.tops()[index]
        if inner >= message.height(self.frame) or not message.pieces():
            return None
        piece, place = message.piece_at(inner, self.frame)
        return message, piece, place

    def strips(self, first: int, last: int) -> list[Strip | None]:
        """What is drawn in each row from one to before another; None where nothing is."""
        strips: list[Strip | None] = []
        row = first
        while row < last:
            found = self.find(row)
            if found is None or self.frame is None:
                strips.append(None)
            else:
                _, piece, place = found
                rows = piece.rows(self.frame)
                end = min(len(rows), place + last - row)
                strips += [rows[index] for index in range(place, end)] or [None]
            row = first + len(strips)
        return strips

    def draw(self, first: int, last: int) -> bool:
        """Draw what is estimated between two rows; true if a height was not as estimated."""
        start, stop = self.message_at(first), self.message_at(last - 1)
        begin = 0 if start is None else start
        end = len(self.messages) if stop is None else stop + 1
        tops = self.tops()
        moved = False
        for index in range(begin, end):
            message, top = self.messages[index], tops[index]
            moved = self._draw_message(message, first - top, last - top) or moved
        return moved

    def _draw_message(self, message: Message, first: int, last: int) -> bool:
        """Draw the pieces of `message` between two of its rows."""
        frame = self.frame
        assert frame is not None
        estimated = not message.is_made
        before = message.height(frame)
        message.pieces()
        tops = message.tops(frame)
        moved = estimated and tops[-1] != before
        for piece, top, bottom in zip(message.pieces(), tops, tops[1:], strict=False):
            if bottom > first and top < last and self._draw_piece(piece):
                moved = True
        if moved:
            message.touch()
            self.touch()
        return moved

    def _draw_piece(self, piece: Piece) -> bool:
        frame = self.frame
        assert frame is not None
        before = piece.height
        piece.rows(frame)
        self._drawn.pop(piece, None)
        self._drawn[piece] = None
        while len(self._drawn) > MAX_DRAWN:
            oldest = next(iter(self._drawn))
            del self._drawn[oldest]
            oldest.forget()
        return piece.height != before

    def estimated(self) -> Iterator[tuple[Message, Piece | None]]:
        """What is still estimated: messages that were not read, and pieces not drawn."""
        frame = self.frame
        for message in self.messages if frame is not None else ():
            if not message.is_made:
                yield message, None
            assert frame is not None
            for piece in message.pieces():
                if not piece.is_exact(frame):
                    yield message, piece

    def correct(self, seconds: float) -> bool:
        """Correct estimates for so long; true if some are left."""
        deadline = time.monotonic() + seconds
        for message, piece in self.estimated():
            if piece is None:
                message.pieces()
            else:
                self._draw_piece(piece)
            message.touch()
            self.touch()
            if time.monotonic() > deadline:
                return True
        return False

    def place(self, row: int) -> Place | None:
        """What is in that row."""
        index = self.message_at(max(TOP, row))
        if index is None or self.frame is None:
            return None
        message = self.messages[index]
        inner = row - self.tops()[index]
        if inner >= message.height(self.frame) and index + 1 < len(self.messages):
            return Place(self.messages[index + 1], None, row - self.tops()[index + 1])
        if not message.is_made or not message.pieces():
            return Place(message, None, inner)
        piece, place = message.piece_at(inner, self.frame)
        return Place(message, piece, place, piece.height)

    def row_of(self, place: Place) -> int | None:
        """Where that is now; None if it is gone."""
        if place.message not in self.messages or self.frame is None:
            return None
        top = self.tops()[self.messages.index(place.message)]
        if place.piece is None:
            return top + place.row
        pieces = place.message.pieces()
        if place.piece not in pieces:
            return top
        row = place.row * place.piece.height // max(1, place.height)
        return top + place.message.tops(self.frame)[pieces.index(place.piece)] + row
