"""What each part of the planner buys, by replay, alone and on top of the others.

    python research/ablate.py TARGET.gguf DRAFTER.gguf ANSWERS.npz GUESSES.npz GUESS_MS READ_MS \
        WORLDS SETUPS [SEEDS]

The product's own loop, planner and drafters (look-ups of the conversation, and a recorded model,
whose guesses take GUESS_MS and READ_MS for each further token read) over recorded answers
(research/record_drafts.py), in three kinds of orders, SEEDS (3) of each, learning from one answer
to the next. WORLDS and SETUPS are names or patterns, with commas between; "*" is all. Prints a line
of JSON for each world and setup: speed against plain decoding as mean over answers, that of the
worst category, and of the slowest tenth.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
from record_drafts import Answer, Recorded, load_answers, load_guesses
from replay_drafts import (
    PASS_MS,
    Clock,
    Hindsight,
    Pair,
    RecordedTarget,
    Replay,
    Run,
    TimedPlayback,
    known_costs,
    speeds,
)

from edgespec.drafters.context import ContextDrafter
from edgespec.estimates.acceptance import Acceptance
from edgespec.llama.model import Model, ModelOptions
from edgespec.planning import budget
from edgespec.planning.cost import CostModel
from edgespec.protocols import Drafter, Target

MAX_TOKENS = 1024
"""The limit that answers are given; those that were cut when recorded count as ended there."""

FLAT_MS = tuple(27.0 / PASS_MS[0] * ms for ms in PASS_MS)
STEEP_MS = (53.0, 58.0, 63.0, 66.0, 73.0, 80.0, 85.0, 90.0, 99.0, 108.0, 117.0, 126.0, 139.5, 153.0)
"""The same model on an Intel CPU with AVX-512 and no AMX."""


@dataclass(frozen=True, slots=True)
class World:
    """A machine: what passes take, what the planner believes at first, and what disturbs.

    `drifts`: a factor on everything wanders between 0.7 and 1.5. `noise` is the deviation of the
    logarithm of each pass's time, `spike_ms` what one pass in 500 takes longer, `bend` how much the
    curve is off at each number of rows. `wrong` is the share of the drafter's guesses that are
    replaced, `sharp` a factor on the log odds of its probabilities.
    """

    pass_ms: tuple[float, ...] = FLAT_MS
    believed_ms: tuple[float, ...] = FLAT_MS
    drifts: bool = False
    noise: float = 0.0
    spike_ms: float = 0.0
    bend: float = 0.0
    wrong: float = 0.0
    sharp: float = 1.0


_SCALED_MS = tuple(STEEP_MS[0] / FLAT_MS[0] * ms for ms in FLAT_MS)
WORLDS = {
    "quiet": World(),
    "steep": World(STEEP_MS, STEEP_MS),
    "unquiet": World(drifts=True, noise=0.1, spike_ms=200.0),
    "unquiet-steep": World(STEEP_MS, STEEP_MS, drifts=True, noise=0.1, spike_ms=200.0),
    "bent-steep": World(STEEP_MS, STEEP_MS, noise=0.1, bend=0.2),
    "shipped": World(STEEP_MS, _SCALED_MS, noise=0.1),
    "wrong100": World(wrong=1.0),
    "wrong40": World(wrong=0.4),
    "overconfident": World(sharp=2.0),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """Whether each part does its work; `drafts`: the model is asked at all.

    `costs` and `counts` learn, or are what they were at first; without a `budget` drafters may lose
    whatever they lose; without `reading` any prompt is read at once. With `hindsight` drafters
    never guess wrong.
    """

    costs: bool = True
    counts: bool = True
    budget: bool = True
    reading: bool = True
    drafts: bool = True
    hindsight: bool = False


PARTS = ("costs", "counts", "budget", "reading")
OFF = Setup(costs=False, counts=False, budget=False, reading=False)
SETUPS = {
    "lookups": Setup(drafts=False),
    "on": Setup(),
    "off": OFF,
    **{f"+{part}": replace(OFF, **{part: True}) for part in PARTS},
    **{f"-{part}": replace(Setup(), **{part: False}) for part in PARTS},
    "hindsight": replace(OFF, hindsight=True),
}


class StillCosts(CostModel):
    """Believes what it was told."""

    def observe(self, rows: int, context: int, elapsed_ms: float) -> None:
        """Learn nothing."""


class StillCounts(Acceptance):
    """Estimates of before anything was seen."""

    def observe(self, kind: int, kept: bool) -> None:
        """Learn nothing."""


def still(calibration: Acceptance) -> StillCounts:
    """What a fresh calibration says, for ever."""
    return StillCounts([calibration.estimate(kind) for kind in range(calibration.num_kinds)])


@contextlib.contextmanager
def switched(setup: Setup) -> Iterator[None]:
    """Plan with the budgets of a setup."""
    constants = {} if setup.budget else {"FIRST_PASSES": math.inf, "MOST_PASSES": math.inf}
    if not setup.reading:
        constants["GAIN"] = math.inf
    with contextlib.ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(mock.patch.object(budget, name, value))
        yield


class Machine:
    """A world's disturbances by place in all that is said: the same for every setup."""

    def __init__(self, world: World, num_tokens: int, seed: int) -> None:
        stream = np.random.default_rng(seed)
        low, high = math.log(0.7), math.log(1.5)
        level, levels = stream.uniform(low, high), []
        for step in stream.normal(0.0, 0.012, num_tokens + 1):
            level += step
            level = 2 * low - level if level < low else 2 * high - level if level > high else level
            levels.append(level if world.drifts else 0.0)
        self.factor = np.exp(levels)
        self.noise = np.exp(stream.normal(0.0, 1.0, num_tokens + 1) * world.noise)
        self.spike = world.spike_ms * (stream.random(num_tokens + 1) < 1 / 500)
        bend = 1.0 + world.bend * stream.uniform(-1.0, 1.0, len(world.pass_ms))
        bend[0] = 1.0
        self.pass_ms = np.array(world.pass_ms) * bend
        self._mean_spike = world.spike_ms / 500
        self._mean_noise = math.exp(world.noise**2 / 2)
        self.at = 0

    @property
    def slowness(self) -> float:
        """What a guess at this place takes longer."""
        return float(self.factor[self.at] * self.noise[self.at])

    def take_ms(self, num_rows: int) -> float:
        """Milliseconds of a pass at this place."""
        return float(self.pass_ms[num_rows - 1] * self.slowness + self.spike[self.at])

    def plain_ms(self, start: int, stop: int) -> float:
        """What plain passes at these places take on average."""
        passes = self.pass_ms[0] * self.factor[start:stop] * self._mean_noise
        return float(passes.sum()) + self._mean_spike * (stop - start)


