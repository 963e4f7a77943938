r"""GBNF, llama.cpp's notation for grammars, in Lark's notation as llguidance reads it.

llguidance reads an answer as a compiler does: a lexer cuts it into terminals, each as long as it
can be, and a parser puts these together. GBNF knows no such cut. So whatever is regular becomes one
terminal: a whole grammar in which no rule comes back to itself, which is then exact, or what stands
between two recursive rules, which is exact unless it could be longer than it is meant to be.

    root ::= "[" item ("," item)* "]"      start: r0
    item ::= [0-9]+ | root                 r0: "[" r1 ("," r1)* "]"
                                           L0: /[\x{30}-\x{39}]/+
                                           r1: L0 | r0
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgespec.errors import GrammarError

_MOST_NESTED = 25  # llguidance takes 29

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<defined>::=)
    |(?P<name>[A-Za-z0-9_-]+)
    |(?P<literal>"(?:\\.|[^"\\])*")
    |(?P<letters>\[(?:\\.|[^\]\\])*\])
    |(?P<repeated>[*+?]|\{\s*(?:\d{1,9}\s*)?(?:,\s*(?:\d{1,9}\s*)?)?\})
    |(?P<mark>[|().])""",
    re.VERBOSE | re.DOTALL,
)
_LETTER = re.compile(
    r"""\\(?:x(?P<x>[0-9A-Fa-f]{2})|u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|(?P<short>.))
    |(?P<plain>[^\\])""",
    re.VERBOSE | re.DOTALL,
)
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_TIMES: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


@dataclass(frozen=True, slots=True)
class _Name:
    """A reference to a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class _Terminal:
    """A literal or a class of letters, as Lark writes it."""

    lark: str


@dataclass(frozen=True, slots=True)
class _Choice:
    """Sequences of which one is taken."""

    options: tuple[tuple[_Item, ...], ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """What stands in a sequence so many times; no `high` means without end."""

    what: _Name | _Terminal | _Choice
    low: int = 1
    high: int | None = 1

    def names(self) -> Iterator[str]:
        """The rules that it refers to."""
        if isinstance(self.what, _Name):
            yield self.what.name
        elif isinstance(self.what, _Choice):
            yield from _names(self.what)


def gbnf_to_lark(text: str) -> str:
    """The Lark grammar of a GBNF grammar; raises GrammarError, also for what is not known here."""
    rules = _Parser(text).rules()
    for choice in rules.values():
        for name in _names(choice):
            if name not in rules:
                raise GrammarError(f"the grammar has no rule named {name}", "define it")
    if "root" not in rules:
        raise GrammarError("the grammar has no rule named root", "give the whole answer this name")
    return _Writer(rules).lark()


class _Parser:
    """Reads rules; line breaks are spaces, since the next rule begins with a name and `::=`."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def rules(self) -> dict[str, _Choice]:
        rules: dict[str, _Choice] = {}
        while self._kind() is not None:
            if self._kind() != "name" or self._kind(1) != "defined":
                raise _unexpected(self._take(), "a rule begins with its name and ::=")
            name = self._take()
            self._take()
            if name in rules:
                raise GrammarError(f"the grammar defines {name} twice", "rename one of the rules")
            rules[name] = self._choice()
        return rules

    def _choice(self) -> _Choice:
        options = [self._sequence()]
        while self._text() == "|":
            self._take()
            options.append(self._sequence())
        return _Choice(tuple(options))

    def _sequence(self) -> tuple[_Item, ...]:
        items: list[_Item] = []
        while (what := self._atom()) is not None:
            times = _times(self._take()) if self._kind() == "repeated" else (1, 1)
            items.append(_Item(what, *times))
        return tuple(items)

    def _atom(self) -> _Name | _Terminal | _Choice | None:
        kind = self._kind()
        if kind == "name" and self._kind(1) != "defined":
            return _Name(self._take())
        if kind == "literal":
            return _Terminal(_string("".join(_letters(self._take()[1:-1]))))
        if kind == "letters":
            return _Terminal(f"/{_class(self._take())}/")
        if self._text() == ".":
            self._take()
            return _Terminal("/(?s:.)/")
        return self._group() if self._text() == "(" else None

    def _group(self) -> _Choice:
        self._take()
        self._depth += 1
        if self._depth > _MOST_NESTED:
            raise GrammarError(
                f"the grammar nests more than {_MOST_NESTED} brackets",
                "give parts rules of their own",
            )
        choice = self._choice()
        if self._text() != ")":
            raise GrammarError("the grammar has an open bracket", "close it")
        self._take()
        self._depth -= 1
        return choice

    def _kind(self, ahead: int = 0) -> str | None:
        place = self._next + ahead
        return self._tokens[place][0] if place < len(self._tokens) else None

    def _text(self) -> str | None:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else None

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][1]


