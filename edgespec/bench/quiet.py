"""Whether a machine was left alone while it was measured."""

from __future__ import annotations

import os

from edgespec.bench.records import Report

_MOST_BESIDE = 1.0
"""Processes beside our own threads that may want to run."""

_MOST_DRIFT = 1.15
"""The same answer may take so many times as long at one time as at another."""


def load_average() -> float | None:
    """Processes that wanted to run in the last minute; None where the system does not count."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def disturbances(report: Report) -> list[str]:
    """What makes the figures of a report doubtful, a line for each."""
    lines = []
    loads = [run.load for run in report.runs if run.load is not None]
    num_threads = report.machine.num_threads
    if max(loads, default=0.0) > num_threads + _MOST_BESIDE:
        lines.append(
            f"the machine was busy: its load was up to {max(loads):.1f}, of which {num_threads} "
            "are ours"
        )
    times = [each.token_ms for each in report.drift]
    if times and max(times) > _MOST_DRIFT * min(times):
        lines.append(
            f"the machine changed: a plain token took {min(times):.1f} ms at one time and "
            f"{max(times):.1f} ms at another"
        )
    return lines
