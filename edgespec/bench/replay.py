"""What a recorded run would have taken on a machine with another T(r): a prediction.

The texts and the guesses stay as they are; only times change. A pass over r rows takes the other
T(r); what drafters and all else took is multiplied by T'(1) / T(1), as if the other machine were as
much faster at everything. The product's drafts are cut where its planner would have cut them by
their recorded estimates. A cut draft pays for its guesses and the one behind them, which was looked
at; those that would have been right are made again in the next pass, at their price.
Longer drafts than were made here cannot be seen, so a machine on which rows are cheaper gains more
than is predicted. Curves are taken at a short context and never beyond their last row.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgespec.bench.figures import interpolated, paired_runs, way_of
from edgespec.bench.records import Report, Run
from edgespec.bench.statistics import Paired, paired
from edgespec.errors import UsageError
from edgespec.planning.growth import Outcome
from edgespec.types import PLAIN

CURVES = (
    "zen5-1.5b-q4_k_m",
    "avx512-1.5b-q4_k_m",
    "amx-1.5b-q4_k_m",
    "metal-7b-q8_0",
    "m5max-12b-4bit",
    "rtx3090-8b-q4_0",
)
"""Those that come with the product."""

PREDICTION = (
    "A prediction: the passes that were recorded here, with times of the other machine. "
    "Longer drafts than were made here cannot be seen."
)


class Curve(BaseModel):
    """T(r) of a machine with a model: milliseconds by rows, one row included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    machine: str
    model: str
    source: str
    pass_ms: dict[int, float] = Field(min_length=2)

    @property
    def costs(self) -> list[float]:
        """T(1), T(2), ... up to the last row that was measured."""
        costs = [interpolated(self.pass_ms, rows) for rows in range(1, max(self.pass_ms) + 1)]
        return [ms for ms in costs if ms is not None]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a way would give on another machine, beside plain decoding there.

    `speedup` is the ratio of the mean tokens per second, `decoding` the median of each question's
    own. `num_cut` of `num_passes` had drafts that would have been cut there.
    """

    plain_tokens_per_second: float
    tokens_per_second: float
    decoding: Paired
    num_passes: int
    num_cut: int

    @property
    def speedup(self) -> float:
        """Ratio of the mean tokens per second."""
        return self.tokens_per_second / self.plain_tokens_per_second


def load_curve(name: str) -> Curve:
    """One of ours by its name, or any by its file; raises UsageError."""
    own = files("edgespec.bench").joinpath("curves", f"{name}.json")
    path = own if name in CURVES else Path(name).expanduser()
    try:
        curve = Curve.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"no curve is named {name}, and there is no such file",
            f"take one of {', '.join(CURVES)}, or a file of that form",
        ) from error
    except ValidationError as error:
        raise UsageError(
            f"{name} is no curve: {error.errors()[0]['msg']}",
            "give name, machine, model, source and pass_ms (milliseconds by rows)",
        ) from error
    if 1 not in curve.pass_ms or any(rows < 1 or ms <= 0 for rows, ms in curve.pass_ms.items()):
        raise UsageError(f"{name} is no curve: it needs T(1), and times above 0", "mend pass_ms")
    return curve


def what_if(report: Report, way: str, curve: Curve) -> Prediction | None:
    """The prediction for a way; None where its passes are not known, as those of peers."""
    pairs = [
        pair
        for pair in paired_runs(report, way)
        if all(run.passes.rows and run.num_tokens > run.num_turns for run in pair)
    ]
    single_ms = _single_ms(report)
    if not pairs or not single_ms:
        return None
    slowness = curve.pass_ms[1] / single_ms
    there = _Machine(curve.costs, slowness, is_planned=way_of(report, way).is_planned)
    speeds = [there.speed_of(run) for _, run in pairs]
    beside = _Machine(curve.costs, slowness)
    plain = [beside.speed_of(base) for base, _ in pairs]
    ratios = [speed / base for speed, base in zip(speeds, plain, strict=True)]
    return Prediction(fmean(plain), fmean(speeds), paired(ratios), there.num_passes, there.num_cut)


def _single_ms(report: Report) -> float | None:
    """T(1) here: as measured, or what passes of plain decoding took on average."""
    if 1 in report.pass_ms:
        return report.pass_ms[1]
    took = [ms for run in report.of(PLAIN).values() for ms in run.passes.took]
    return fmean(took) if took else None


class _Machine:
    """Another machine: what passes cost there, how much slower all else is, what it was told."""

    def __init__(self, costs: list[float], slowness: float, *, is_planned: bool = False) -> None:
        self._costs = costs
        self._is_planned = is_planned
        self._slowness = slowness
        self.num_passes = 0
        self.num_cut = 0

    def speed_of(self, run: Run) -> float:
        """Tokens per second of decoding."""
        return (run.num_tokens - run.num_turns) / self.decode_ms(run) * 1e3

    def decode_ms(self, run: Run) -> float:
        """Time of decoding, by the run's passes and what it took besides."""
        passes = run.passes
        spent = sum(passes.took) + sum(passes.drafting)
        ms = max(run.decode_ms - spent, 0.0) * self._slowness
        for index, rows in enumerate(passes.rows):
            estimates = passes.estimates[index] if index < len(passes.estimates) else ()
            drafting = passes.drafting[index] * self._slowness
            ms += self._pass_ms(rows, passes.kept[index], drafting, estimates)
        return ms

    def _pass_ms(
        self, rows: int, kept: int, drafting: float, estimates: tuple[float, ...]
    ) -> float:
        """What the tokens of one recorded pass take, in as many passes as it takes there."""
        self.num_passes += 1
        if rows == 1:
            return self._costs[0] + drafting
        guess_ms, ms, num_said = drafting / (rows - 1), 0.0, 0
        is_cut = False
        while num_said < kept:
            left = rows - 1 - num_said
            length = min(left, len(self._costs) - 1)
            if self._is_planned and len(estimates) == rows - 1:
                length = _planned(self._costs, estimates[num_said:], guess_ms)
            is_cut |= length < left
            ms += self._costs[length] + guess_ms * min(length + 1, left)
            num_said += length + 1
        self.num_cut += is_cut
        return ms


def _planned(costs: list[float], estimates: tuple[float, ...], guess_ms: float) -> int:
    """How many guesses of a draft the planner verifies, given their estimates."""
    outcome, reach = Outcome(costs, 1, 1), 1.0
    for estimate in estimates:
        if not outcome.has_room:
            break
        reach *= estimate
        outcome.spend(guess_ms)
        outcome.add(reach)
    return outcome.best_added
