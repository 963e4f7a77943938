"""Which conversation an answer belongs to, and that both are kept and forgotten together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import VOCABULARY, Talks, in_memory, on_disk

from edgespec.cache.chats.conversations import Conversations, NewMessage
from edgespec.cache.chats.journal import Entry, Journal
from edgespec.cache.chats.search import search
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_database, transaction
from edgespec.cache.tokens.eviction import evict, token_bytes
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cache.upkeep.forget import Forgetting, Forgotten
from edgespec.chats import ChatSettings

Turns = list[tuple[str, str]]
TEXTS = st.text(max_size=12)


def ask(journal: Journal, turns: Turns, question: str, answer: str) -> Entry:
    """Ask in a conversation, which `turns` becomes after the answer."""
    turns.append(("user", question))
    entry = journal.entry(turns, answer)
    turns.append(("assistant", answer))
    return entry


class Written:
    """What entries leave in a database."""

    def __init__(self) -> None:
        self._recorded = in_memory()

    def down(self, entry: Entry) -> str:
        with transaction(self._recorded.connection):
            Conversations(self._recorded.connection).follow(
                entry.conversation, entry.title, entry.said
            )
        return entry.conversation

    def texts(self, conversation: str) -> Turns:
        return Talks(self._recorded.connection).turns(conversation)

    def followed(self, conversation: str) -> list[tuple[str, int | None]]:
        """Each message, and the place of the one that it follows."""
        turns = Conversations(self._recorded.connection).turns(conversation)
        return [(turn.content, turn.before) for turn in turns]


def test_a_conversation_that_grows_stays_one() -> None:
    journal, turns = Journal(), [("system", "Be brief.")]
    first = ask(journal, turns, "What is rain?", "Water.")
    second = ask(journal, turns, "And snow?", "Frozen water.")
    assert first.conversation == second.conversation
    assert first.said == (
        NewMessage("system", "Be brief."),
        NewMessage("user", "What is rain?"),
        NewMessage("assistant", "Water."),
    )
    assert second.said == (
        *first.said,
        NewMessage("user", "And snow?"),
        NewMessage("assistant", "Frozen water."),
    )
    assert first.title == second.title == "What is rain?"


def test_the_same_first_question_begins_another_conversation() -> None:
    journal = Journal()
    entries = [ask(journal, [("system", "s")], "Hello", "Hi") for _ in range(2)]
    assert entries[0].conversation != entries[1].conversation
    assert entries[0].said == entries[1].said


def test_clients_may_strip_what_they_repeat() -> None:
    journal = Journal()
    first = journal.entry([("user", " Hello\n")], " Hi there\n")
    second = journal.entry([("user", "Hello"), ("assistant", "Hi there"), ("user", "More")], "ok")
    assert first.conversation == second.conversation
    assert first.said[1] == NewMessage("assistant", " Hi there\n"), "kept as it was said"


def test_an_answer_asked_for_again_stays_in_its_conversation() -> None:
    journal = Journal()
    turns: Turns = []
    first = ask(journal, turns, "One", "1")
    again = [journal.entry([*turns, ("user", "Two")], answer) for answer in ("2", "zwei")]
    assert {entry.conversation for entry in again} == {first.conversation}


def test_a_changed_past_is_another_conversation() -> None:
    journal = Journal()
    turns: Turns = []
    first = ask(journal, turns, "One", "1")
    changed = journal.entry([("user", "One!"), ("assistant", "1"), ("user", "Two")], "2")
    assert changed.conversation != first.conversation
    assert len(changed.said) == 4, "all that was said, since nothing of it is written down"


@given(st.lists(st.tuples(st.integers(0, 3), TEXTS, TEXTS), max_size=20))
def test_of_interleaved_conversations_each_is_written_down_whole(
    asked: list[tuple[int, str, str]],
) -> None:
    journal = Journal()
    written = Written()
    turns: dict[int, Turns] = {}
    names: dict[int, str] = {}
    for number, question, answer in asked:
        # A number in each first question, or two conversations could not be told apart.
        known = turns.setdefault(number, [("system", str(number))])
        entry = written.down(journal.question([*known, ("user", question)]))
        assert written.texts(entry) == [*known, ("user", question)]
        assert written.down(ask(journal, known, question, answer)) == entry
        assert names.setdefault(number, entry) == entry
    for number, said in turns.items():
        assert written.texts(names[number]) == said


def test_what_is_asked_again_and_answered_anew_are_versions() -> None:
    written, journal = Written(), Journal()
    turns: Turns = []
    name = written.down(ask(journal, turns, "One", "1"))
    for question in ("Two", "Two", "Or three"):  # the engine died, twice
        written.down(Entry(name, "One", journal.question([*turns, ("user", question)]).said))
    for answer in ("3", "drei"):
        said = journal.entry([*turns, ("user", "Or three")], answer).said
        written.down(Entry(name, "One", said))
    assert written.followed(name) == [
        *(("One", None), ("1", 0), ("Two", 1), ("Or three", 1), ("3", 3), ("drei", 3))
    ]


def test_what_a_chat_is_set_to_tell_the_model_comes_first() -> None:
    store = ChatStore(in_memory().connection)
    begun = store.begin(None, None, "One", ChatSettings(system="Be brief."))
    store.another(begun.question)
    turns = Conversations(store._connection).turns(begun.chat)
    assert [(turn.role, turn.content, turn.before) for turn in turns] == [
        ("system", "Be brief.", None),
        ("user", "One", 0),
        ("assistant", "", 1),
        ("assistant", "", 1),
    ]


def test_only_the_latest_can_be_continued() -> None:
    journal = Journal(most_known=2)
    several: list[Turns] = [[("system", str(number))] for number in range(3)]
    first = [ask(journal, turns, "q", "a").conversation for turns in several]
    second = [ask(journal, turns, "q", "a").conversation for turns in several[1:]]
    assert second == first[1:]
    assert ask(journal, several[0], "q", "a").conversation != first[0]


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("  What\n is  rain? ", "What is rain?"),
        ("word " * 40, ("word " * 16)[:79] + "…"),
        ("x" * 100_000, "x" * 79 + "…"),
        ("", ""),
    ],
)
def test_a_title_is_the_first_words(asked: str, title: str) -> None:
    assert Journal().entry([("system", "s"), ("user", asked)], "a").title == title


def test_letters_that_no_file_can_hold_become_escapes() -> None:
    entry = Journal().entry([("user", "a\udcffb")], "\ud800")
    assert [said.content for said in entry.said] == ["a\\udcffb", "\\ud800"]
    assert entry.title == "a\\udcffb"


def test_messages_and_tokens_are_written_together_and_forgotten_together(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    journal = Journal()
    turns: Turns = []
    with open_database(path) as database:
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with memory:
            for number in range(3):
                entry = ask(journal, turns, f"question {number}", f"answer {number}")
                memory.record([10, 11, 12 + number], [1, 2], entry)
            memory.record([7, 8, 9], [4, 5, 6])
            memory.note(journal.question([*turns, ("user", "question 3")]))
            turns.append(("user", "question 3"))
    recorded = on_disk(path)
    [known] = ChatStore(recorded.connection).recent()
    assert (known.title, known.num_messages, known.origin) == ("question 0", 7, "serve")
    assert Talks(recorded.connection).turns(known.id) == turns
    [hit] = search(recorded.connection, "question 2")
    assert hit.chat == known.id
    assert Forgetting(recorded.connection).conversation(known.id) == Forgotten(1, 7, 9)
    assert recorded.reader().lookup([1, 2, 10, 11]) is None
    assert recorded.reader().lookup([6, 7, 8]) is not None


def test_what_cannot_be_recorded_leaves_no_messages(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    with open_database(path) as database:
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with memory:
            memory.record([-1], [], Journal().entry([("user", "q")], "a"))
            assert memory.flush()
            assert "not remembered" in memory.notice
    assert on_disk(path).count("messages") == 0


# -- eviction ---------------------------------------------------------------------------------


def test_eviction_leaves_what_was_said() -> None:
    recorded = in_memory()
    talks = Talks(recorded.connection)
    for number in range(30):
        name = talks.start("t", f"c{number}")
        talks.add(name, "user", f"about {number} " * 400)
        tokens = [(number * 131 + i * (number + 3)) % 1000 for i in range(400)]
        recorded.add(tokens, conversation=name)
    before = token_bytes(recorded.connection)
    evict(recorded.connection, before // 2)
    assert 0 < token_bytes(recorded.connection) <= before // 2
    assert recorded.count("messages") == recorded.count("conversations") == 30
    evict(recorded.connection, 0)
    assert recorded.count("sequences") == 0 and recorded.count("messages") == 30
