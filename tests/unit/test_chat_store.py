"""Chats on disk are what a plain model of them is, whatever is done, and after every restart."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import Recorded, in_memory, on_disk

from edgespec.cache.chats import writers
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import connect, open_database, open_in_memory
from edgespec.cache.upkeep.check import problems
from edgespec.chats import ChatSettings, MessageState, path_to
from edgespec.errors import StorageError
from edgespec.runtime.history import open_history, purge

NOBODY = "1 0.00"
"""A writer that is gone: the first process began later than 1970."""


class Ticks:
    """A clock that goes on by a second each time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store() -> Iterator[ChatStore]:
    with ChatStore(open_in_memory().connection, clock=Ticks()) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edgespec.db"


def told_nothing(line: str) -> None:
    raise AssertionError(line)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ChatStore]:
    with open_history(path, told_nothing) as store:
        yield store


# -- the model --------------------------------------------------------------------------------


@dataclass
class Said:
    parent: int | None
    role: str
    content: str
    state: MessageState


@dataclass
class Talk:
    title: str
    messages: dict[int, Said] = field(default_factory=dict)
    tip: int | None = None
    settings: ChatSettings = ChatSettings()
    is_pinned: bool = False
    is_deleted: bool = False
    spoken: int = 0


ACTION = st.tuples(
    st.sampled_from(
        ["new", "begin", "edit", "another", "partial", "finish", "cut", "reopen", "withdraw"]
        + ["choose", "set", "rename", "pin", "delete", "restore", "copy", "restart"]
    ),
    st.integers(0, 50),
    st.text(max_size=8).map(lambda text: text.encode(errors="replace").decode()),
)


