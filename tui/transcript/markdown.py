"""The dialect of Markdown that answers are read in.

GitHub's, but nothing of a text is left out: HTML is shown as the text it is, `[x]: y` defines
nothing, and formulas between `\\(` and `\\)` or `\\[` and `\\]` are text, whatever is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

FORMULA_ENDS = {"\\(": "\\)", "\\[": "\\]"}


def _formula(state: StateInline, silent: bool) -> bool:
    """Take a formula as it is written; without its end, the two signs that begin it."""
    from markdown_it.rules_inline.escape import escape

    mark = state.src[state.pos : state.pos + 2]
    if mark not in ("\\(", "\\[", "\\)", "\\]"):
        return escape(state, silent)
    end = state.src.find(FORMULA_ENDS[mark], state.pos + 2) if mark in FORMULA_ENDS else -1
    stop = end + 2 if end >= 0 else state.pos + 2
    if not silent:
        state.push("formula", "", 0).content = state.src[state.pos : stop]
    state.pos = stop
    return True


@lru_cache(maxsize=1)
def chat_parser() -> MarkdownIt:
    """The parser of answers; it keeps nothing from one text to the next."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("gfm-like", {"html": False})
    parser.disable("reference")
    parser.inline.ruler.at("escape", _formula)
    return parser


def surplus_cells(row_source: str, num_columns: int) -> str:
    """Cells of a table's row beyond its columns, which GitHub leaves out; "" if there are none.

    >>> surplus_cells("| a | b | c |", 2)
    'c'
    """
    from markdown_it.rules_block.table import escapedSplit

    inner = re.sub(r"^\||(?<!\\)\|$", "", row_source.strip())
    return " | ".join(cell.strip() for cell in escapedSplit(inner)[num_columns:]).strip()


def parse_inline(text: str) -> Token:
    """The inline token of `text`."""
    return chat_parser().parseInline(text)[0]


def groups(tokens: Sequence[Token], level: int = 0) -> list[Sequence[Token]]:
    """The tokens of each block at `level`, with the ones that open and close it."""
    found: list[Sequence[Token]] = []
    start = 0
    for index, token in enumerate(tokens):
        if token.level == level and token.nesting <= 0:
            found.append(tokens[start : index + 1])
            start = index + 1
    return found
