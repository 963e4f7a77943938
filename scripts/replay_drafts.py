"""The decode loop, planner and drafters over recorded answers and guesses, on a clock of its own.

Nothing is computed by a model: the target says what it said when it was recorded, a pass over r
rows takes T(r), the drafter guesses what it guessed then (`scripts/record_drafts.py`) and takes
what a guess is said to take. So two ways to plan differ by nothing but the planning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from record_drafts import MAX_TOKENS, Answer, Playback, Recorded

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.passes import Proposal
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.credit import Credit
from edgespec.protocols import Drafter, Target

PASS_MS = (30.0, 31.8, 34.3, 33.8, 36.0, 37.8, 39.5, 41.0, 45.0, 49.0, 52.5, 56.0, 61.2, 66.5)
"""T(r) of Qwen2.5-Coder-1.5B Q4_K_M with the kernel that fetches weights ahead, two cores."""

STEEP_MS = (30.0, 34.0, 42.0, 48.0, 56.0, 65.0, 70.0, 75.0, 85.0, 95.0, 105.0, 112.0)
"""The same before weights were fetched ahead."""

GUESS_MS = 3.5
READ_MS = 0.4
"""Each further token that is read at once."""


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_ms / 1e3


class TimedPlayback(Playback):
    """A recorded drafter that takes its time."""

    def __init__(
        self, guesses: dict[int, Recorded], clock: Clock, guess_ms: float, read_ms: float
    ) -> None:
        super().__init__(guesses)
        self.clock, self.guess_ms, self.read_ms = clock, guess_ms, read_ms

    def read(self, tokens: Sequence[int]) -> None:
        """Append, and let the time pass that it takes."""
        self.clock.now_ms += self.guess_ms + self.read_ms * (len(tokens) - 1)
        super().read(tokens)


class RecordedTarget:
    """Implements `Target` and `Sampler` for one answer after the other."""

    num_context = 1 << 20
    can_roll_back = True

    def __init__(self, pass_ms: Sequence[float], clock: Clock) -> None:
        self.max_rows = len(pass_ms)
        self.num_cached = 0
        self._pass_ms, self._clock = pass_ms, clock
        self._answer: Iterator[int] = iter(())
        self._none = np.zeros(1, dtype=np.float32)

    def answer(self, tokens: Sequence[int]) -> None:
        """What is said next."""
        self._answer = iter(tokens)

    def prefill(self, tokens: Sequence[int]) -> None:
        """Takes no time: it is the same with and without drafts."""
        self.num_cached += len(tokens)

    def score(self, tokens: Sequence[int]) -> None:
        """Let a pass go by."""
        self.num_cached += len(tokens)
        self._clock.now_ms += self._pass_ms[len(tokens) - 1]

    def logits(self, row: int) -> NDArray[np.float32]:
        """Nobody looks at them."""
        return self._none

    def truncate(self, num_tokens: int) -> None:
        """Cut."""
        self.num_cached = min(self.num_cached, num_tokens)

    def abort(self) -> None:
        """Never."""

    def resume(self) -> None:
        """Never."""

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to look back at."""

    def sample(self, target: Target, row: int) -> int:
        """What was recorded."""
        return next(self._answer)

    def close(self) -> None:
        """Nothing to free."""


class Hindsight:
    """A drafter that stops before its first wrong guess, is sure of the others, and pays for these.

    What a planner reaches that knows beforehand what will be kept.
    """

    def __init__(self, drafter: Drafter, clock: Clock) -> None:
        self.name = drafter.name
        self.outlook = 1.0
        self._drafter, self._clock = drafter, clock
        self._truth: tuple[int, ...] = ()
        self._at = 0

    @property
    def cost_ms(self) -> float:
        """That of the drafter within."""
        return self._drafter.cost_ms

    @property
    def start_ms(self) -> float:
        """That of the drafter within."""
        return self._drafter.start_ms

    @property
    def fertility(self) -> float:
        """That of the drafter within."""
        return self._drafter.fertility

    def know(self, truth: Sequence[int]) -> None:
        """What will be said in the next answer."""
        self._truth, self._at = tuple(truth), 0

    def begin(self, prompt: Sequence[int]) -> None:
        """Pass on."""
        self._drafter.begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """The right guesses."""
        started = self._clock.now_ms
        for place, guess in enumerate(self._drafter.propose(prefix), self._at + len(prefix)):
            if self._truth[place : place + 1] != (guess.token,):
                self._clock.now_ms = started
                return
            yield replace(guess, acceptance=1.0)
            started = self._clock.now_ms

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Pass on."""
        self._drafter.learn(proposals, kept)

    def extend(self, tokens: Sequence[int]) -> None:
        """Pass on."""
        self._at += len(tokens)
        self._drafter.extend(tokens)


@dataclass(frozen=True, slots=True)
class Run:
    """One answer replayed: milliseconds with drafts and without, and what was proposed and kept."""

    answer: Answer
    ms: float
    plain_ms: float
    num_passes: int
    num_proposed: int
    num_accepted: int
    num_guesses: int


class Replay:
    """An engine over recorded answers; drafters keep what they learn from one to the next."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        clock: Clock,
        playback: Playback | None = None,
        pass_ms: Sequence[float] = PASS_MS,
        credit: Credit | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """`clock` and `playback` are those that `drafters` were made with.

        `max_tokens` is where answers were cut when they were recorded: what ended before ended by
        itself.
        """
        self._max_tokens = max_tokens
        self._drafters, self._clock, self._playback = tuple(drafters), clock, playback
        self._target = RecordedTarget(pass_ms, clock)
        table = dict(enumerate(pass_ms, 1))
        costs = CostModel(CostTable(1, 2, table, table), len(pass_ms))
        self._engine = Engine(self._target, self._drafters, costs, clock, credit=credit)
        self._plain_ms = pass_ms[0]

    def run(self, number: int, answer: Answer) -> Run:
        """Replay one answer; `number` is its place in the recording."""
        if self._playback is not None:
            self._playback.answer = number
        for drafter in self._drafters:
            if isinstance(drafter, Hindsight):
                drafter.know(answer.tokens)
        self._target.answer(answer.tokens)
        tally = Tally(self._clock)
        started = self._clock.now_ms
        num_guesses = self._playback.num_guesses if self._playback else 0
        self._engine.forget()
        places = itertools.count(1)
        last = len(answer.tokens) if len(answer.tokens) < self._max_tokens else 0
        emitted = self._engine.generate(
            answer.prompt,
            self._target,
            Limits(max(self._max_tokens, len(answer.tokens))),
            lambda _token, _row: next(places) == last,
            tally,
        )
        said = [token for tokens in emitted for token in tokens]
        assert said == list(answer.tokens)
        stats = tally.stats()
        return Run(
            answer,
            self._clock.now_ms - started,
            (len(answer.tokens) - 1) * self._plain_ms,
            stats.target_passes,
            stats.proposed,
            stats.accepted,
            (self._playback.num_guesses if self._playback else 0) - num_guesses,
        )


def speeds(runs: Sequence[Run]) -> dict[str, float]:
    """Speed against plain decoding by category, and "overall" as the mean over answers."""
    by_category: dict[str, list[float]] = {}
    for run in runs:
        if run.plain_ms > 0:
            by_category.setdefault(run.answer.category, []).append(run.plain_ms / run.ms)
    everything = [speed for values in by_category.values() for speed in values]
    named = {name: float(np.mean(values)) for name, values in by_category.items()}
    return {**named, "overall": float(np.mean(everything))}
