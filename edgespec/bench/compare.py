"""Two reports of the same questions: each way's speed-up in the second to that in the first.

Both are measured against plain decoding of their own run, question by question. A machine that was
slower throughout changes nothing; one whose memory alone was slower does, since there a plain token
costs more and a guess as much as before. So it is told by how much the pace differed.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgespec.bench.figures import decoding_ratios, others, paired_runs
from edgespec.bench.records import Report
from edgespec.bench.statistics import LEAST, Paired, paired
from edgespec.bench.table import factor, interval
from edgespec.types import PLAIN

_MOST_APART = 1.05
"""Paces of two runs that differ by no more are the same."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One way in two reports, over the questions of both: the speed-ups, and B's to A's."""

    way: str
    first: Paired
    second: Paired
    ratio: Paired

    @property
    def agree(self) -> bool | None:
        """Whether each median is in the other's interval, or 1 in the ratio's; None without."""
        if self.ratio.interval is None:
            return None
        return _is_in(1.0, self.ratio) or (
            _is_in(self.second.median, self.first) and _is_in(self.first.median, self.second)
        )

    @property
    def verdict(self) -> str:
        """In words; question by question smaller differences show than in two intervals."""
        if self.ratio.interval is None:
            return f"under {LEAST} questions, which is too few to tell"
        agreed = "A and B agree within their intervals"
        if _is_in(1.0, self.ratio):
            return agreed
        said = "faster" if self.ratio.median > 1 else "slower"
        ends = sorted(abs(end - 1) for end in self.ratio.interval)
        found = f"B is {said} by {ends[0]:.1%} to {ends[1]:.1%}"
        return f"{agreed}; question by question {found}" if self.agree else found


def compare(first: Report, second: Report) -> list[Compared]:
    """The ways that both have, over the questions that both have."""
    told = []
    names = {way.name for way in others(second)}
    for way in (each.name for each in others(first)):
        if way not in names:
            continue
        ratios, beside = _ratios(first, way), _ratios(second, way)
        common = [question for question in ratios if question in beside]
        told.append(
            Compared(
                way,
                paired([ratios[each] for each in common]),
                paired([beside[each] for each in common]),
                paired([beside[each] / ratios[each] for each in common]),
            )
        )
    return told


def differences(first: Report, second: Report) -> list[str]:
    """What besides the ways is not the same in both, in whole sentences."""
    pairs = {
        "machine": (_machine(first), _machine(second)),
        "model": (first.target.sha256[:12], second.target.sha256[:12]),
        "drafter": (first.target.drafter, second.target.drafter),
        "library": (first.program.library, second.program.library),
        "program": (_program(first), _program(second)),
        "suite": (first.asked.suite, second.asked.suite),
        "memory": (first.asked.warm or "cold", second.asked.warm or "cold"),
        "sampling": (_sampling(first), _sampling(second)),
        "length": (f"{first.asked.max_tokens} tokens", f"{second.asked.max_tokens} tokens"),
    }
    told = [f"Another {name}: {a} in A, {b} in B." for name, (a, b) in pairs.items() if a != b]
    told += _pace(first, second)
    missing = _questions(first) ^ _questions(second)
    if missing:
        told.append(f"{len(missing)} questions are only in one of both, and are left out.")
    return told


def compare_lines(first: Report, second: Report) -> RenderableType:
    """What `edgespec bench compare A.json B.json` prints."""
    compared = compare(first, second)
    warnings = [Text(line) for line in differences(first, second)]
    if not compared:
        return Group(*warnings, Text("No way was asked the same question in both."))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("A", "95%", "B", "95%", "B / A", "95%"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in compared:
        cells = [
            text
            for value in (each.first, each.second, each.ratio)
            for text in (factor(value.median), _ends(value))
        ]
        table.add_row(Text(each.way), *cells)
    verdicts = [Text(f"{each.way}: {each.verdict}") for each in compared]
    num = compared[0].ratio.num
    about = Text(f"Medians of each question's speed-up over plain decoding, {num} questions.")
    return Group(*warnings, about, table, *verdicts)


def _pace(first: Report, second: Report) -> list[str]:
    """Whether plain decoding itself took another time, question by question; empty if not."""
    plain, beside = first.of(PLAIN), second.of(PLAIN)
    pairs = [(run, beside[question]) for question, run in plain.items() if question in beside]
    faster = paired(decoding_ratios(pairs))
    if faster.interval is None or 1 / _MOST_APART <= faster.median <= _MOST_APART:
        return []
    return [
        f"Plain decoding was {faster.median:.2f} times as fast in B ({interval(faster)}): the "
        "machine was another, in a way, and drafts gain less where a plain token takes less time."
    ]


def _ends(value: Paired) -> str:
    return interval(value).replace(" to ", "–") if value.interval else ""


def _ratios(report: Report, way: str) -> dict[str, float]:
    return {
        pair[0].question: ratio
        for pair in paired_runs(report, way)
        for ratio in decoding_ratios([pair])
    }


def _is_in(value: float, of: Paired) -> bool:
    return of.interval is not None and of.interval[0] <= value <= of.interval[1]


def _questions(report: Report) -> set[str]:
    return {run.question for run in report.runs}


def _machine(report: Report) -> str:
    return f"{report.machine.processor} with {report.machine.num_threads} threads"


def _program(report: Report) -> str:
    return f"{report.program.version} {report.program.commit[:12]}".strip()


def _sampling(report: Report) -> str:
    asked = report.asked
    more = {name: value for name, value in asked.sampling.items() if name != "temperature"}
    return f"temperature {asked.temperature:g}, seed {asked.seed}, {more or 'nothing else'}"
