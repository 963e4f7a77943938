"""What speculation did, as the panel shows it: one value, made of counts, times and spans.

The figures are those of docs/metrics.md. None is what is not known: it is shown as a dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgespec import types
from edgespec.tui.sources import CATEGORIES, Category, source_category
from edgespec.types import (
    TARGET,
    Completion,
    DrafterCounts,
    Span,
    SpeculationStats,
    Timings,
    memory_bound_speedup,
)


@dataclass(frozen=True, slots=True)
class DrafterCost:
    """What a guess of a drafter costs: milliseconds, and bytes of weights that are read for it."""

    token_ms: float | None = None
    bytes_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class Insight:
    """What the engine knows besides what an answer tells.

    `pass_ms` is T(r) in milliseconds by rows. `plain_token_ms` is the cost of a plain token when
    the machine was as busy as in the last answer. `target_bytes` are read in each pass. `idle`
    names the work that waits for time.
    """

    pass_ms: Mapping[int, float] = field(default_factory=dict)
    plain_token_ms: float | None = None
    target_bytes: int | None = None
    drafters: Mapping[str, DrafterCost] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    @property
    def guess_bytes(self) -> dict[str, float | None]:
        """Bytes of weights that each drafter reads for a guess, None where not known."""
        return {name: cost.bytes_per_token for name, cost in self.drafters.items()}


def insight_of(told: types.Insight, model: types.ServedModel) -> Insight:
    """What the panel shows of what the engine tells."""
    return Insight(
        pass_ms=told.pass_ms,
        plain_token_ms=told.plain_token_ms,
        target_bytes=model.size_bytes,
        drafters={
            each.name: DrafterCost(each.guess_ms or None, each.guess_bytes or None)
            for each in told.drafters
        },
        idle=(told.idle,) if told.idle else (),
    )


@dataclass(frozen=True, slots=True)
class DrafterFigures:
    """One drafter in this answer; `acceptance` is None where it proposed nothing."""

    name: str
    num_proposed: int
    acceptance: float | None
    token_ms: float | None


@dataclass(frozen=True, slots=True)
class StatsView:
    """All that the panel shows of the present or last answer.

    `shares` are those of its characters by category, in the order of CATEGORIES, which add up to 1;
    empty before there is text. `history` is tokens/s of the answers of this conversation.
    """

    tokens_per_second: float | None = None
    plain_tokens_per_second: float | None = None
    speedup: float | None = None
    acceptance: float | None = None
    block_efficiency: float | None = None
    mbsu: float | None = None
    shares: tuple[tuple[Category, float], ...] = ()
    drafters: tuple[DrafterFigures, ...] = ()
    pass_ms: tuple[tuple[int, float], ...] = ()
    history: tuple[float, ...] = ()
    idle: tuple[str, ...] = ()


def stats_view(
    stats: SpeculationStats | None,
    timings: Timings | None,
    completions: Sequence[Completion] = (),
    spans: Sequence[Span] = (),
    insight: Insight | None = None,
) -> StatsView:
    """What is to be shown of an answer with these counts, times and pieces so far.

    `completions` are the finished answers of the conversation, the last one included once it ended.
    """
    stats, insight = stats or SpeculationStats(), insight or Insight()
    speed = timings.decode_tokens_per_second if timings else 0.0
    plain_ms = insight.plain_token_ms or (timings.plain_token_ms if timings else None)
    return StatsView(
        tokens_per_second=speed or None,
        plain_tokens_per_second=1e3 / plain_ms if plain_ms else None,
        speedup=speed * plain_ms / 1e3 if speed and plain_ms else None,
        acceptance=stats.acceptance_rate if stats.proposed else None,
        block_efficiency=stats.block_efficiency or None,
        mbsu=memory_bound_speedup(stats, insight.guess_bytes, insight.target_bytes),
        shares=shares_of(spans) or _shares_of_counts(stats),
        drafters=_drafters(stats, insight),
        pass_ms=tuple(sorted(insight.pass_ms.items())),
        history=_speeds(completions),
        idle=insight.idle,
    )


def shares_of(spans: Sequence[Span]) -> tuple[tuple[Category, float], ...]:
    """Which part of the characters came from each category, those that gave none left out.

    >>> shares_of([Span(6, "target"), Span(2, "context")])
    (('target', 0.75), ('context', 0.25))
    """
    counts: Counter[Category] = Counter()
    for span in spans:
        counts[source_category(span.source)] += span.length
    return _as_shares(counts)


def _shares_of_counts(stats: SpeculationStats) -> tuple[tuple[Category, float], ...]:
    """The same by tokens, where the pieces are not known."""
    counts: Counter[Category] = Counter()
    for name, drafter in stats.by_drafter.items():
        counts[source_category(name)] += drafter.accepted
    counts[source_category(TARGET)] += max(stats.emitted - stats.accepted, 0)
    return _as_shares(counts)


def _as_shares(counts: Counter[Category]) -> tuple[tuple[Category, float], ...]:
    total = counts.total()
    return tuple((each, counts[each] / total) for each in CATEGORIES if counts[each])


def _drafters(stats: SpeculationStats, insight: Insight) -> tuple[DrafterFigures, ...]:
    names = dict.fromkeys([*stats.by_drafter, *insight.drafters])
    return tuple(_figures(name, stats, insight) for name in names)


def _figures(name: str, stats: SpeculationStats, insight: Insight) -> DrafterFigures:
    counts = stats.by_drafter.get(name, DrafterCounts())
    acceptance = counts.accepted / counts.proposed if counts.proposed else None
    cost = insight.drafters.get(name, DrafterCost())
    return DrafterFigures(name, counts.proposed, acceptance, cost.token_ms)


def _speeds(completions: Sequence[Completion]) -> tuple[float, ...]:
    speeds = [each.timings.decode_tokens_per_second for each in completions]
    return tuple(speed for speed in speeds if speed)
