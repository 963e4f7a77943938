"""One file per drafting strategy; the file's name is the strategy's name, and nothing lists them.

A strategy's module has a function

    build(parts: Parts) -> Drafter | None

that gives None where there is nothing to draft from. Look-ups that serve whatever else drafts set
`IS_ALWAYS_ASKED = True`; any other strategy serves beside them when it is named (`--drafter NAME`).
What a drafter learns of its guesses is in its `calibration`, if it has one, and kept between runs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names are told by a process that loads nothing else
    from edgespec.drafters.database import TokenIndex
    from edgespec.drafters.model import ModelParts
    from edgespec.protocols import Drafter


@dataclass(frozen=True, slots=True)
class Parts:
    """What a strategy may be built of: tiers of the token database by owner, a small model."""

    tiers_of: Callable[[str], Sequence[TokenIndex]] | None = None
    model: ModelParts | None = None


def strategies() -> list[str]:
    """The names of all strategies, sorted."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def is_always_asked(name: str) -> bool:
    """Whether a strategy serves without being named."""
    module = importlib.import_module(f"{__name__}.{name}")
    return bool(getattr(module, "IS_ALWAYS_ASKED", False))


def build(name: str, parts: Parts) -> Drafter | None:
    """A drafter of a strategy; None where there is nothing that it could draft from."""
    drafter: Drafter | None = importlib.import_module(f"{__name__}.{name}").build(parts)
    return drafter
