"""Chats on disk are what a plain model of them is, whatever is done, and after every restart."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import on_disk
from train_support import ABOUT, random_lora

from edgespec.cache.chats import writers
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import LEARNED
from edgespec.cache.upkeep.check import problems
from edgespec.chats import ChatSettings, MessageState, path_to
from edgespec.errors import StorageError
from edgespec.learning.lora import read_about, write_lora
from edgespec.learning.trainings import TrainingStore
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
    settings: ChatSettings = field(default_factory=ChatSettings)
    is_pinned: bool = False
    is_deleted: bool = False
    spoken: int = 0


ACTION = st.tuples(
    st.sampled_from(
        (
            *("new", "begin", "edit", "another", "partial", "finish", "cut", "reopen"),
            *("withdraw", "choose", "set", "rename", "pin", "delete", "restore", "copy"),
            "restart",
        )
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


# -- restarts and others ----------------------------------------------------------------------


def test_an_answer_that_was_killed_is_cut_at_what_was_kept_of_it(path: Path) -> None:
    with opened(path) as store:
        begun = store.begin(None, None, "Why is the sky blue?")
        store.partial(begun.answer, "Because of scattering", [(21, "target")])
        store._connection.execute("UPDATE messages SET writer = ? WHERE state = 'open'", (NOBODY,))
        chat = store.load(begun.chat)
        assert chat is not None and chat.messages[1].state == "cut"
    with opened(path) as store:
        chat = store.load(begun.chat)
        assert chat is not None
        assert [(each.content, each.state) for each in chat.messages] == [
            ("Why is the sky blue?", "done"),
            ("Because of scattering", "cut"),
        ]
        assert chat.messages[1].sources == ((21, "target"),)
        assert [hit.message for hit in store.search("scatter")] == [begun.answer]


def test_an_answer_that_another_writes_is_open_and_left_to_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as store:
        begun = store.begin(None, None, "q")
        monkeypatch.setattr("edgespec.cache.chats.chat_rows.this_writer", lambda: "another")
        with opened(path) as other:
            chat = other.load(begun.chat)
            assert chat is not None and chat.messages[1].state == "open"
            with pytest.raises(StorageError, match="another EdgeSpec writes this answer"):
                other.reopen(begun.answer)
        store.finish(begun.answer, "a", "cut")
        with opened(path) as other:
            other.reopen(begun.answer)


@pytest.mark.parametrize("name", [NOBODY, "", "x 1", "1 2 3", f"{10**30} 0", None])
def test_what_names_no_process_writes_nothing(name: str | None) -> None:
    assert not writers.is_writing(name)


def test_two_chats_on_one_conversation_lose_nothing(path: Path) -> None:
    with opened(path) as one, opened(path) as two:
        first = one.begin(None, None, "q")
        one.finish(first.answer, "a", "done")
        begun = [store.begin(first.chat, first.answer, "and?") for store in (one, two)]
        for store, each, text in zip((one, two), begun, ("here", "there"), strict=True):
            store.partial(each.answer, text)
        for store, each, text in zip((two, one), begun[::-1], ("there", "here"), strict=True):
            store.finish(each.answer, text, "done")
        chat = one.load(first.chat)
    assert chat is not None and chat.tip == begun[1].answer
    beside = [each for each in chat.messages if each.parent == first.answer]
    assert [each.id for each in beside] == [each.question for each in begun]
    for each, text in zip(begun, ("here", "there"), strict=True):
        assert [m.content for m in path_to(chat.messages, each.answer)] == ["q", "a", "and?", text]


def test_what_is_said_in_a_deleted_chat_brings_it_back(store: ChatStore) -> None:
    begun = store.begin(None, None, "q")
    store.delete(begun.chat)
    assert store.recent() == [] and store.search("q") == [] and store.last() is None
    store.begin(begun.chat, begun.answer, "still there?")
    assert [head.id for head in store.recent()] == [begun.chat]


@pytest.mark.parametrize("has_taught", [True, False])
def test_what_drafters_learned_by_themselves_goes_with_a_purged_chat(
    path: Path, has_taught: bool
) -> None:
    recorded = on_disk(path)
    store = TrainingStore(path.parent / "adaptations")
    store.ensure()
    loras = [store.lora(ABOUT.target, name * 32) for name in "23"]
    for lora, by_itself in zip(loras, (True, False), strict=True):
        about = dataclasses.replace(ABOUT, by_itself=by_itself)
        write_lora(random_lora({"w": (8, 6)}), about, "llama", lora)
        store.merged(lora, "0" * 16).touch()
    asked = store.asked(loras[0])
    write_lora(random_lora({"w": (8, 6)}), ABOUT, "llama", asked)
    facts = Facts(recorded.database)
    facts.put(LEARNED, "a pair", {"sequence": 7})
    with opened(path) as chats:
        chat = chats.begin(None, None, "secret").chat
        if has_taught:
            recorded.add([1, 2, 3], conversation=chat)
        chats.delete(chat)
        recorded.connection.execute("UPDATE conversations SET deleted = 5")
        recorded.connection.commit()
    before = store.all()
    with opened(path):
        pass
    if has_taught:
        assert set(before) - set(store.all()) == {asked, store.merged(loras[0], "0" * 16)}
        assert read_about(loras[0]) == ABOUT, "what was asked for serves again"
    else:
        assert store.all() == before
    assert (facts.get(LEARNED, "a pair") is None) == has_taught
    recorded.database.close()


def test_deleted_chats_are_purged_later_with_what_they_taught(path: Path) -> None:
    recorded = on_disk(path)
    with opened(path) as store:
        chats = [store.begin(None, None, f"secret {number}").chat for number in range(3)]
        for chat in chats:
            recorded.add([1, 2, 3], conversation=chat)
        store.delete(chats[0])
        store.delete(chats[1])
        recorded.connection.execute("UPDATE conversations SET deleted = 5 WHERE id = ?", chats[:1])
        recorded.connection.commit()
    with opened(path) as store:
        assert recorded.count("conversations") == 2, "the other may be brought back"
        store.restore(chats[1])
        assert {head.id for head in store.recent()} == set(chats[1:])
        owners = recorded.connection.execute("SELECT DISTINCT conversation FROM sequences")
        assert {owner for (owner,) in owners} == set(chats[1:])
        for chat in chats[1:]:
            store.delete(chat)
    assert purge(recorded.connection, 1e12, most_s=-1) == 0, "in parts, if it takes long"
    assert purge(recorded.connection, 1e12) == 2
    assert recorded.count("messages") == recorded.count("sequences") == 0
    recorded.database.close()


# -- what goes wrong --------------------------------------------------------------------------


def test_what_is_not_there_is_told(store: ChatStore) -> None:
    begun = store.begin(None, None, "q")
    for attempt in (
        lambda: store.begin("nobody", None, "q"),
        lambda: store.begin("nobody", begun.answer, "q"),
        lambda: store.begin(begun.chat, 77, "q"),
        lambda: store.another(77),
        lambda: store.reopen(77),
        lambda: store.finish(77, "", "done"),
        lambda: store.withdraw(77),
        lambda: store.choose(begun.chat, 77),
        lambda: store.choose("nobody", begun.answer),
        lambda: store.rename("nobody", "x"),
        lambda: store.set("nobody", ChatSettings()),
        lambda: store.pin("nobody", True),
        lambda: store.delete("nobody"),
        lambda: store.restore("nobody"),
        lambda: store.copy("nobody", begun.answer),
        lambda: store.copy(begun.chat, 77),
    ):
        with pytest.raises(StorageError, match=r"there is no (chat|message) "):
            attempt()
    assert store.load("nobody") is None
    store.partial(77, "nothing happens")
    chat = store.load(begun.chat)
    assert chat is not None and len(chat.messages) == 2 and len(store.recent()) == 1


def test_a_locked_database_is_told_and_nothing_is_half_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.runtime.history._BUSY_TIMEOUT_S", 0.05)
    with opened(path) as store:
        begun = store.begin(None, None, "q")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="is locked by another program; try again"):
                store.begin(begun.chat, begun.answer, "and?")
            with opened(path) as other:
                assert len(other.recent()) == 1, "reading goes on"
            blocker.execute("ROLLBACK")
        store.finish(begun.answer, "a", "done")
        chat = store.load(begun.chat)
    assert chat is not None and len(chat.messages) == 2


def test_a_full_disk_is_told_and_what_was_kept_stays(path: Path) -> None:
    with opened(path) as store:
        begun = store.begin(None, None, "q")
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count={pages + 2}").fetchall()
        with pytest.raises(StorageError, match=r"is full: no room for more; free disk space"):
            store.finish(begun.answer, "word " * 100_000, "done")
        store.partial(begun.answer, "short")
        chat = store.load(begun.chat)
        assert chat is not None and chat.messages[1].content == "short"


def test_where_nothing_can_be_kept_a_chat_goes_on_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    with open_history(tmp_path / "file" / "edgespec.db", told.append) as store:
        begun = store.begin(None, None, "q")
        assert store.load(begun.chat) is not None
    assert len(told) == 1 and "nothing is remembered" in told[0]


def test_a_damaged_message_hides_no_other(path: Path) -> None:
    with opened(path) as store:
        begun = store.begin(None, None, "one")
        store.finish(begun.answer, "two", "done", "m", {"tokens": 1}, [(3, "target")])
        later = store.begin(begun.chat, begun.answer, "three")
        execute = store._connection.execute
        execute("UPDATE messages SET content = x'00ff', figures = '{', sources = '[[1]]'"
                " WHERE id = ?", (begun.answer,))  # fmt: skip
        execute("UPDATE messages SET content = CAST(x'ff41' AS TEXT) WHERE id = ?",
                (later.question,))  # fmt: skip
        chat = store.load(begun.chat)
        assert chat is not None
        shown = path_to(chat.messages, chat.tip)
        assert [each.content for each in shown] == ["one", "", "\N{REPLACEMENT CHARACTER}A", ""]
        execute("DELETE FROM messages WHERE id = ?", (begun.answer,))
        execute("UPDATE messages SET parent = 99 WHERE id = ?", (later.answer,))
        execute("UPDATE conversations SET tip = 'x', settings = '[', origin = 7")
        chat = store.load(begun.chat)
        assert chat is not None and (chat.settings, chat.head.origin) == (ChatSettings(), "chat")
        assert [each.id for each in path_to(chat.messages, chat.tip)] == [
            *(begun.question, later.question, later.answer)
        ]


def test_ids_may_be_cut_short(store: ChatStore) -> None:
    chats = [store.begin(None, None, "q").chat for _ in range(3)]
    for chat in chats:
        assert store.named(chat) == [chat]
    assert store.named("") == sorted(chats)[:2] or len(store.named("")) == 2
    assert store.named("%") == store.named("no") == []
    assert store.last() == chats[-1]


def test_who_keeps_something_of_a_chat_hears_that_it_is_deleted(tmp_path: Path) -> None:
    deleted: list[str] = []
    with open_history(tmp_path / "edgespec.db", told_nothing, deleted.append) as store:
        begun = store.begin(None, None, "Hi")
        store.delete(begun.chat)
        store.restore(begun.chat)
    assert deleted == [begun.chat]
