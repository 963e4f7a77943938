"""Whether the last line of an answer has the right number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Number:
    """The number that an answer ends with."""

    value: Decimal

    @classmethod
    def of(cls, value: Any) -> Number:  # noqa: ANN401 - whatever is in the file
        """From a number of JSON; raises TypeError."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("number must be a number")
        number = Decimal(str(value))
        if not number.is_finite():
            raise TypeError("number must be finite")
        return cls(number)

    def scores(self, _turns: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
        """`right`: 1 where the last number of the last line is this one, commas left out.

        >>> Number(Decimal("2704")).scores(["?"], ["2500 at 4 %\\n**Answer: 2,704.00 euros**"])
        {'right': 1.0}
        """
        lines = texts[-1].strip().splitlines() or [""]
        found = _NUMBER.findall(lines[-1])
        is_right = bool(found) and Decimal(found[-1].replace(",", "")) == self.value
        return {"right": float(is_right)}
