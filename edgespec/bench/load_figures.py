"""What a measurement of servers under load comes to, for each server and number of clients."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from edgespec.bench.records import LoadBlock, LoadReport
from edgespec.bench.statistics import Paired, paired


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """One server with so many clients, over all rounds; times in ms.

    `speed` is in tokens per second of all clients together, `ratio` that speed by the first
    server's in the same round (None for the first itself); both are medians over rounds.
    `first` is the time to the first text at p50 and p95, `gap` that between two pieces of text at
    p50, p95 and the longest. `fairness` is the least tokens per second of a client by the most, the
    median over rounds: 1 if all are served alike. nan is what nothing tells.
    """

    speed: Paired
    ratio: Paired | None
    first: tuple[float, float]
    gap: tuple[float, float, float]
    fairness: float
    failures: Mapping[str, int]
    num_answers: int


def load_figures(report: LoadReport, server: str, num_clients: int) -> LoadFigures | None:
    """The figures of a server with so many clients; None where no block was finished."""
    blocks = _by_round(report, server, num_clients)
    if not blocks:
        return None
    answers = [answer for block in blocks.values() for answer in block.answers]
    whole = [answer for answer in answers if not answer.failure]
    gaps = [gap for answer in whole for gap in answer.gaps_ms]
    return LoadFigures(
        speed=paired([block.tokens_per_second for block in blocks.values()]),
        ratio=_ratio(report, server, num_clients),
        first=_percentiles([answer.first_ms for answer in whole]),
        gap=(*_percentiles(gaps), max(gaps, default=math.nan)),
        fairness=median(map(fairness, blocks.values())),
        failures=Counter(answer.failure for answer in answers if answer.failure),
        num_answers=len(whole),
    )


def fairness(block: LoadBlock) -> float:
    """The least tokens per second that a client had, by the most; nan where none had any."""
    tokens: dict[int, float] = defaultdict(float)
    spent: dict[int, float] = defaultdict(float)
    for answer in block.answers:
        tokens[answer.client] += answer.num_tokens
        spent[answer.client] += answer.whole_ms
    rates = [tokens[client] / spent[client] for client in tokens if spent[client] > 0]
    return min(rates) / max(rates) if rates and max(rates) > 0 else math.nan


def _by_round(report: LoadReport, server: str, num_clients: int) -> dict[int, LoadBlock]:
    return {
        block.round: block
        for block in report.blocks
        if (block.server, block.num_clients) == (server, num_clients)
    }


def _ratio(report: LoadReport, server: str, num_clients: int) -> Paired | None:
    first = report.servers[0].name
    if server == first:
        return None
    ours, theirs = (_by_round(report, name, num_clients) for name in (server, first))
    speeds = [
        (ours[number].tokens_per_second, theirs[number].tokens_per_second)
        for number in sorted(ours.keys() & theirs.keys())
    ]
    return paired([ours / theirs for ours, theirs in speeds if ours > 0 and theirs > 0])


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    """p50 and p95; nan of nothing."""
    if not values:
        return math.nan, math.nan
    half, most = np.percentile(values, (50, 95))
    return float(half), float(most)
