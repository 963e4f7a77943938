"""The figures of docs/metrics.md for each way of a report, over all questions or some categories.

Ways are compared with plain decoding of the same questions. Questions whose answer is a single
token have no speed and count not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from edgespec.bench.records import Counts, Report, Run, Split, Way
from edgespec.bench.statistics import Paired, paired
from edgespec.types import PLAIN, DrafterCounts, SpeculationStats, drafter_of, memory_bound_speedup

PARTS = tuple(Split.model_fields)
"""What the time of decoding is split into."""

Pair = tuple[Run, Run]
"""A question's run in plain decoding, and in another way."""


@dataclass(frozen=True, slots=True)
class Place:
    """Draft tokens at one place of their draft: verified, and kept."""

    proposed: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One way over some questions, beside plain decoding of the same ones.

    Tokens per second are means over questions; their ratio is `speedup`, Spec-Bench's.
    `decoding` and `request` are medians of each question's own ratio, of decoding alone and from
    the request to the last byte. Times to the first token are medians over questions, in ms a turn.
    `by_place` begins with the first token of a draft. `split` is in ms per decoded token, joules
    are per token. `differing` are questions with other bytes and the first character that differs,
    out of `num_compared`. None is what is not known: a peer tells little.
    """

    num_questions: int
    plain_tokens_per_second: float
    tokens_per_second: float
    decoding: Paired
    request: Paired
    first_token_ms: float
    block_efficiency: float | None
    by_source: Mapping[str, Counts]
    by_place: tuple[Place, ...]
    mbsu: float | None
    roofline_share: float | None
    hindsight: float | None
    split: Mapping[str, float]
    joules: float | None
    scores: Mapping[str, float]
    num_compared: int
    differing: tuple[tuple[str, int], ...]

    @property
    def speedup(self) -> float:
        """Ratio of the mean tokens per second; 0 where nothing was timed."""
        plain = self.plain_tokens_per_second
        return self.tokens_per_second / plain if plain else 0.0

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted over proposed, all sources together; None where nothing was proposed."""
        proposed = sum(each.proposed for each in self.by_source.values())
        accepted = sum(each.accepted for each in self.by_source.values())
        return accepted / proposed if proposed else None


class Summaries:
    """The figures of a report's ways, each made once: drawing for intervals takes its time."""

    def __init__(self, report: Report) -> None:
        """Nothing is made before it is asked for."""
        self.report = report
        self._made: dict[tuple[str, str | None], Summary] = {}

    def of(self, way: str, category: str | None = None) -> Summary:
        """The figures of a way, over the questions of a category or all."""
        key = way, category
        if key not in self._made:
            chosen = None if category is None else [category]
            self._made[key] = summary(self.report, way, chosen)
        return self._made[key]


def summary(report: Report, way: str, categories: Collection[str] | None = None) -> Summary:
    """The figures of a way, over the questions of some categories or of all."""
    pairs = paired_runs(report, way, categories)
    timed = [pair for pair in pairs if _is_timed(pair)]
    plain, runs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    told = way_of(report, way)
    compared = [] if told.is_peer else runs
    return Summary(
        num_questions=len(pairs),
        plain_tokens_per_second=_mean([pair[0].tokens_per_second for pair in timed]) or 0.0,
        tokens_per_second=_mean([pair[1].tokens_per_second for pair in timed]) or 0.0,
        decoding=paired(decoding_ratios(pairs)),
        request=paired(
            [
                run.request_tokens_per_second / base.request_tokens_per_second
                for base, run in pairs
                if run.request_tokens_per_second and base.request_tokens_per_second
            ]
        ),
        first_token_ms=_median([run.first_token_ms / run.num_turns for run in runs]),
        block_efficiency=_stats(runs).block_efficiency or None,
        by_source=_by_source(runs),
        by_place=acceptance_by_place(runs),
        mbsu=_mbsu(runs, told, report.target.pass_bytes),
        roofline_share=_roofline_share(report, plain),
        hindsight=_hindsight(timed, report.pass_ms),
        split=split_of(runs),
        joules=_joules(runs),
        scores=_scores(runs),
        num_compared=len(compared),
        differing=tuple(
            (run.question, run.differs_at) for run in compared if run.differs_at is not None
        ),
    )


def way_of(report: Report, name: str) -> Way:
    """What is known of a way."""
    return next((way for way in report.ways if way.name == name), Way(name=name, about=""))


def categories(report: Report) -> list[str]:
    """The categories of what was asked, in the order of the run."""
    return list(dict.fromkeys(run.category for run in report.runs))


def others(report: Report) -> list[Way]:
    """All ways but plain decoding, those without a question in common with it left out."""
    return [way for way in report.ways if way.name != PLAIN and paired_runs(report, way.name)]


def all_ways(report: Report) -> list[str]:
    """The names of plain decoding and all others."""
    return [PLAIN, *(way.name for way in others(report))]


def paired_runs(report: Report, way: str, categories: Collection[str] | None = None) -> list[Pair]:
    """Questions that were answered plainly and in another way, in the order of the run."""
    plain, runs = report.of(PLAIN), report.of(way)
    return [
        (base, runs[question])
        for question, base in plain.items()
        if question in runs and (categories is None or base.category in categories)
    ]


def decoding_ratios(pairs: Sequence[Pair]) -> list[float]:
    """Speed-up of decoding of each question that has one."""
    return [
        run.tokens_per_second / base.tokens_per_second
        for base, run in pairs
        if _is_timed((base, run))
    ]


