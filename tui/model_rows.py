"""Rows of the list of models: what is shown of each, found by typing, laid out for a width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from textual.content import Content
from textual.fuzzy import FuzzySearch

from edgespec.catalog import CatalogModel
from edgespec.reports import human_bytes
from edgespec.tui.plain import plain
from edgespec.tui.status import UNKNOWN

Kind = Literal["model", "drafter"]

NO_MODEL_DRAFTERS = (
    ("auto", "the best one on disk, by what it costs and how often it is right here"),
    ("context", "look-ups in the conversation and in what is remembered"),
    ("none", "plain decoding"),
)
"""What may draft in the place of a model, and what that is."""

_MARK = "● "


@dataclass(frozen=True, slots=True)
class Row:
    """One line to choose: `cells` are shown beside the name; the first is a size or nothing.

    `matched` are places in the name of letters that were typed, `score` says how well they match.
    """

    name: str
    group: str
    cells: tuple[str, ...]
    model: CatalogModel | None
    is_current: bool
    matched: tuple[int, ...] = ()
    score: float = 0.0


def rows_of(models: Sequence[CatalogModel], kind: Kind, current: str, query: str = "") -> list[Row]:
    """The rows that `query` finds, grouped: ways without a model, what is on disk, what is not.

    Within a group those come first that are made for this `kind` of use, in a search the best.
    """
    role = "target" if kind == "model" else "drafter"
    rows = [_way(*way, current) for way in NO_MODEL_DRAFTERS] if kind == "drafter" else []
    by_role = sorted(models, key=lambda model: role not in model.roles)
    rows += [_row(model, role, current) for model in by_role]
    if query:
        rows = _found(rows, query)
    groups = list(dict.fromkeys(row.group for row in rows))
    order = ["", "on disk", "can be pulled"]
    groups.sort(key=order.index)
    return [row for group in groups for row in rows if row.group == group]


def _way(name: str, about: str, current: str) -> Row:
    return Row(name, "", ("", about), None, name == current)


def _row(model: CatalogModel, role: str, current: str) -> Row:
    is_current = current in (model.name, model.path.stem if model.path else None)
    made_for = {"target": "made to draft", "drafter": "made to answer"}[role]
    facts = [model.fits, model.speed or (f"{UNKNOWN} tok/s" if model.is_on_disk else "")]
    facts.append(model.licence or "licence unknown")
    facts.append("" if role in model.roles else made_for)
    group = "on disk" if model.is_on_disk else "can be pulled"
    return Row(model.name, group, (human_bytes(model.size_bytes), *facts), model, is_current)


def _found(rows: Sequence[Row], query: str) -> list[Row]:
    search = FuzzySearch()
    found = []
    for row in rows:
        title = row.model.title if row.model else ""
        score, offsets = search.match(query, f"{row.name} {title}")
        if score:
            matched = tuple(at for at in offsets if at < len(row.name))
            found.append(replace(row, matched=matched, score=score))
    return sorted(found, key=lambda row: -row.score)


def laid_out(row: Row, width: int) -> Content:
    """A row as two lines of at most `width` cells: name and size, then what else is known."""
    size, *facts = row.cells
    name = _name(row, max(width - len(_MARK) - len(size) - 1, 8))
    about = " " * len(_MARK) + _cut(" · ".join(fact for fact in facts if fact), width - len(_MARK))
    return Content.assemble(name, f" {size}" if size else "", "\n", (about, "$text-muted"))


def _name(row: Row, width: int) -> Content:
    """The name as wide as its column, its matched letters marked; if long, its end."""
    text = plain(row.name)
    dropped = max(len(text) - width, 0)
    shown = f"…{text[dropped + 1 :]}" if dropped else text
    content = Content(f"{shown:<{width}}").stylize("bold" if row.is_current else "")
    for at in row.matched:
        if at > dropped or (not dropped and at >= 0):
            content = content.stylize("bold $text-primary", at - dropped, at - dropped + 1)
    mark = (_MARK, "$text-primary") if row.is_current else " " * len(_MARK)
    return Content.assemble(mark, content)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
