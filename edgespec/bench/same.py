"""Whether two ways said the same, and where they first did not."""

from __future__ import annotations

from collections.abc import Iterator

from edgespec.bench.records import Report
from edgespec.errors import ExactnessError
from edgespec.types import PLAIN

_AROUND = 32
"""Characters that are shown before and after a difference."""


def first_difference(text: str, other: str) -> int | None:
    """The first character at which two texts are not the same; None where there is none.

    >>> first_difference("a mill", "a mile"), first_difference("a", "ab"), first_difference("", "")
    (5, 1, None)
    """
    if text == other:
        return None
    places = (
        place for place, pair in enumerate(zip(text, other, strict=False)) if len({*pair}) > 1
    )
    return next(places, min(len(text), len(other)))


def differences(report: Report) -> Iterator[str]:
    """A line for each run that did not say what plain decoding said: both texts around it."""
    plain = report.of(PLAIN)
    for run in report.runs:
        if run.differs_at is not None:
            start, end = max(run.differs_at - _AROUND, 0), run.differs_at + _AROUND
            said, other = (text[start:end] for text in (plain[run.question].text, run.text))
            yield f"{run.question}, {run.way}, character {run.differs_at}: {said!r}, not {other!r}"


def check_same_bytes(report: Report) -> None:
    """Raise ExactnessError where answers differ though the same bytes are promised."""
    num_different = sum(run.differs_at is not None for run in report.runs)
    if num_different and report.target.exactness == "identical":
        raise ExactnessError(
            f"{num_different} answers are not those of plain decoding",
            "run `edgespec doctor`, and report this",
        )
