"""The open conversation over a real history in memory: versions, what is shown, what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.chats import ChatMessage, History, path_to
from edgespec.errors import StorageError
from edgespec.runtime.history import open_incognito
from edgespec.tui.options import ChatOptions
from edgespec.tui.session import CONTINUED, Asked, Session
from edgespec.tui.settings import with_setting
from edgespec.types import Message


def open_session(history: History | None = None, system: str | None = None) -> Session:
    return Session(history or open_incognito(), ChatOptions(system=system), lambda _line: None)


def said(session: Session) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in session.path]


def turn(session: Session, question: str, answer: str) -> Asked:
    asked = session.ask(question)
    session.finish(asked.answer, answer, "done")
    return asked


def prompt(asked: Asked) -> list[tuple[str, str]]:
    assert not isinstance(asked.request.prompt, str)
    return [(message.role, message.content) for message in asked.request.prompt]


def step(session: Session, message: int, by: int) -> bool:
    """Show the version so many places further, if there is one."""
    versions = session.versions(message)
    place = versions.index(message) + by
    if 0 <= place < len(versions):
        session.go_to(versions[place])
        return True
    return False


def test_a_request_holds_all_that_was_said() -> None:
    session = open_session(system="Be brief.")
    turn(session, "Hi", "Ho")
    asked = session.ask("And?")
    assert prompt(asked) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Ho"),
        ("user", "And?"),
    ]
    assert asked.request.conversation == session.chat


def test_a_question_is_kept_before_it_is_answered() -> None:
    history = open_incognito()
    session = open_session(history)
    asked = session.ask("Hi")
    session.partial(asked.answer, "Ho ho", [(5, "target")])
    assert session.chat is not None
    kept = history.load(session.chat)
    assert kept is not None
    assert [(each.content, each.state) for each in kept.messages] == [
        ("Hi", "done"),
        ("Ho ho", "open"),
    ]
    after_a_kill = open_session(history)
    after_a_kill.open(session.chat)
    assert after_a_kill.path[-1].state == "cut"


def test_versions_stand_beside_each_other() -> None:
    session = open_session()
    first = turn(session, "one", "1")
    turn(session, "two", "2")
    session.finish(session.edit(first.question, "uno").answer, "I", "done")
    assert said(session) == [("user", "uno"), ("assistant", "I")]
    again = session.again(session.path[0].id)
    session.finish(again.answer, "i", "done")
    assert said(session)[-1] == ("assistant", "i")
    assert step(session, session.path[0].id, -1)
    assert [text for _, text in said(session)] == ["one", "1", "two", "2"]
    assert not step(session, session.path[0].id, -1)
    assert step(session, session.path[0].id, 1)
    assert [text for _, text in said(session)] == ["uno", "i"]


def test_another_answer_is_drawn_with_another_seed_and_the_plain_one_with_the_same() -> None:
    session = open_session()
    asked = session.ask("Hi")
    session.finish(asked.answer, "a", "done", figures={"seed": asked.request.sampling.seed})
    again = session.again(asked.question)
    assert again.request.sampling.seed != asked.request.sampling.seed
    session.finish(again.answer, "b", "done", figures={"seed": again.request.sampling.seed})
    plain = session.plain(again.answer)
    assert plain.request.sampling == again.request.sampling
    assert not plain.request.speculate
    assert prompt(plain) == [("user", "Hi")]


def test_a_cut_answer_goes_on_where_it_stopped() -> None:
    session = open_session()
    asked = session.ask("Count")
    session.finish(asked.answer, "one two", "cut")
    more = session.go_on(asked.answer)
    assert more.answer == asked.answer
    assert more.text == "one two"
    assert more.request.continue_final_message
    assert prompt(more) == [("user", "Count"), ("assistant", "one two")]


def test_a_question_without_answer_is_not_shown_to_the_model_again() -> None:
    session = open_session()
    died = session.ask("Hi")
    session.finish(died.answer, "", "cut")
    assert prompt(session.ask("Again")) == [("user", "Again")]


def test_what_is_withdrawn_is_gone() -> None:
    history = open_incognito()
    session = open_session(history)
    session.withdraw(session.ask("Hi"))
    assert session.path == []
    assert session.chat is None
    assert history.recent() == []
    asked = turn(session, "Hi", "Ho")
    session.withdraw(session.again(asked.question))
    assert [text for _, text in said(session)] == ["Hi", "Ho"]


def test_a_conversation_is_opened_as_it_was_left() -> None:
    history = open_incognito()
    session = open_session(history)
    first = turn(session, "one", "1")
    session.finish(session.edit(first.question, "uno").answer, "I", "done")
    session.set(with_setting(session.settings, "temperature 0.3"))
    before, chat = said(session), session.chat
    assert chat is not None
    other = open_session(history)
    other.open(chat)
    assert said(other) == before
    assert other.sampling.temperature == 0.3
    assert len(other.versions(other.path[0].id)) == 2
    with pytest.raises(StorageError):
        other.open("nothing")


def test_a_summary_is_the_first_answer_of_a_new_conversation() -> None:
    session = open_session(system="Be brief.")
    turn(session, "Hi", "Ho")
    request, before = session.summary_request(4096), session.chat
    assert request.prompt[-1] == Message("user", CONTINUED)
    assert not request.record
    session.begin_with_summary("They greeted.", "qwen")
    assert said(session) == [("user", CONTINUED), ("assistant", "They greeted.")]
    assert session.chat != before
    assert session.settings.system == "Be brief."


def test_a_summary_of_an_answer_that_fills_the_context_is_made_of_its_ends() -> None:
    session = open_session()
    turn(session, "Count", "one " + "and " * 5000 + "last")
    request = session.summary_request(256)
    assert not isinstance(request.prompt, str)
    question, answer, _ = [message.content for message in request.prompt]
    assert question == "Count" and len(answer) < 300
    assert answer.startswith("one ") and answer.endswith(" last")


def test_an_answer_that_could_not_go_on_keeps_its_figures() -> None:
    session = open_session()
    asked = session.ask("Count")
    session.finish(asked.answer, "one", "cut", "qwen", {"tokens": 1})
    session.go_on(asked.answer)
    session.finish(asked.answer, "one", "cut")
    message = session.messages[asked.answer]
    assert (message.model, message.figures) == ("qwen", {"tokens": 1})


def test_nothing_of_an_incognito_conversation_is_kept() -> None:
    history = open_incognito()
    session = open_session(history)
    session.set_incognito(True)
    asked = turn(session, "secret", "yes")
    assert not asked.request.record
    assert asked.request.conversation is None
    assert history.recent() == []
    session.finish(session.again(asked.question).answer, "no", "done")
    assert [text for _, text in said(session)] == ["secret", "no"]


class _Failing:
    """A history whose disk fills up: every method raises from now on."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.is_full = False

    def __getattr__(self, name: str) -> object:
        if self.is_full:
            raise StorageError("the disk is full", "free some space")
        return getattr(self._history, name)


