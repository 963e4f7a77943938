"""A text that grows becomes blocks, of which only the last ones can still change.

A block is final once a later one has begun on a line that is whole: then the text is cut there,
and what is before is never parsed again. What is behind the cut reads the same alone as in its
place. Items of a list are cut like blocks, and code grows by lines without being parsed, so that
the cost of a word does not depend on what was said before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgespec.tui.plain import plain
from edgespec.tui.transcript.code import Code
from edgespec.tui.transcript.drawing import first_number, marker
from edgespec.tui.transcript.markdown import chat_parser, groups

if TYPE_CHECKING:
    from markdown_it.token import Token

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A paragraph, heading, table, quote or item (`mark`) with its tokens, or a block of code.

    `source` are the lines that the maps of the tokens count; `joined` is true for an item that
    follows another of its list.
    """

    tokens: Sequence[Token] = ()
    source: Sequence[str] = ()
    code: Code | None = None
    mark: str = ""
    joined: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(characters, lines) of its text, about."""
        if self.code is not None:
            return 0, len(self.code.lines) + 2
        lines = self.tokens[0].map or (0, 1)
        texts = self.source[lines[0] : lines[1]]
        return sum(map(len, texts)), len(texts)


@dataclass(frozen=True, slots=True)
class _Start:
    """A block and the line it begins on, which may be followed by `num_lines` that decide so."""

    line: int
    block: Block
    num_lines: int
    number: int | None = None


class Blocks:
    """The blocks of a text that comes in pieces of any size."""

    def __init__(self, text: str = "") -> None:
        self._final: list[Block] = []
        self._open: list[Block] = []
        self._tail = ""
        self._held = ""
        self._number: int | None = None
        self._joined = False
        self._continued = False
        self._fence: _Fence | None = None
        self.grow(text)

    @property
    def num_final(self) -> int:
        """How many blocks, from the first, will stay as they are."""
        return len(self._final)

    def all(self) -> list[Block]:
        """All blocks of the text so far."""
        return self._final + self._open

    def grow(self, text: str) -> None:
        """Add `text` at the end."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(self._held)]
        self._tail += plain(text.replace("\r\n", "\n").replace("\r", "\n"))
        if self._fence is not None and not self._grow_code(self._fence):
            return
        self._parse()

    def end(self) -> None:
        """Say that no more comes."""
        if self._fence is not None:
            self._fence.settle(self._tail)

    def _grow_code(self, fence: _Fence) -> bool:
        """Move whole lines into the code; true if its end was among them."""
        *lines, self._tail = self._tail.split("\n")
        for index, line in enumerate(lines):
            if fence.is_end(line):
                fence.code.partial = None
                fence.code.end()
                self._final.append(self._open.pop())
                self._tail = "\n".join([*lines[index + 1 :], self._tail])
                self._fence = None
                return True
            fence.code.add(fence.inner(line))
        fence.show(self._tail)
        return False

    def _parse(self) -> None:
        starts = self._starts()
        num_whole = self._tail.count("\n")
        # the last block that begins, beyond doubt, on a line that is whole
        last = max(
            (i for i, start in enumerate(starts) if start.line + start.num_lines <= num_whole),
            default=-1,
        )
        if last >= 0:
            last = self._cut(starts, last)
        self._open = [start.block for start in starts[max(0, last) :]]
        if self._fence is not None and self._grow_code(self._fence):
            self._parse()

    def _cut(self, starts: Sequence[_Start], last: int) -> int:
        """Make the blocks before `starts[last]` final, and itself if it is code that has ended.

        Returns the number of the first that is not.
        """
        start = starts[last]
        code = start.block.code
        self._continued = bool(start.block.mark)
        self._number, self._joined = start.number, start.block.joined
        if code is not None and code.is_ended:
            self._tail = _after_lines(self._tail, start.line + start.num_lines)
            last += 1
        else:
            self._tail = _after_lines(self._tail, start.line)
            if code is not None:
                opening, self._tail = self._tail.split("\n", 1)
                self._fence = _Fence(code, opening)
        self._final += [each.block for each in starts[:last]]
        return last

    def _starts(self) -> list[_Start]:
        source = self._tail.split("\n")
        starts: list[_Start] = []
        for index, group in enumerate(groups(chat_parser().parse(self._tail))):
            token = group[0]
            line, end = token.map or (0, 0)
            if token.type in ("bullet_list_open", "ordered_list_open"):
                starts += self._items(group, source, self._continued and index == 0)
            elif token.type == "fence":
                code, num_lines = _code(token.info.strip(), source[line:end])
                starts.append(_Start(line, Block(code=code), num_lines))
            else:
                num_lines = 2 if token.type == "table_open" else 1
                starts.append(_Start(line, Block(group, source), num_lines))
        return starts

    def _items(
        self, group: Sequence[Token], source: Sequence[str], continued: bool
    ) -> list[_Start]:
        number = self._number if continued else first_number(group[0])
        starts: list[_Start] = []
        for index, item in enumerate(groups(group[1:-1], 1)):
            joined = index > 0 or (continued and self._joined)
            block = Block(item, source, mark=marker(number), joined=joined)
            line = item[0].map[0] if item[0].map else 0
            starts.append(_Start(line, block, 1, number))
            number = None if number is None else number + 1
        return starts


class _Fence:
    """How a block of code began, and so how it ends."""

    def __init__(self, code: Code, opening: str) -> None:
        match = _FENCE.match(opening)
        mark = match.group(1) if match else "```"
        self.code = code
        self._mark = mark[0]
        self._end = re.compile(rf" {{0,3}}{mark}{mark[0]}*[ \t]*")
        self._indent = len(opening) - len(opening.lstrip(" "))

    def is_end(self, line: str) -> bool:
        """True for the line that ends the code."""
        return self._end.fullmatch(line) is not None

    def inner(self, line: str) -> str:
        """A line of the code, without the indentation of its fence."""
        return line[min(self._indent, len(line) - len(line.lstrip(" "))) :]

    def show(self, tail: str) -> None:
        """Show a line that is not whole, unless it may become the end."""
        begins_end = not tail.strip(" ").strip(self._mark)
        self.code.partial = None if begins_end else self.inner(tail)

    def settle(self, tail: str) -> None:
        """Take the last line for what it is: nothing comes after it."""
        self.code.partial = self.inner(tail) if tail and not self.is_end(tail) else None
        self.code.end()


def _code(info: str, lines: Sequence[str]) -> tuple[Code, int]:
    """The code of a fence in `lines`, and how many of them say that it is one.

    Code without its end stays empty: its lines are read one by one.
    """
    code = Code(info)
    fence = _Fence(code, lines[0])
    if len(lines) < 2 or not fence.is_end(lines[-1]):
        return code, 1
    for line in lines[1:-1]:
        code.add(fence.inner(line))
    code.end()
    return code, len(lines)


def _after_lines(text: str, count: int) -> str:
    place = 0
    for _ in range(count):
        place = text.index("\n", place) + 1
    return text[place:]