class _Writer:
    """Writes rules as Lark: `start` first, then numbered terminals (T) and rules (r)."""

    def __init__(self, rules: dict[str, _Choice]) -> None:
        self._rules = rules
        self._numbers = {name: number for number, name in enumerate(rules)}
        self._regular = _regular(rules)
        self._lines: list[str] = []
        self._num_lifted = 0

    def lark(self) -> str:
        self._lines.append(f"start: {self._name('root')}")
        for name, choice in self._rules.items():
            text = self._options(choice, is_regular=name in self._regular)
            self._lines.append(f"{self._name(name)}: {text}")
        return "\n".join(self._lines) + "\n"

    def _name(self, name: str) -> str:
        return f"{'T' if name in self._regular else 'r'}{self._numbers[name]}"

    def _is_regular(self, item: _Item) -> bool:
        return all(name in self._regular for name in item.names())

    def _options(self, choice: _Choice, *, is_regular: bool) -> str:
        write = self._terminal if is_regular else self._mixed
        return " | ".join(write(option) for option in choice.options)

    def _terminal(self, items: Iterable[_Item]) -> str:
        return " ".join(map(self._part, items)) or '""'

    def _mixed(self, items: Iterable[_Item]) -> str:
        """A sequence of a recursive rule; what is regular between others is one terminal."""
        parts: list[str] = []
        for is_regular, group in itertools.groupby(items, self._is_regular):
            run = list(group)
            parts += [self._lifted(run)] if is_regular else map(self._part, run)
        return " ".join(parts) or '""'

    def _lifted(self, items: Sequence[_Item]) -> str:
        """The name of a terminal of its own."""
        first, *others = items
        if not others and not isinstance(first.what, _Choice) and first.low == first.high == 1:
            return self._part(first)
        name = f"L{self._num_lifted}"
        self._num_lifted += 1
        self._lines.append(f"{name}: {self._terminal(items)}")
        return name

    def _part(self, item: _Item) -> str:
        if item.high == 0:
            return '""'
        what = item.what
        if isinstance(what, _Name):
            text = self._name(what.name)
        elif isinstance(what, _Terminal):
            text = what.lark
        else:
            text = f"({self._options(what, is_regular=self._is_regular(item))})"
        return text + _suffix(item.low, item.high)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _unexpected(text[place : place + 12], "see llama.cpp's description of GBNF")
        place = match.end()
        if match.lastgroup != "space":
            yield str(match.lastgroup), match[0]


def _regular(rules: dict[str, _Choice]) -> set[str]:
    """The rules from which no rule comes back to itself."""
    waits_for = {name: set(_names(choice)) for name, choice in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, used in waits_for.items():
        for other in used:
            users[other].append(name)
    ready = [name for name, used in waits_for.items() if not used]
    regular: set[str] = set()
    while ready:
        name = ready.pop()
        regular.add(name)
        for user in users[name]:
            waits_for[user].discard(name)
            if not waits_for[user]:
                ready.append(user)
    return regular


def _names(choice: _Choice) -> Iterator[str]:
    for option in choice.options:
        for item in option:
            yield from item.names()


def _times(text: str) -> tuple[int, int | None]:
    if text in _TIMES:
        return _TIMES[text]
    low, comma, high = (part.strip() for part in text[1:-1].partition(","))
    least, most = int(low or 0), (int(high) if high else None) if comma else int(low or 0)
    if most is not None and most < least:
        raise GrammarError(f"the grammar repeats {{{least},{most}}} times", "swap the numbers")
    return least, most


def _suffix(low: int, high: int | None) -> str:
    if (low, high) == (1, 1):
        return ""
    for sign, times in _TIMES.items():
        if times == (low, high):
            return sign
    return f"{{{low},{'' if high is None else high}}}"


def _letters(text: str) -> Iterator[str]:
    """The letters that `text` stands for, escapes resolved."""
    for match in _LETTER.finditer(text):
        if match["plain"] is not None:
            yield match["plain"]
        elif match["short"] is not None:
            if match["short"] not in _SHORT:
                raise GrammarError(
                    f"the grammar has the escape {match[0]!r}", "write \\x and digits"
                )
            yield _SHORT[match["short"]]
        else:
            yield _letter(int(match["x"] or match["u"] or match["U"], 16))


def _letter(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise GrammarError(f"the grammar names U+{code:04X}, which is no letter", "leave it out")
    return chr(code)


def _string(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def _class(text: str) -> str:
    """A class of letters as a regular expression, every letter by its number."""
    inner = text[1:-1]
    is_negated = inner.startswith("^")
    pieces = [match[0] for match in _LETTER.finditer(inner, int(is_negated))]
    letters = ["".join(_letters(piece)) for piece in pieces]
    ranges: list[str] = []
    place = 0
    while place < len(letters):
        first = last = letters[place]
        place += 1
        if pieces[place : place + 1] == ["-"] and place + 1 < len(letters):
            last = letters[place + 1]
            place += 2
        if last < first:
            raise GrammarError(f"the grammar has the range {first!r} to {last!r}", "swap them")
        ranges.append(_code(first) if first == last else f"{_code(first)}-{_code(last)}")
    if not ranges:
        raise GrammarError(f"the grammar has the class {text}, which holds no letter", "fill it")
    return f"[{'^' if is_negated else ''}{''.join(ranges)}]"


def _code(letter: str) -> str:
    return f"\\x{{{ord(letter):x}}}"


def _unexpected(text: str, remedy: str) -> GrammarError:
    return GrammarError(f"the grammar has {text!r} where it cannot stand", remedy)
