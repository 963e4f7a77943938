"""An answer in pieces of one source each."""

from __future__ import annotations

from collections.abc import Iterator

from edgespec.tui.sources import Category, source_category
from edgespec.types import Span


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
