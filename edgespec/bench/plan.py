"""What `edgespec bench` asks: a suite of our own or a file, cold or after other questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeVar

from edgespec.bench.suite import Question, Rewritten, read_pairs, read_suite, select
from edgespec.bench.warm import Warm, WarmPlan
from edgespec.errors import UsageError

MIXED = "mixed"
SUITES = {MIXED: "prompts.jsonl", "edits": "edits.jsonl"}
"""Suites of our own, by name."""

_PAIRS, _OTHERS = "pairs.jsonl", "others.jsonl"
Read = TypeVar("Read")


def cold_questions(
    suite: str, categories: Sequence[str], limit: int | None
) -> tuple[Question, ...]:
    """Questions of a suite by name or file; raises UsageError."""
    return select(_suite(suite), categories, limit)


def warm_plan(
    warm: Warm, suite: str | None, categories: Sequence[str], limit: int | None, others: str | None
) -> WarmPlan:
    """What a warm run asks before and measures then; raises UsageError.

    `suite` is a file of pairs for "rewritten", else a suite; `others` are the earlier questions of
    "unseen".
    """
    if others is not None and warm != "unseen":
        raise UsageError("--others is for --warm unseen", "leave it out")
    if warm == "rewritten":
        pairs = read_pairs(Path(suite).expanduser()) if suite else _shipped(_PAIRS, read_pairs)
        return _rewritten(pairs, categories, limit)
    questions = cold_questions(suite or MIXED, categories, limit)
    if warm == "again":
        return WarmPlan(warm, questions, questions)
    earlier = _suite(others) if others else _shipped(_OTHERS, read_suite)
    return WarmPlan(warm, earlier, questions)


def _rewritten(
    pairs: Sequence[Rewritten], categories: Sequence[str], limit: int | None
) -> WarmPlan:
    seconds = select([pair.second for pair in pairs], categories, limit)
    chosen = set(seconds)
    firsts = tuple(pair.first for pair in pairs if pair.second in chosen)
    return WarmPlan("rewritten", firsts, seconds)


def _suite(name: str) -> tuple[Question, ...]:
    if name in SUITES:
        return _shipped(SUITES[name], read_suite)
    return read_suite(Path(name).expanduser())


def _shipped(name: str, read: Callable[[Path], Read]) -> Read:
    with resources.as_file(resources.files("edgespec.bench") / name) as path:
        return read(path)
