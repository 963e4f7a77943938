"""Questions to measure with: Spec-Bench's JSON lines, and suites of our own in the same form."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from edgespec.bench.scoring import Check, check_of
from edgespec.bench.scoring.schema import schema_text
from edgespec.errors import UsageError
from edgespec.types import CompletionRequest, Constraint, Message, SamplingParams

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a suite: user turns that follow each other.

    Each answer is held to `schema`, the text of a JSON schema, and ends after `max_tokens`, if
    there are any. `check` is what the answers are compared with.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    schema: str = ""
    max_tokens: int | None = None
    check: Check | None = None

    def request(
        self, messages: Sequence[Message], sampling: SamplingParams, max_tokens: int
    ) -> CompletionRequest:
        """What is asked with `messages`; the question's own schema and length come first."""
        if self.schema:
            constraint = Constraint("json_schema", self.schema)
            sampling = dataclasses.replace(sampling, constraint=constraint)
        return CompletionRequest(tuple(messages), sampling, self.max_tokens or max_tokens)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A question, and one on the same matter that is asked later."""

    first: Question
    second: Question


def read_suite(path: Path) -> tuple[Question, ...]:
    """Read `question_id, category, turns` objects, one a line; UsageError names a bad line.

    `schema`, `max_tokens` and `check` may be there, too.
    """
    return tuple(
        _parsed(line, where, "question_id, category and turns", _question)
        for line, where in _lines(path)
    )


def read_pairs(path: Path) -> tuple[Rewritten, ...]:
    """Read `pair_id, category, first, second` objects, one a line; UsageError names a bad line.

    `first` and `second` are turns as in `read_suite`.
    """
    return tuple(
        _parsed(line, where, "pair_id, category, first and second", _rewritten)
        for line, where in _lines(path)
    )


def read_days(path: Path) -> tuple[tuple[Question, ...], ...]:
    """Read `question_id, day, turns` objects, one a line; UsageError names a bad line.

    One tuple a day, in the days' order; a question's category is its day.
    """
    found = [
        _parsed(line, where, "question_id, day and turns", _of_day) for line, where in _lines(path)
    ]
    found.sort(key=lambda entry: entry[0])
    return tuple(
        tuple(question for _, question in day) for _, day in groupby(found, lambda entry: entry[0])
    )


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a suite that hold something, and where they are; raises UsageError."""
    try:
        # Not splitlines: JSON may hold U+2028 and its kin as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the suite {path}: {error}", "check the path") from error
    found = [
        (line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise UsageError(f"the suite {path} has no questions", "give a file of JSON lines")
    return found


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


def _parsed(line: str, where: str, form: str, read: Callable[[Any], Parsed]) -> Parsed:
    try:
        return read(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{where} is not a question: {error}", f"each line must be a JSON object with {form}"
        ) from error


def _question(value: Any) -> Question:  # noqa: ANN401 - whatever is in the file
    turns, schema, limit = _turns(value["turns"]), value.get("schema"), value.get("max_tokens")
    if limit is not None and not _is_count(limit):
        raise TypeError("max_tokens must be a number of at least 1")
    return Question(
        str(value["question_id"]),
        str(value["category"]),
        turns,
        "" if schema is None else schema_text(schema),
        limit,
        None if value.get("check") is None else check_of(value["check"]),
    )


def _rewritten(value: Any) -> Rewritten:  # noqa: ANN401 - whatever is in the file
    name, category = str(value["pair_id"]), str(value["category"])
    return Rewritten(
        Question(f"{name} first", category, _turns(value["first"])),
        Question(name, category, _turns(value["second"])),
    )


def _of_day(value: Any) -> tuple[int, Question]:  # noqa: ANN401 - whatever is in the file
    day = value["day"]
    if not _is_count(day):
        raise TypeError("day must be a number of at least 1")
    return day, Question(str(value["question_id"]), f"day {day}", _turns(value["turns"]))


def _is_count(value: Any) -> bool:  # noqa: ANN401 - whatever is in the file
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _turns(turns: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever is in the file
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise TypeError("turns must be a list of strings")
    if not turns:
        raise TypeError("turns must not be empty")
    return tuple(turns)
