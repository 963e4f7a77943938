"""Tasks for tools, as DrafterBench has them: is the chain of calls the right one?

The question tells which functions there are, one `def` a line; the answer is lines of Python that
call them. It is parsed and never run. A task that leaves out what a call needs must be answered
with the call `refuse` alone: drawing on the sheet regardless scores 0, like refusing what could be
done.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgespec.bench.scoring.order import share_in_order

REFUSAL = "refuse"

_MOST_CHARACTERS = 8_000  # what is longer is no answer to such a task, and may be made to nest
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)

Signatures = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call: what it passes, as Python writes it, None for what is no plain value."""

    name: str
    arguments: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Chain:
    """The calls that do a task, in order, one line of Python each."""

    calls: tuple[str, ...]

    @classmethod
    def of(cls, calls: Any) -> Chain:  # noqa: ANN401 - whatever is in the file
        """From a list of lines; raises TypeError for one that is no call with plain values."""
        if not isinstance(calls, list) or not calls:
            raise TypeError("calls must be a list of lines")
        for line in calls:
            found = list(_calls(line, {})) if isinstance(line, str) else []
            if len(found) != 1 or None in found[0].arguments.values():
                raise TypeError(f"{line!r} is no call with plain values")
        return cls(tuple(calls))

    def scores(self, turns: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
        """`chain`: right functions in the right order, half of it for their arguments."""
        signatures = _signatures(turns[-1])
        expected = list(_calls("\n".join(self.calls), signatures))
        given = list(_calls(texts[-1], signatures))
        if _refuses(expected) != _refuses(given):
            return {"chain": 0.0}
        return {"chain": share_in_order(expected, given, _likeness)}


def _refuses(calls: Sequence[_Call]) -> bool:
    return any(call.name == REFUSAL for call in calls)


def _likeness(expected: _Call, given: _Call) -> float:
    if expected.name != given.name:
        return 0.0
    num_right = sum(
        name in given.arguments and given.arguments[name] == value
        for name, value in expected.arguments.items()
    )
    most = max(len(expected.arguments), len(given.arguments))
    return 0.5 + 0.5 * (num_right / most if most else 1.0)


def _signatures(question: str) -> Signatures:
    """Parameters by function, in order, of the `def` lines in a question."""
    lines = [line for line in question.split("\n") if line.startswith("def ")]
    return {
        statement.name: [parameter.arg for parameter in statement.args.args]
        for statement in _statements("\n".join(lines))
        if isinstance(statement, ast.FunctionDef)
    }


def _calls(text: str, signatures: Signatures) -> Iterator[_Call]:
    """Calls that are statements of an answer, of its code blocks if it has any."""
    for statement in _statements("\n".join(_FENCED.findall(text)) or text):
        value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            yield _call(value.func.id, value, signatures.get(value.func.id, ()))


def _call(name: str, call: ast.Call, parameters: Sequence[str]) -> _Call:
    arguments: dict[str, str | None] = {}
    for index, value in enumerate(call.args):
        key = parameters[index] if index < len(parameters) else str(index)
        arguments[key] = _plain(value)
    for keyword in call.keywords:
        key = keyword.arg or "**"
        arguments[f"{key} again" if key in arguments else key] = _plain(keyword.value)
    return _Call(name, arguments)


def _plain(node: ast.expr) -> str | None:
    """A value as Python writes it: tuples as lists, whole numbers without a point."""
    try:
        return repr(_simplified(ast.literal_eval(node)))
    except _UNREADABLE:
        return None


def _simplified(value: Any) -> Any:  # noqa: ANN401 - any literal
    if isinstance(value, tuple | list):
        return [_simplified(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _statements(code: str) -> list[ast.stmt]:
    """The statements of code, or of each line that is code where not all of it is."""
    if len(code) > _MOST_CHARACTERS:
        return []
    try:
        return _parsed(code)
    except _UNREADABLE:
        return [statement for line in code.split("\n") for statement in _line(line)]


def _line(line: str) -> list[ast.stmt]:
    try:
        return _parsed(line.strip())
    except _UNREADABLE:
        return []


def _parsed(code: str) -> list[ast.stmt]:
    with warnings.catch_warnings():  # of odd escapes and the like: it is not our code
        warnings.simplefilter("ignore")
        return ast.parse(code).body
