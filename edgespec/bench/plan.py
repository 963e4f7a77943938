"""What `edgespec bench` asks: suites of our own or files, cold or after other questions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeVar

from edgespec.bench.suite import Question, Rewritten, read_days, read_pairs, read_suite, select
from edgespec.bench.warm import Step, Warm, WarmPlan
from edgespec.errors import UsageError

SUITES = (
    "chat",
    "code",
    "edits",
    "summaries",
    "grounded",
    "translation",
    "mathematics",
    "json",
    "german",
    "chinese",
    "tools",
    "outline",
)
"""Suites of our own; the questions of each are a category."""

MIXED, ALL = "mixed", "all"
"""The first questions of each suite of our own, and all of them."""

_NUM_MIXED = 2
_PAIRS, _OTHERS, _WEEK = "pairs", "others", "week"
Read = TypeVar("Read")


def cold_questions(
    suites: str, categories: Sequence[str], limit: int | None
) -> tuple[Question, ...]:
    """Questions of suites, names or files with commas between; raises UsageError."""
    return select(_suites(suites), categories, limit)


def warm_plan(
    warm: Warm, suite: str | None, categories: Sequence[str], limit: int | None, others: str | None
) -> WarmPlan:
    """What a warm run learns from and measures; raises UsageError.

    `suite` is a file of pairs for "rewritten" and one of days for "week", else suites; `others` are
    the earlier questions of "unseen".
    """
    if others is not None and warm != "unseen":
        raise UsageError("--others is for --warm unseen", "leave it out")
    file = Path(suite).expanduser() if suite else None
    if warm == "rewritten":
        pairs = read_pairs(file) if file else _shipped(_PAIRS, read_pairs)
        return _rewritten(pairs, categories, limit)
    if warm == "week":
        return _week(read_days(file) if file else _shipped(_WEEK, read_days), categories, limit)
    questions = cold_questions(suite or MIXED, categories, limit)
    earlier = questions
    if warm == "unseen":
        earlier = _suites(others) if others else _shipped(_OTHERS, read_suite)
    return WarmPlan(warm, (Step("learn", earlier), Step("measure", questions)))


def _rewritten(
    pairs: Sequence[Rewritten], categories: Sequence[str], limit: int | None
) -> WarmPlan:
    seconds = select([pair.second for pair in pairs], categories, limit)
    chosen = set(seconds)
    firsts = tuple(pair.first for pair in pairs if pair.second in chosen)
    return WarmPlan("rewritten", (Step("learn", firsts), Step("measure", seconds)))


def _week(
    days: Sequence[Sequence[Question]], categories: Sequence[str], limit: int | None
) -> WarmPlan:
    """Each day is measured, then learned from; `categories` are the days that are measured."""
    chosen = set(select([question for day in days for question in day], categories, limit))
    steps: list[Step] = []
    for day in days:
        asked = select(day, (), limit)
        measured = tuple(question for question in asked if question in chosen)
        if measured:
            steps.append(Step("measure", measured))
        steps.append(Step("learn", asked))
    while steps[-1].does == "learn":  # nothing is measured after it
        steps.pop()
    return WarmPlan("week", tuple(steps))


def _suites(names: str) -> tuple[Question, ...]:
    """Questions of several suites, each once and with an id of its own."""
    if Path(names).expanduser().is_file():  # its name may have commas
        parts = [names]
    else:
        parts = [name.strip() for name in names.split(",")]
    questions = dict.fromkeys(question for part in parts for question in _suite(part))
    counts: Counter[str] = Counter()
    named = []
    for question in questions:
        counts[question.id] += 1
        if counts[question.id] > 1:  # two files may both number theirs from 1
            name = f"{question.id} #{counts[question.id]}"
            question = dataclasses.replace(question, id=name)
        named.append(question)
    return tuple(named)


def _suite(name: str) -> tuple[Question, ...]:
    if name in SUITES:
        return _shipped(name, read_suite)
    if name in (MIXED, ALL):
        limit = _NUM_MIXED if name == MIXED else None
        return select([question for each in SUITES for question in _suite(each)], (), limit)
    return read_suite(Path(name).expanduser())


def _shipped(name: str, read: Callable[[Path], Read]) -> Read:
    with resources.as_file(resources.files("edgespec.bench") / "suites" / f"{name}.jsonl") as path:
        return read(path)
