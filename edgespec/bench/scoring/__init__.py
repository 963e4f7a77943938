"""How good answers are, where a suite can tell: a file for each way to find out.

Every score goes from 0 to 1. Answers are only read, never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgespec.bench.scoring.number import Number
from edgespec.bench.scoring.outline import Outline
from edgespec.bench.scoring.schema import share_valid
from edgespec.bench.scoring.tools import Chain

if TYPE_CHECKING:
    from edgespec.bench.suite import Question


class Check(Protocol):
    """What the answers to a question are compared with."""

    def scores(self, turns: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
        """Scores by name; `texts` are the answers to `turns`, one for each."""
        ...


def check_of(value: Any) -> Check:  # noqa: ANN401 - whatever is in the file
    """The check of a question's line; raises TypeError for one that is none."""
    if isinstance(value, dict):
        if value.keys() == {"calls"}:
            return Chain.of(value["calls"])
        if value.keys() == {"number"}:
            return Number.of(value["number"])
        if value.keys() == {"headings", "words"}:
            return Outline.of(value["headings"], value["words"])
    raise TypeError("check must be an object with calls, with number, or with headings and words")


def scores_of(question: Question, texts: Sequence[str]) -> dict[str, float]:
    """Scores of the answers to a question, one text a turn; empty where nothing is known of it.

    Turns that were not answered count as answered with nothing.
    """
    answers = [*texts, *[""] * (len(question.turns) - len(texts))]
    scores = question.check.scores(question.turns, answers) if question.check else {}
    if question.schema:
        scores["valid"] = share_valid(question.schema, answers)
    return scores