class MachineTarget(RecordedTarget):
    """The recorded target on a machine."""

    def __init__(self, machine: Machine, clock: Clock) -> None:
        super().__init__(machine.pass_ms.tolist(), clock)
        self._machine = machine

    def take_ms(self, num_rows: int) -> float:
        """As long as the machine takes now."""
        return self._machine.take_ms(num_rows)

    def sample(self, target: Target, row: int) -> int:
        """What was recorded."""
        self._machine.at += 1
        return super().sample(target, row)


class MachinePlayback(TimedPlayback):
    """The recorded drafter on a machine; some of its guesses are replaced by wrong ones."""

    def __init__(
        self,
        guesses: dict[int, Recorded],
        clock: Clock,
        times: tuple[float, float],
        world: World,
        machine: Machine,
    ) -> None:
        super().__init__(guesses, clock, *times)
        self._world, self._machine = world, machine

    def read(self, tokens: Sequence[int]) -> None:
        """Append, and let the time pass that it takes."""
        started = self.clock.now_ms
        super().read(tokens)
        self.clock.now_ms = started + (self.clock.now_ms - started) * self._machine.slowness

    def guess(self) -> tuple[int, float]:
        """What was recorded, or another token with the same probability."""
        token, probability = super().guess()
        chance = random.Random(hash((self.answer, tuple(self._cells[-40:]))))
        if self._world.wrong and chance.random() < self._world.wrong:
            others = [self._any[chance.randrange(len(self._any))].token for _ in range(4)]
            token = next((other for other in others if other != token), token)
        if self._world.sharp != 1.0:
            odds = math.log(max(probability, 1e-6) / max(1.0 - probability, 1e-6))
            probability = 1.0 / (1.0 + math.exp(-self._world.sharp * odds))
        return token, probability


