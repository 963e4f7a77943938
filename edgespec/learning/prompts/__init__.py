"""What a target is asked so that drafters learn from its answers: conversations of our own words.

A file of `kinds/` holds how many conversations of a kind there are, what is asked, and with what
they go on; one of `pools/` holds what the placeholders of these texts can be:

    {name}, {name2}         an entry of the pool `name`, and another one
    {passage.question}      a field of an entry; one of them, if the field is a list
    {3-9}, {10-80/5}        a whole number drawn from a range, in steps

Entries are dealt like cards, so that each is used before one comes again. Nothing here may be
asked by a benchmark: what is learned would measure itself. Chance is that of `Random.random`,
which stays the same over versions of Python, and so does what is asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import Any

from edgespec.types import Message

_PLACEHOLDER = re.compile(
    r"\{(?:(?P<low>\d+)-(?P<high>\d+)(?:/(?P<step>\d+))?"
    r"|(?P<pool>[a-z_]+)(?P<other>\d?)(?:\.(?P<field>[a-z]+))?)\}"
)
_TRIES = 40
"""How often a text is filled anew, once all that it gave was asked before, until it is left out."""
_SECOND_FOLLOW_UP = 0.25


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation: what is asked first, and what comes after each answer, from the user."""

    number: int
    kind: str
    messages: tuple[Message, ...]
    follow_ups: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names what is asked first, wherever it stands."""
        told = json.dumps([(message.role, message.content) for message in self.messages])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@cache
def all_asked() -> tuple[Asked, ...]:
    """All conversations, always the same; any some hundred in a row have the kinds in their shares.

    >>> all_asked()[7].messages[-1].role
    'user'
    """
    placed = []
    cards = _Cards(Random(16))
    pools = {name: entries for file in _read("pools").values() for name, entries in file.items()}
    for kind, told in sorted(_read("kinds").items()):
        asked = cards.shuffled(_asked_of(told, pools, cards))
        placed += [((at + 0.5) / len(asked), kind, *found) for at, found in enumerate(asked)]
    placed.sort(key=lambda found: found[:2])
    return tuple(Asked(number, *found[1:]) for number, found in enumerate(placed))


def _read(folder: str) -> dict[str, Any]:
    """The JSON files of a folder by their names without the ending."""
    files = resources.files("edgespec.learning.prompts").joinpath(folder).iterdir()
    found = {file.name: file.read_text(encoding="utf-8") for file in files}
    return {name.removesuffix(".json"): json.loads(found[name]) for name in sorted(found)}


class _Cards:
    """Entries of lists that live on, each list dealt to its end before it is shuffled anew."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._left: dict[int, list[Any]] = {}

    def shuffled(self, entries: Sequence[Any]) -> list[Any]:
        return sorted(entries, key=lambda _: self.chance.random())

    def deal(self, entries: list[Any]) -> Any:  # noqa: ANN401 - whatever is in the file
        left = self._left.setdefault(id(entries), [])
        if not left:
            left += self.shuffled(entries)
        return left.pop()


class _Filler:
    """Fills the placeholders of one conversation; a name means the same entry in all of it."""

    def __init__(self, pools: dict[str, list[Any]], cards: _Cards) -> None:
        self._pools = pools
        self._cards = cards
        self._chosen: dict[str, Any] = {}

    def fill(self, text: str) -> str:
        return _PLACEHOLDER.sub(self._value, text)

    def _value(self, found: re.Match[str]) -> str:
        if found["low"]:
            numbers = range(int(found["low"]), int(found["high"]) + 1, int(found["step"] or 1))
            return str(numbers[int(self._cards.chance.random() * len(numbers))])
        value = self._entry(found["pool"], found["pool"] + found["other"])
        if found["field"]:
            value = value[found["field"]]
        return str(self._cards.deal(value) if isinstance(value, list) else value)

    def _entry(self, pool: str, name: str) -> Any:  # noqa: ANN401 - whatever is in the file
        while name not in self._chosen:
            entry = self._cards.deal(self._pools[pool])
            if entry not in self._chosen.values():
                self._chosen[name] = entry
        return self._chosen[name]


def _asked_of(
    told: dict[str, Any], pools: dict[str, list[Any]], cards: _Cards
) -> list[tuple[tuple[Message, ...], tuple[str, ...]]]:
    """As many conversations of a kind as its file says, from each of its texts in turn."""
    found: dict[str, tuple[tuple[Message, ...], tuple[str, ...]]] = {}
    texts = [text if isinstance(text, dict) else {"ask": text} for text in told["asked"]]
    while texts and len(found) < told["number"]:
        for text in cards.shuffled(texts):
            user, filler = _new(text["ask"], found, pools, cards)
            if user in found:
                texts.remove(text)
                continue
            system = text.get("system") or _system(told, pools, cards)
            first = (Message("system", filler.fill(system)),) if system else ()
            later = tuple(map(filler.fill, _follow_ups(text, told, cards)))
            found[user] = ((*first, Message("user", user)), later)
    return list(found.values())[: told["number"]]


def _new(
    text: str, found: Container[str], pools: dict[str, list[Any]], cards: _Cards
) -> tuple[str, _Filler]:
    """`text` filled so that it is not in `found`, if that is still possible, and what filled it."""
    for _ in range(_TRIES):
        filler = _Filler(pools, cards)
        user = filler.fill(text)
        if user not in found:
            break
    return user, filler


def _system(told: dict[str, Any], pools: dict[str, list[Any]], cards: _Cards) -> str:
    """A system message for the share of a kind's conversations that have one, or none."""
    drawn = cards.chance.random() < told["systems"]
    return str(cards.deal(pools["system"])) if drawn else ""


def _follow_ups(text: dict[str, Any], told: dict[str, Any], cards: _Cards) -> list[str]:
    """None, one or two; the first is of the text's own if it has any."""
    if cards.chance.random() >= told["continued"]:
        return []
    said = [cards.deal(text.get("then", told["follow_ups"]))]
    if cards.chance.random() < _SECOND_FOLLOW_UP:
        said.append(cards.deal(told["follow_ups"]))
    return list(dict.fromkeys(said))
