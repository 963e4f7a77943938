"""Where a piece of an answer came from, for people: six categories, each with a name and a colour.

The colours are variables of the theme, so that they suit whichever is chosen.
"""

from __future__ import annotations

from typing import Literal

from edgespec.types import TARGET

Category = Literal["target", "context", "model", "statistics", "drafter", "grammar"]

CATEGORIES: tuple[Category, ...] = (
    "target",
    "context",
    "model",
    "statistics",
    "drafter",
    "grammar",
)

CATEGORY_LABELS: dict[Category, str] = {
    "target": "the model",
    "context": "this chat",
    "model": "past answers",
    "statistics": "imported",
    "drafter": "drafter",
    "grammar": "grammar",
}
"""What a legend calls them."""

CATEGORY_COLOURS: dict[Category, str] = {
    "target": "$foreground",
    "context": "$text-success",
    "model": "$text-accent",
    "statistics": "$text-secondary",
    "drafter": "$text-primary",
    "grammar": "$text-error",
}
"""As the transcript tints them (`chat.tcss`)."""

_LOOK_UPS: dict[str, Category] = {
    TARGET: "target",
    "context": "context",
    "database": "model",
    "database/statistics": "statistics",
    "grammar": "grammar",
}


def source_category(name: str) -> Category:
    """The category of a source by its name in `Span` and `SpeculationStats`; models are drafters.

    >>> source_category("database"), source_category("database/statistics")
    ('model', 'statistics')
    >>> source_category("smollm2-135m")
    'drafter'
    """
    return _LOOK_UPS.get(name, "drafter")
