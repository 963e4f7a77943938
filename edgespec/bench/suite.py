"""Prompts to measure with: Spec-Bench's JSON lines, and a small suite of our own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import UsageError


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a suite: user turns that follow each other."""

    id: str
    category: str
    turns: tuple[str, ...]


def read_suite(path: Path) -> tuple[Question, ...]:
    """Read `question_id, category, turns` objects, one a line; UsageError names a bad line."""
    try:
        # Not splitlines: JSON may hold U+2028 and its kin as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the suite {path}: {error}", "check the path") from error
    questions = tuple(
        _question(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    if not questions:
        raise UsageError(f"the suite {path} has no questions", "give a file of JSON lines")
    return questions


def select(
    questions: Sequence[Question], categories: Collection[str], limit: int | None
) -> tuple[Question, ...]:
    """The questions of `categories` (all if empty), at most `limit` of each; raises UsageError."""
    known = {question.category for question in questions}
    unknown = set(categories) - known
    if unknown:
        raise UsageError(
            f"the suite has no category {', '.join(sorted(unknown))}",
            f"it has {', '.join(sorted(known))}",
        )
    taken: Counter[str] = Counter()
    chosen = []
    for question in questions:
        if categories and question.category not in categories:
            continue
        if limit is None or taken[question.category] < limit:
            taken[question.category] += 1
            chosen.append(question)
    return tuple(chosen)


def _question(line: str, where: str) -> Question:
    try:
        value = json.loads(line)
        turns = value["turns"]
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise TypeError("turns must be a list of strings")
        if not turns:
            raise TypeError("turns must not be empty")
        return Question(str(value["question_id"]), str(value["category"]), tuple(turns))
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{where} is not a question: {error}",
            "each line must be a JSON object with question_id, category and turns",
        ) from error
