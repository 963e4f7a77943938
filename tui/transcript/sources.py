"""Where the characters of an answer came from, in the six kinds that are told apart by colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from edgespec.types import Span

Category = Literal["target", "context", "model", "statistics", "drafter", "grammar"]

CATEGORIES: tuple[Category, ...] = (
    "target", "context", "model", "statistics", "drafter", "grammar",
)  # fmt: skip


def source_category(name: str) -> Category:
    """The kind of a source as spans name it: a drafter's name, a tier of the database, the target.

    Whatever is no look-up is a drafter model: those bear the names of their files.

    >>> source_category("database"), source_category("smollm2-135m")
    ('model', 'drafter')
    """
    if name in ("target", "context", "statistics", "grammar", "model"):
        return name  # type: ignore[return-value]
    if name.startswith("database"):
        return "statistics" if name.endswith("statistics") else "model"
    return "drafter"


def coloured(text: str, spans: tuple[Span, ...]) -> Iterator[tuple[str, Category | None]]:
    """`text` in pieces of one category each; None where the spans end before it."""
    start = 0
    for span in spans:
        piece = text[start : start + span.length]
        if piece:
            yield piece, source_category(span.source)
        start += span.length
    if text[start:]:
        yield text[start:], None
