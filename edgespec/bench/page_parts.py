"""What a part of the page is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgespec.bench.plots import NARROW, WIDE

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures with their names above; a first cell that begins with a space belongs to the last."""

    name: str
    head: Row
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Section:
    """What a part of the page says and shows; plots for two widths, or tokens in colours."""

    title: str
    says: str
    table: Table
    wide: str = ""
    narrow: str = ""
    is_open: bool = False
    tokens: Sequence[Sequence[str]] = ()
    legend: Sequence[tuple[str, str]] = ()
    text: str = ""


def drawn(draw: Callable[[int], str]) -> tuple[str, str]:
    """A plot for both widths of a page."""
    return draw(WIDE), draw(NARROW)
