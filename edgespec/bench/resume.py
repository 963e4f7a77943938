"""Going on with a run that was cut short: what its file has, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgespec.bench.records import Report
from edgespec.bench.suite import Question
from edgespec.errors import UsageError

_MAY_CHANGE = ("max_rows", "provisional")
"""Settings that follow from what was measured of a machine by then."""


def check_same(report: Report, earlier: Report) -> None:
    """Raise UsageError where `earlier` was measured otherwise than `report` is to be."""
    then, now = _what(earlier), _what(report)
    other = [name for name in now if then[name] != now[name]]
    if other:
        raise UsageError(
            f"the file was measured with other {' and '.join(other)}",
            "ask as then, or leave out --resume",
        )


def left_of(questions: Sequence[Question], earlier: Report) -> list[Question]:
    """The questions that a report does not have."""
    done = {run.question for run in earlier.runs}
    return [question for question in questions if question.id not in done]


def _what(report: Report) -> dict[str, Any]:
    """What must be the same, by the names that people are told."""
    values = report.model_dump(mode="json")
    settings = values["target"]["settings"]
    machine = values["machine"]
    return {
        "models": (values["target"]["sha256"], values["target"]["drafter"]),
        "settings": {name: settings[name] for name in settings if name not in _MAY_CHANGE},
        "questions or sampling": values["asked"],
        "ways": [way["name"] for way in values["ways"]],
        "machines": (machine["processor"], machine["num_threads"]),
        "programs": values["program"],
    }
