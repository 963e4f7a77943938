"""What to know before the figures of a report are believed, in whole sentences."""

from __future__ import annotations

from edgespec.bench.figures import Summaries, others
from edgespec.bench.records import Report

_MOST_DRIFT = 1.05
"""A plain token that took so many times another one's time is told as a change of the machine."""


def caveats(report: Report) -> list[str]:
    """One sentence each: whether it was cut short, drift, load, and what was left out."""
    told = [] if report.is_complete else ["Cut short: the figures are of what was finished."]
    told += [line for line in (_provisional(report), _drift(report), _load(report)) if line]
    return told + [f"Left out: {line}" for line in report.left_out]


def sameness(summaries: Summaries) -> list[str]:
    """Whether the bytes are those of plain decoding: in one line where all are, else by way."""
    compared = {way.name: summaries.of(way.name) for way in others(summaries.report)}
    compared = {name: figures for name, figures in compared.items() if figures.num_compared}
    lines = []
    for name, figures in compared.items():
        if figures.differing:
            question, at = figures.differing[0]
            lines.append(
                f"{name}: {len(figures.differing)} of {figures.num_compared} answers have other "
                f"bytes than plain decoding; {question} differs from character {at} on."
            )
    if compared and not lines:
        num = sum(figures.num_compared for figures in compared.values())
        lines.append(f"Same bytes as plain decoding in all {num} answers.")
    return lines


def _provisional(report: Report) -> str | None:
    settings = report.target.settings
    if not settings.get("provisional"):
        return None
    rows = settings.get("max_rows")
    return f"Only {rows} rows a pass are proved so far: `edgespec doctor` measures the rest."


def _drift(report: Report) -> str | None:
    times = [each.token_ms for each in report.drift if each.token_ms]
    if len(times) < 2:
        return None
    line = f"A plain token took {min(times):.1f} to {max(times):.1f} ms during the run"
    if max(times) < _MOST_DRIFT * min(times):
        return f"{line}: the machine kept its pace."
    return f"{line}: its pace changed, which ways of one question share, but questions do not."


def _load(report: Report) -> str | None:
    """Our own threads are in the load average as well."""
    known = [run.load for run in report.runs if run.load is not None]
    threads = report.machine.num_threads
    busy = sum(load >= threads + 1 for load in known)
    if not known:
        return None
    if not busy:
        return f"Load was at most {max(known):.1f} with {threads} threads of our own."
    return (
        f"Something else ran: in {busy} of {len(known)} runs the load was {threads + 1} or more "
        f"(up to {max(known):.1f}), {threads} of it our own threads."
    )
