"""What a message is drawn from: pieces of some rows, each drawn only when it comes into view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from textual.style import Style

from edgespec.tui.sources import Category
from edgespec.tui.transcript.blocks import Block
from edgespec.tui.transcript.code import PADDING, CodeRows
from edgespec.tui.transcript.drawing import Drawer
from edgespec.tui.transcript.inline import clickable
from edgespec.tui.transcript.items import Entry
from edgespec.tui.transcript.look import INSET, Frame, Line, Rows, blanks
from edgespec.tui.transcript.thought import Thought, draw_thought
from edgespec.tui.transcript.wrapping import displayed, wrap

NUM_FOLDED_ROWS = 12
"""Rows of a long question that are shown until it is opened."""

NUM_CHUNK_LINES = 40
MAX_CHUNK_LINE = 2000
"""An open question is cut into pieces of so many lines, and its lines after so many characters."""


class Piece:
    """Rows that are drawn together; `inset` are columns that are not copied with their text."""

    __slots__ = ("_draw", "_frame", "_rows", "_size", "_width", "height", "inset")

    def __init__(
        self, draw: Callable[[Frame], Rows], size: tuple[int, int] = (0, 1), inset: int = INSET
    ) -> None:
        """`size` are the (characters, lines) that its height is estimated from."""
        self._draw = draw
        self._size = size
        self._rows: Rows | None = None
        self._frame: Frame | None = None
        self._width = 0
        self.height = 0
        self.inset = inset

    def is_exact(self, frame: Frame) -> bool:
        """True if `height` is known, not estimated."""
        return self._width == frame.width

    def estimate(self, frame: Frame) -> None:
        """Estimate `height` unless it is known."""
        if self._width != frame.width:
            num_characters, num_lines = self._size
            self.height = num_lines + num_characters // frame.width

    def rows(self, frame: Frame) -> Rows:
        """The rows, drawn if they are not; `height` is known from then on."""
        if self._rows is None or self._frame is not frame:
            self._rows = self._draw(frame)
            self._frame, self._width = frame, frame.width
            self.height = len(self._rows)
        return self._rows

    def forget(self) -> None:
        """Drop the rows, but not what is known of their number."""
        self._rows = None


def block_piece(block: Block, gap: int) -> Piece:
    """A block of an answer, `gap` empty rows before it."""
    num_characters, num_lines = block.size
    inset = INSET + (PADDING if block.code is not None else 0)
    return Piece(partial(_draw_block, block, gap), (num_characters, num_lines + gap), inset)


def _draw_block(block: Block, gap: int, frame: Frame) -> Rows:
    if block.code is not None:
        return CodeRows(block.code, frame, gap)
    drawer = Drawer(block.source, frame.look)
    ground = frame.look.base
    if block.mark:
        lines = drawer.item(block.tokens, block.mark, frame.width, ground)
    else:
        lines = drawer.draw(block.tokens, frame.width, ground)
    return [*blanks(frame, gap), *map(frame.row, lines)]


def source_piece(line: Sequence[tuple[str, Category | None]]) -> Piece:
    """A line of an answer as the model wrote it, coloured by where its characters came from."""

    def draw(frame: Frame) -> Rows:
        look = frame.look
        runs = [
            (text, look.base + look[category] if category else look.base) for text, category in line
        ]
        return [frame.row(row) for row in wrap(runs, frame.width)]

    return Piece(draw, (sum(len(text) for text, _ in line), 1))


def thought_piece(thought: Thought, is_shown: bool, key: str) -> Piece:
    """The thought before an answer."""

    def draw(frame: Frame) -> Rows:
        return [frame.row(line) for line in draw_thought(thought, is_shown, key, frame)]

    return Piece(draw, (len(thought.text) if is_shown else 0, 1))


def remark_piece(entry: Entry) -> Piece:
    """A note or an error."""
    name, sign = ("error", "✗ ") if entry.kind == "error" else ("muted", "")

    def draw(frame: Frame) -> Rows:
        runs = [(sign + displayed(entry.text), frame.look.base + frame.look[name])]
        return [frame.row(line) for line in wrap(runs, frame.width)]

    return Piece(draw, (len(entry.text), 1))


def foot_piece(entry: Entry, gap: int) -> Piece | None:
    """The quiet line below a message; None if there is nothing to say."""
    state = "cut short, /continue goes on" if entry.state == "cut" else ""
    label = " · ".join(part for part in (displayed(entry.label), state) if part)
    if not label and entry.version is None:
        return None

    def draw(frame: Frame) -> Rows:
        style = frame.look.base + frame.look["muted"]
        line: Line = []
        if entry.version is not None:
            which, count = entry.version
            line = [
                ("‹", style + clickable("step", entry.key, -1)),
                (f" {which}/{count} ", style),
                ("›", style + clickable("step", entry.key, 1)),
            ]
        runs = [*line, (" · " if line and label else "", style), (label, style)]
        rows = [frame.row(row) for row in wrap([run for run in runs if run[0]], frame.width)]
        return [*blanks(frame, gap), *rows]

    return Piece(draw, (len(label), 1 + gap))


def question_pieces(entry: Entry, is_shown: bool) -> list[Piece]:
    """A question as it was typed; of a long one the first rows, unless all `is_shown`."""
    lines = displayed(entry.text).split("\n")
    if len(entry.text) <= 200 and len(lines) <= NUM_FOLDED_ROWS:
        return [Piece(partial(_draw_question, entry, lines))]
    if not is_shown:
        return [Piece(partial(_draw_folded, entry, lines), (0, NUM_FOLDED_ROWS))]
    short = [
        line[start : start + MAX_CHUNK_LINE]
        for line in lines
        for start in range(0, max(1, len(line)), MAX_CHUNK_LINE)
    ]
    chunks = [
        short[start : start + NUM_CHUNK_LINES] for start in range(0, len(short), NUM_CHUNK_LINES)
    ]
    pieces = [
        Piece(partial(_draw_question, entry, chunk), (sum(map(len, chunk)), len(chunk)))
        for chunk in chunks
    ]
    return [*pieces, Piece(partial(_draw_less, entry))]


def _draw_question(entry: Entry, lines: Sequence[str], frame: Frame) -> Rows:
    ground, bar = _question_styles(entry, frame)
    runs = [("\n".join(lines), frame.look.base + ground)]
    return [frame.barred(line, bar, ground) for line in wrap(runs, frame.width)]


def _draw_folded(entry: Entry, lines: Sequence[str], frame: Frame) -> Rows:
    """The first rows, and how many lines are left, if any are."""
    ground, bar = _question_styles(entry, frame)
    style = frame.look.base + ground
    rows: list[Line] = []
    num_shown = 0
    for line in lines:
        drawn = wrap([(line[: frame.width * (NUM_FOLDED_ROWS + 1)], style)], frame.width)
        if len(rows) + len(drawn) > NUM_FOLDED_ROWS:
            rows += drawn[: NUM_FOLDED_ROWS - len(rows)]
            break
        rows += drawn
        num_shown += 1
    num_left = len(lines) - num_shown
    if num_left:
        said = f"… {num_left:,} more line{'' if num_left == 1 else 's'}"
        rows.append([(said, style + frame.look["muted"] + clickable("fold", entry.key))])
    return [frame.barred(row, bar, ground) for row in rows]


def _draw_less(entry: Entry, frame: Frame) -> Rows:
    ground, bar = _question_styles(entry, frame)
    style = frame.look.base + ground + frame.look["muted"] + clickable("fold", entry.key)
    return [frame.barred([("show less", style)], bar, ground)]


def _question_styles(entry: Entry, frame: Frame) -> tuple[Style, Style]:
    """The styles of the ground and of the bar."""
    look = frame.look
    if entry.state == "waiting":
        return look["question"] + look["muted"], look["waiting"]
    return look["question"], look["accent"]
