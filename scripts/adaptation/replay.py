"""Plays recorded turns through the product's own learner, gate and planner's rule, in any order.

Every turn is guessed before it is learned from. A first guess is one at a place where a token of
the target begins; it is right if it is the drafter's token of what the target then said.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adaptation.answers import load_answer
from adaptation.readings import reading_path
from numpy.typing import NDArray

from edgespec.drafters.model import evidence_kind, new_calibration
from edgespec.estimates.counts import Calibration
from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import Examples
from edgespec.learning.online.gate import ALONE
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.lesson import DirectMap, Distribution, Place, lesson
from edgespec.learning.online.version import Version

HALVES = (
    (("math", "general"), ("coding", "translation")),
    (("coding", "translation"), ("math", "general")),
    (("general", "coding"), ("math", "translation")),
)
"""Kinds of prompts of the first and of the second half, for each order."""

MOST_DRAFTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One recorded turn: `places` with head rows, and the drafter's own logits and hidden states.

    `begins[i]` tells whether a token of the target begins at place i.
    """

    kind: str
    places: tuple[Place, ...]
    begins: NDArray[np.bool_]
    logits: NDArray[np.float16]
    hidden: Floats


@dataclass(frozen=True, slots=True)
class Speed:
    """What drafting gave in one turn: tokens, passes, and milliseconds with and without it."""

    num_tokens: int = 0
    num_passes: int = 0
    drafted_ms: float = 0.0
    plain_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnResult:
    """First guesses of one turn, those right alone and as served, and what drafting gave."""

    kind: str
    num_first: int
    alone: int
    served: int
    alone_speed: Speed
    served_speed: Speed
    verdict: str
    way: int


class Recorded:
    """The turns of one drafter, read from their files when asked for."""

    def __init__(self, folder: Path, name: str, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        self._folder = folder
        self._name = name
        with np.load(folder / f"head-{name}.npz") as file:
            self._row_of = {int(token): row for row, token in enumerate(file["kept"])}
            self.num_rows = len(file["kept"])
            self.direct = DirectMap.of(file["direct"], num_target_tokens=1 << 18)
        self.num_embedding = self.turn(0).hidden.shape[1]

    def turn(self, index: int) -> Turn:
        """Read one turn."""
        answer = load_answer(self._folder, index)
        with np.load(reading_path(self._folder, self._name, index)) as file:
            tokens, starts = file["tokens"], file["starts"]
            logits, hidden = file["logits"], file["hidden"]
        places = []
        for token, start in zip(tokens.tolist(), starts.tolist(), strict=True):
            row = self._row_of.get(token, -1)
            if start < 0:
                places.append(Place(row))
            else:
                told = Distribution(answer.ids[start], answer.logprobs[start])
                places.append(Place(row, answer.tokens[start], told))
        return Turn(self.kinds[index], tuple(places), starts >= 0, logits, hidden)

    def order(self, number: int) -> list[int]:
        """Turns of one order: two kinds shuffled, then the two others."""
        shuffle = random.Random(number).shuffle
        found: list[int] = []
        for half in HALVES[number]:
            part = [index for index, kind in enumerate(self.kinds) if kind in half]
            shuffle(part)
            found += part
        return found


class Planner:
    """The planner's rule over teacher-forced guesses with calibrated estimates."""

    def __init__(self, pass_ms: Mapping[int, float], token_ms: float) -> None:
        known = sorted(pass_ms)
        rows = range(1, MOST_DRAFTED + 2)
        costs = np.interp(rows, known, [pass_ms[row] for row in known])
        self._costs = costs + token_ms * np.arange(len(costs))
        self._plain_ms = float(costs[0])
        self._calibration: Calibration = new_calibration().counts

    def play(self, hits: NDArray[np.bool_], sureness: Floats) -> Speed:
        """Draft and verify through one text; the calibration learns on."""
        start = num_passes = 0
        elapsed = 0.0
        while start < len(hits):
            window = sureness[start : start + len(self._costs) - 1]
            kinds = [evidence_kind(float(sure), place) for place, sure in enumerate(window)]
            estimates = [self._calibration.estimate(kind) for kind in kinds]
            emitted = np.concatenate([[1.0], 1.0 + np.cumsum(np.cumprod(estimates))])
            length = int(np.argmax(emitted / self._costs[: len(emitted)]))
            accepted = 0
            for place in range(max(length, 1)):  # the first is guessed at every chance
                if place >= len(kinds):
                    break
                right = bool(hits[start + place])
                self._calibration.observe(kinds[place], right)
                if not right or place >= length:
                    break
                accepted += 1
            elapsed += float(self._costs[length])
            num_passes += 1
            start += accepted + 1
        return Speed(start, num_passes, elapsed, start * self._plain_ms)


def replay(
    recorded: Recorded, order: Sequence[int], learner: Learner, planners: tuple[Planner, Planner]
) -> Iterator[TurnResult]:
    """Turn after turn: guess alone and as served, judge, learn."""
    for index in order:
        turn = recorded.turn(index)
        logits = turn.logits.astype(np.float32)
        rows = np.array([place.row for place in turn.places])
        way = learner.gate.way
        guessed = _all_guesses(learner.gate.versions(), logits, turn.hidden)
        hits = np.stack([guesses == rows for guesses, _ in guessed])
        judged = hits[:, turn.begins]
        verdict = learner.judge(judged)
        yield TurnResult(
            turn.kind,
            judged.shape[1],
            int(judged[ALONE].sum()),
            int(judged[way].sum()),
            planners[0].play(hits[ALONE], guessed[ALONE][1]),
            planners[1].play(hits[way], guessed[way][1]),
            verdict,
            way,
        )
        learner.learn(_examples(turn, logits, recorded.direct), lambda: False)


def _all_guesses(
    versions: Sequence[Version], logits: Floats, hidden: Floats
) -> list[tuple[NDArray[np.int64], Floats]]:
    """What each version guesses; one that occurs twice is asked once."""
    found: dict[int, tuple[NDArray[np.int64], Floats]] = {}
    for version in versions:
        if id(version) not in found:
            found[id(version)] = _guesses(version, logits, hidden)
    return [found[id(version)] for version in versions]


def _guesses(version: Version, logits: Floats, hidden: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The likeliest row at each place, and its probability."""
    best, sureness = [], []
    for row, state in zip(logits, hidden, strict=True):
        corrected = version.apply(row, state)
        likeliest = int(corrected.argmax())
        best.append(likeliest)
        sureness.append(1.0 / float(np.exp(corrected - corrected[likeliest]).sum()))
    return np.array(best), np.array(sureness, dtype=np.float32)


def _examples(turn: Turn, logits: Floats, direct: DirectMap) -> Examples:
    found = lesson(turn.places, list(logits), list(turn.hidden), direct)
    assert found is not None
    return found