def test_a_conversation_goes_on_where_the_history_fails() -> None:
    failing, lines = _Failing(open_incognito()), list[str]()
    session = Session(failing, ChatOptions(), lines.append)  # type: ignore[arg-type]
    turn(session, "one", "1")
    failing.is_full = True
    turn(session, "two", "2")
    asked = turn(session, "three", "3")
    assert [text for _, text in said(session)] == ["one", "1", "two", "2", "three", "3"]
    assert len(prompt(asked)) == 5
    problem = "the disk is full; free some space · /export writes it to a file"
    assert lines == [f"not kept from here on: {problem}"]


def test_what_was_said_while_the_history_failed_is_kept_once_it_serves() -> None:
    failing, lines = _Failing(open_incognito()), list[str]()
    session = Session(failing, ChatOptions(), lines.append)  # type: ignore[arg-type]
    failing.is_full = True
    first = turn(session, "one", "1")
    session.finish(session.again(first.question).answer, "I", "done", "qwen", {"tokens": 3})
    turn(session, "two", "2")
    failing.is_full = False
    asked = session.ask("three")
    assert lines[1:] == ["all of this conversation is kept now"]
    assert asked.request.conversation == session.chat is not None
    session.finish(asked.answer, "3", "done")
    chat = failing.load(session.chat)  # type: ignore[operator]
    path = path_to(chat.messages, chat.tip)
    assert [each.content for each in path] == ["one", "I", "two", "2", "three", "3"]
    assert (path[1].model, path[1].figures, path[1].state) == ("qwen", {"tokens": 3}, "done")
    assert [each.content for each in chat.messages if each.parent == path[0].id] == ["1", "I"]
    again = session.again(asked.question)
    session.go_to(asked.question)
    assert session.path[-1].id == again.answer, "the newest version is the one that is shown"


def test_a_part_that_cannot_be_kept_is_tried_again_at_the_end() -> None:
    failing, lines = _Failing(open_incognito()), list[str]()
    session = Session(failing, ChatOptions(), lines.append)  # type: ignore[arg-type]
    asked = session.ask("one")
    failing.is_full = True
    session.partial(asked.answer, "so")
    failing.is_full = False
    session.finish(asked.answer, "so far", "done")
    assert session.chat is not None and not lines
    chat = failing.load(session.chat)  # type: ignore[operator]
    assert [message.content for message in chat.messages] == ["one", "so far"]


WAYS = ["ask", "again", "edit", "back", "next", "withdraw", "fail", "serve"]


@given(st.lists(st.sampled_from(WAYS), max_size=12))
def test_what_is_shown_is_what_is_kept(steps: Sequence[str]) -> None:
    """Whenever the history fails, and whatever is done meanwhile."""
    history = _Failing(open_incognito())
    session = open_session(history)  # type: ignore[arg-type]
    for number, way in enumerate(steps):
        if way in ("fail", "serve"):
            history.is_full = way == "fail"
            continue
        question = session.last("user")
        if way == "ask" or question is None:
            turn(session, f"q{number}", f"a{number}")
        elif way == "again":
            session.finish(session.again(question.id).answer, f"a{number}", "done")
        elif way == "edit":
            session.finish(session.edit(question.id, f"e{number}").answer, f"a{number}", "done")
        elif way == "withdraw":
            session.withdraw(session.again(question.id))
        else:
            step(session, session.path[-1].id, 1 if way == "next" else -1)
    history.is_full = False
    turn(session, "last", "at last")
    kept = history.load(session.chat)  # type: ignore[operator]
    shown: list[ChatMessage] = path_to(kept.messages, kept.tip)
    assert [(each.role, each.content) for each in shown] == said(session)
    if "fail" not in steps:
        assert [each.id for each in shown] == [each.id for each in session.path]
