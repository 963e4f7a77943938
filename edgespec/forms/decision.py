"""How a drafter is to run on this machine: what was asked for, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgespec.forms.trimming import Count, FormChoice, Tried, count_shipped
from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.forms.words import shipped_words_id

_MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for: rows of the head and type of the body, None for the best.

    `count` counts the tokens of a vocabulary, `pass_ms` is T(r) of the target, by number of rows.
    """

    keep: int | None = None
    type_name: str | None = None
    count: Count = count_shipped
    pass_ms: Mapping[int, float] = field(default_factory=lambda: USUAL_PASS_MS)


@dataclass(frozen=True, slots=True)
class Decision:
    """How a drafter is to run here: trimmed and re-typed as `choice` says.

    `counts` names the counts it rests on, None if they are a user's own. `is_whole`: nothing was
    found to be better than the whole file; `problem` tells why if it cannot be trimmed at all. A
    machine that is too busy to decide is asked again, in all `num_attempts` times.
    """

    choice: FormChoice
    counts: str | None
    is_whole: bool = False
    problem: str = ""
    num_attempts: int = 1

    @property
    def is_current(self) -> bool:
        """Whether it rests on the counts of today, or a user's own."""
        return self.counts in (None, shipped_words_id())

    @property
    def is_final(self) -> bool:
        """Whether it holds for good."""
        return self.is_current and (self.choice.is_sure or self.num_attempts >= _MOST_ATTEMPTS)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Decision | None:
        """Read back `to_json`, or None if it is not of that form."""
        try:
            choice = value["choice"]
            tried = tuple(Tried(**row) for row in choice["tried"])
            return Decision(
                FormChoice(
                    int(choice["num_kept"]),
                    str(choice["type_name"]),
                    tried,
                    bool(choice["is_sure"]),
                ),
                None if value["counts"] is None else str(value["counts"]),
                bool(value["is_whole"]),
                str(value["problem"]),
                int(value["num_attempts"]),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for remembering."""
        return asdict(self)
