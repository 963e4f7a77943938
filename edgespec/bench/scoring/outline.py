"""Long text from an outline, as Pap2Pat asks for it: is it what was ordered?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from edgespec.bench.scoring.order import share_in_order

_GRAM = 4


@dataclass(frozen=True, slots=True)
class Outline:
    """The headings of each turn, lines that begin with #, and how many words each turn is to have.

    >>> check = Outline((("# A", "## B"),), 3)
    >>> check.scores(["?"], ["# A\\none two\\n## C\\nthree"])
    {'headings': 0.5, 'words': 1.0, 'unrepeated': 1.0}
    """

    headings: tuple[tuple[str, ...], ...]
    num_words: int

    @classmethod
    def of(cls, headings: Any, words: Any) -> Outline:  # noqa: ANN401 - whatever is in the file
        """From a list of headings for each turn and a number; raises TypeError."""
        if isinstance(words, bool) or not isinstance(words, int) or words < 1:
            raise TypeError("words must be a number of at least 1")
        if not isinstance(headings, list) or not headings or not all(map(_is_part, headings)):
            raise TypeError("headings must be lists of lines that begin with #")
        return cls(tuple(map(tuple, headings)), words)

    def scores(self, _turns: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
        """How exactly `headings` were kept, how near `words` came, and how much is `unrepeated`.

        Headings have to be the same lines in the same order, and no others. Words are the smaller
        number of those asked for and given, divided by the larger one. Of all runs of four words
        those are unrepeated that were not there before, in the same turn or an earlier one.
        """
        parts = list(zip(self.headings, texts, strict=False))
        return {
            "headings": fmean(_kept(headings, text) for headings, text in parts),
            "words": fmean(self._nearness(len(_body(text).split())) for _, text in parts),
            "unrepeated": _unrepeated([_body(text) for text in texts]),
        }

    def _nearness(self, num_words: int) -> float:
        return min(num_words, self.num_words) / max(num_words, self.num_words)


def _is_part(lines: Any) -> bool:  # noqa: ANN401 - whatever is in the file
    return (
        isinstance(lines, list)
        and bool(lines)
        and all(isinstance(line, str) and line.startswith("#") for line in lines)
    )


def _kept(headings: Sequence[str], text: str) -> float:
    found = [line.rstrip() for line in text.split("\n") if line.startswith("#")]
    return share_in_order(headings, found, lambda one, other: float(one == other))


def _body(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.startswith("#"))


def _unrepeated(texts: Sequence[str]) -> float:
    grams = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        grams += [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