@dataclass(frozen=True, slots=True)
class Recording:
    """What was recorded of a pair, and what a guess and a further token read take."""

    pair: Pair
    answers: tuple[tuple[int, Answer], ...]
    guesses: dict[int, Recorded]
    times_ms: tuple[float, float]


ORDERS = ("mixed", "by category", "three of a kind")


def in_order(
    answers: Sequence[tuple[int, Answer]], order: str, seed: int
) -> list[tuple[int, Answer]]:
    """Answers in a random order of one of these kinds."""
    stream = random.Random(seed)
    shuffled = stream.sample(list(answers), len(answers))
    if order == "mixed":
        return shuffled
    categories = sorted({answer.category for _, answer in answers})
    stream.shuffle(categories)
    ordered = sorted(shuffled, key=lambda item: categories.index(item[1].category))
    if order == "by category":
        return ordered
    groups = []
    for category in categories:
        inside = [item for item in ordered if item[1].category == category]
        groups += [inside[start : start + 3] for start in range(0, len(inside), 3)]
    stream.shuffle(groups)
    return [item for group in groups for item in group]


def replay(recording: Recording, setup: Setup, world: World, order: str, seed: int) -> list[Run]:
    """All answers once, learning from one to the next."""
    answers = in_order(recording.answers, order, seed)
    machine = Machine(world, sum(len(answer.tokens) for _, answer in answers), 100 + seed)
    clock = Clock()
    playback = MachinePlayback(recording.guesses, clock, recording.times_ms, world, machine)
    context, model = ContextDrafter(), recording.pair.drafter_over(playback)
    if not setup.counts:
        context.calibration, model.calibration = (
            still(context.calibration),
            still(model.calibration),
        )
    drafters: list[Drafter] = [context, model] if setup.drafts else [context]
    if setup.hindsight:
        drafters = [Hindsight(drafter, clock) for drafter in drafters]
    costs = known_costs(world.believed_ms)
    if not setup.costs:
        costs = StillCosts(costs.table, costs.max_rows)
    with switched(setup):
        target = MachineTarget(machine, clock)
        engine = Replay(drafters, clock, playback, target, costs, MAX_TOKENS)
        runs = []
        for number, answer in answers:
            start = machine.at
            run = engine.run(number, answer)
            plain_ms = machine.plain_ms(start + 1, start + len(answer.tokens))
            runs.append(replace(run, plain_ms=plain_ms))
    return runs


def figures(runs: Sequence[Run]) -> dict[str, float | str]:
    """What is printed of all runs of a setup."""
    by_category = speeds(runs)
    overall = by_category.pop("overall")
    worst = min(by_category, key=lambda name: by_category[name])
    everything = sorted(run.plain_ms / run.ms for run in runs if run.plain_ms > 0)
    return {
        "overall": round(overall, 4),
        "worst": round(by_category[worst], 4),
        "worst_category": worst,
        "slowest_tenth": round(float(np.mean(everything[: max(len(everything) // 10, 1)])), 4),
        "num_guesses": sum(run.num_guesses for run in runs),
    }


def chosen(patterns: str, names: Sequence[str]) -> list[str]:
    """The names that match one of the patterns."""
    each = patterns.split(",")
    return [name for name in names if any(fnmatch.fnmatchcase(name, one) for one in each)]


def main(arguments: Sequence[str]) -> None:
    """Replay what is asked for."""
    target, drafter, said, guessed = map(Path, arguments[:4])
    times_ms = float(arguments[4]), float(arguments[5])
    seeds = range(int(arguments[8]) if len(arguments) > 8 else 3)
    answers = tuple(enumerate(load_answers(said)))
    options = ModelOptions(vocabulary_only=True)
    with Model(target, options) as one, Model(drafter, options) as other:
        recording = Recording(Pair(one, other), answers, load_guesses(guessed), times_ms)
        for world in chosen(arguments[6], list(WORLDS)):
            for setup in chosen(arguments[7], list(SETUPS)):
                runs = [
                    run
                    for order in ORDERS
                    for seed in seeds
                    for run in replay(recording, SETUPS[setup], WORLDS[world], order, seed)
                ]
                line = {"world": world, "setup": setup, **figures(runs)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 9:
        sys.exit(__doc__)
    main(sys.argv[1:])