class Model:
    """A store, and what it should hold in plain Python."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.clock = Ticks()
        self.connection = connection
        self.store = ChatStore(connection, clock=self.clock)
        self.talks: dict[str, Talk] = {}
        self.num_spoken = 0

    def do(self, action: str, number: int, text: str) -> None:
        if action == "new" or not self.talks:
            self._begun(None, None, text)
        elif action == "restart":
            self.store = ChatStore(self.connection, clock=self.clock)
        else:
            name = list(self.talks)[number % len(self.talks)]
            getattr(self, f"_{action}")(name, self.talks[name], number, text)

    def _begun(self, name: str | None, parent: int | None, text: str) -> None:
        begun = self.store.begin(name, parent, text, ChatSettings(seed=1))
        talk = self.talks.setdefault(
            begun.chat, Talk(" ".join(text.split()), settings=ChatSettings(seed=1))
        )
        talk.messages[begun.question] = Said(parent, "user", text, "done")
        self._answered(talk, begun.question, begun.answer)

    def _answered(self, talk: Talk, question: int, answer: int) -> None:
        talk.messages[answer] = Said(question, "assistant", "", "open")
        self._spoken(talk, answer)
        talk.is_deleted = False

    def _spoken(self, talk: Talk, tip: int) -> None:
        self.num_spoken += 1
        talk.tip, talk.spoken = tip, self.num_spoken

    def _one(self, talk: Talk, role: str, number: int) -> int:
        some = [each for each, said in talk.messages.items() if said.role == role]
        return some[number % len(some)]

    def _begin(self, name: str, talk: Talk, _number: int, text: str) -> None:
        self._begun(name, talk.tip, text)

    def _edit(self, name: str, talk: Talk, number: int, text: str) -> None:
        self._begun(name, talk.messages[self._one(talk, "user", number)].parent, text)

    def _another(self, _name: str, talk: Talk, number: int, _text: str) -> None:
        question = self._one(talk, "user", number)
        self._answered(talk, question, self.store.another(question))

    def _partial(self, _name: str, talk: Talk, number: int, text: str) -> None:
        answer = self._one(talk, "assistant", number)
        self.store.partial(answer, text)
        if talk.messages[answer].state == "open":
            talk.messages[answer].content = text

    def _end(self, talk: Talk, number: int, text: str, state: MessageState) -> None:
        answer = self._one(talk, "assistant", number)
        self.store.finish(answer, text, state, "m", {"tokens": 2}, [(len(text), "target")])
        talk.messages[answer].content, talk.messages[answer].state = text, state

    def _finish(self, _name: str, talk: Talk, number: int, text: str) -> None:
        self._end(talk, number, text, "done")

    def _cut(self, _name: str, talk: Talk, number: int, text: str) -> None:
        self._end(talk, number, text, "cut")

    def _reopen(self, _name: str, talk: Talk, number: int, _text: str) -> None:
        answer = self._one(talk, "assistant", number)
        self.store.reopen(answer)
        talk.messages[answer].state = "open"

    def _withdraw(self, name: str, talk: Talk, number: int, _text: str) -> None:
        question = self._one(talk, "user", number)
        self.store.withdraw(question)
        below = [each for each, said in talk.messages.items() if said.parent == question]
        parents = {said.parent for said in talk.messages.values()}
        if any(
            talk.messages[each].content or talk.messages[each].state == "done" or each in parents
            for each in below
        ):
            return
        tip = talk.messages[question].parent
        for each in (question, *below):
            del talk.messages[each]
        while later := [each for each, said in talk.messages.items() if said.parent == tip]:
            tip = max(later)
        talk.tip = tip
        if not talk.messages:
            del self.talks[name]

    def _choose(self, name: str, talk: Talk, number: int, _text: str) -> None:
        talk.tip = list(talk.messages)[number % len(talk.messages)]
        self.store.choose(name, talk.tip)

    def _set(self, name: str, talk: Talk, number: int, text: str) -> None:
        talk.settings = ChatSettings(system=text, top_k=number, temperature=0.5)
        self.store.set(name, talk.settings)

    def _rename(self, name: str, talk: Talk, _number: int, text: str) -> None:
        talk.title = text
        self.store.rename(name, text)

    def _pin(self, name: str, talk: Talk, number: int, _text: str) -> None:
        talk.is_pinned = bool(number % 2)
        self.store.pin(name, talk.is_pinned)

    def _delete(self, name: str, talk: Talk, _number: int, _text: str) -> None:
        talk.is_deleted = True
        self.store.delete(name)

    def _restore(self, name: str, talk: Talk, _number: int, _text: str) -> None:
        talk.is_deleted = False
        self.store.restore(name)

    def _copy(self, name: str, talk: Talk, number: int, _text: str) -> None:
        if talk.is_deleted:
            return
        tip: int | None = list(talk.messages)[number % len(talk.messages)]
        assert tip is not None
        new = self.store.copy(name, tip)
        path = []
        while tip is not None:
            path.append(talk.messages[tip])
            tip = talk.messages[tip].parent
        loaded = self.store.load(new)
        assert loaded is not None and len(loaded.messages) == len(path)
        copied, last = Talk(talk.title, settings=talk.settings), None
        for message, said in zip(loaded.messages, reversed(path), strict=True):
            state = "cut" if said.state == "open" else said.state
            copied.messages[message.id] = Said(last, said.role, said.content, state)
            last = message.id
        assert last is not None
        self._spoken(copied, last)
        self.talks[new] = copied

    def check(self) -> None:
        shown = {name: talk for name, talk in self.talks.items() if not talk.is_deleted}
        order = sorted(shown, key=lambda name: (not shown[name].is_pinned, -shown[name].spoken))
        heads = self.store.recent(1000)
        assert [head.id for head in heads] == order
        assert [head.num_messages for head in heads] == [len(shown[n].messages) for n in order]
        for name, talk in self.talks.items():
            chat = self.store.load(name)
            if talk.is_deleted:
                assert chat is None
                continue
            assert chat is not None
            assert (chat.head.title, chat.head.is_pinned) == (talk.title, talk.is_pinned)
            assert (chat.tip, chat.settings) == (talk.tip, talk.settings)
            assert [
                (each.id, Said(each.parent, each.role, each.content, each.state))
                for each in chat.messages
            ] == sorted(talk.messages.items())
        asked = [
            (number, said.content)
            for talk in shown.values()
            for number, said in talk.messages.items()
            if said.role == "user"
        ]
        assert self.store.questions(1000) == [content for _, content in sorted(asked)]


@given(st.lists(ACTION, max_size=25))
def test_whatever_is_done_the_store_holds_what_a_plain_model_does(
    actions: list[tuple[str, int, str]],
) -> None:
    model = Model(open_in_memory().connection)
    for action in actions:
        model.do(*action)
    model.check()
    assert problems(model.connection) == []
    model.connection.close()