def acceptance_by_place(runs: Sequence[Run]) -> tuple[Place, ...]:
    """Counts for each place in a draft, over all passes; drafts are chains."""
    proposed: Counter[int] = Counter()
    accepted: Counter[int] = Counter()
    for run in runs:
        for rows, kept in zip(run.passes.rows, run.passes.kept, strict=True):
            proposed.update(range(rows - 1))
            accepted.update(range(min(kept, rows) - 1))
    return tuple(Place(proposed[place], accepted[place]) for place in sorted(proposed))


def rows_used(runs: Sequence[Run]) -> dict[int, int]:
    """How many passes had so many rows."""
    counts = Counter(rows for run in runs for rows in run.passes.rows)
    return dict(sorted(counts.items()))


def split_of(runs: Sequence[Run]) -> dict[str, float]:
    """Milliseconds per decoded token by part; empty where nobody tells."""
    num_tokens = sum(run.num_tokens - run.num_turns for run in runs)
    if num_tokens <= 0 or not any(run.passes.rows for run in runs):
        return {}
    return {part: sum(getattr(run.split, part) for run in runs) / num_tokens for part in PARTS}


def interpolated(pass_ms: Mapping[int, float], rows: int) -> float | None:
    """T(rows) between measured numbers of rows; None beyond the last, or without any.

    >>> interpolated({1: 10.0, 3: 12.0}, 2), interpolated({1: 10.0, 3: 12.0}, 4)
    (11.0, None)
    """
    known = sorted(pass_ms)
    at = bisect_left(known, rows)
    if at == len(known) or rows < known[0]:
        return None
    if known[at] == rows:
        return pass_ms[rows]
    low, high = known[at - 1], known[at]
    share = (rows - low) / (high - low)
    return pass_ms[low] + share * (pass_ms[high] - pass_ms[low])


def hindsight_ms(run: Run, pass_ms: Mapping[int, float]) -> float:
    """What decoding would have taken had each pass computed only the rows that were kept.

    A pass is made shorter by T(kept) / T(rows), so that what else slowed it is no gain. What
    drafters took for refused guesses is not refunded.
    """
    saved = 0.0
    passes = run.passes
    for rows, kept, took in zip(passes.rows, passes.kept, passes.took, strict=True):
        whole, needed = interpolated(pass_ms, rows), interpolated(pass_ms, kept)
        if whole and needed:
            saved += took * max(1 - needed / whole, 0.0)
    return run.decode_ms - saved


def _is_timed(pair: Pair) -> bool:
    return all(run.tokens_per_second for run in pair)


def _stats(runs: Sequence[Run]) -> SpeculationStats:
    by_drafter: dict[str, DrafterCounts] = {}
    for source, counts in _by_source(runs).items():
        known = by_drafter.get(drafter_of(source), DrafterCounts())
        by_drafter[drafter_of(source)] = DrafterCounts(
            known.proposed + counts.proposed, known.accepted + counts.accepted
        )
    told = [run for run in runs if run.target_passes]
    return SpeculationStats(
        sum(run.num_tokens for run in told), sum(run.target_passes for run in told), by_drafter
    )


def _by_source(runs: Sequence[Run]) -> dict[str, Counts]:
    names = dict.fromkeys(source for run in runs for source in run.by_source)
    return {
        name: Counts(
            proposed=sum(run.by_source[name].proposed for run in runs if name in run.by_source),
            accepted=sum(run.by_source[name].accepted for run in runs if name in run.by_source),
        )
        for name in names
    }


def _mbsu(runs: Sequence[Run], way: Way, target_bytes: int) -> float | None:
    stats = _stats(runs)
    return memory_bound_speedup(
        stats, dict.fromkeys(stats.by_drafter, way.guess_bytes), target_bytes
    )


def _roofline_share(report: Report, plain: Sequence[Run]) -> float | None:
    num_tokens = sum(run.num_tokens - run.num_turns for run in plain)
    decode_ms = sum(run.decode_ms for run in plain)
    if num_tokens <= 0 or not decode_ms or not report.machine.read_bandwidth:
        return None
    per_second = report.target.pass_bytes * num_tokens / decode_ms * 1e3
    return per_second / report.machine.read_bandwidth


def _hindsight(timed: Sequence[Pair], pass_ms: Mapping[int, float]) -> float | None:
    plain = _mean([base.tokens_per_second for base, _ in timed])
    known = [run for _, run in timed if run.passes.rows]
    if not plain or len(known) < len(timed) or not pass_ms:
        return None
    speeds = [(run.num_tokens - run.num_turns) / hindsight_ms(run, pass_ms) * 1e3 for run in known]
    return fmean(speeds) / plain


def _joules(runs: Sequence[Run]) -> float | None:
    told = [(run.joules, run.num_tokens) for run in runs if run.joules is not None]
    num_tokens = sum(tokens for _, tokens in told)
    return sum(joules for joules, _ in told) / num_tokens if num_tokens else None


def _scores(runs: Sequence[Run]) -> dict[str, float]:
    names = dict.fromkeys(name for run in runs for name in run.scores)
    return {name: fmean([r.scores[name] for r in runs if name in r.scores]) for name in names}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _median(values: Sequence[float]) -> float:
    return median(values) if values else 0.0
