"""The chat from the outside: keys in, screen and requests out, over a scripted completer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from textual import events
from tui_support import (
    AppPilot,
    GatedFactory,
    ScriptedCompleter,
    answers,
    ask,
    box,
    lines,
    questions,
    ready,
    screen,
    send,
    status,
    status_line,
    transcript,
    until,
)

from edgespec.errors import ContextOverflowError, HostDied, NativeLibraryError
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui import ChatApp, ChatOptions, Services
from edgespec.tui.chips import shown
from edgespec.types import Message, SamplingParams

SIZE = (80, 24)


async def test_an_answer_shows_word_by_word_while_it_is_made() -> None:
    completer = ScriptedCompleter("one two three four", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        await until(pilot, lambda: status(pilot).state == "prefilling")
        assert questions(pilot) == ["count"]
        completer.allow(2)
        await until(pilot, lambda: answers(pilot) == ["one two "])
        await until(pilot, lambda: "one two" in screen(pilot))
        assert status(pilot).state == "answering"
        completer.allow(2)
        await ready(pilot)
        assert answers(pilot) == ["one two three four"]


async def test_what_is_drawn_is_what_the_completion_says() -> None:
    text = "A *list*:\n\n- one\n- two\n\n```python\nx = 1\n```\n\nThe end.\n"
    async with ChatApp(ScriptedCompleter(text)).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        assert answers(pilot) == [text]


async def test_the_next_request_holds_the_whole_conversation() -> None:
    completer = ScriptedCompleter("Hello.", "Again hello.")
    options = ChatOptions(system="Be brief.", sampling=SamplingParams(seed=7), max_tokens=64)
    async with ChatApp(completer, options).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await ask(pilot, "Hi again")
    first, second = completer.requests
    assert first.prompt == (Message("system", "Be brief."), Message("user", "Hi"))
    assert second.prompt == (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Hi again"),
    )
    assert (second.sampling.seed, second.max_tokens, second.overflow) == (7, 64, "drop-oldest")


async def test_escape_stops_at_once_and_the_partial_answer_stays() -> None:
    completer = ScriptedCompleter("one two three four", "five", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(2)
        await until(pilot, lambda: answers(pilot) == ["one two "])
        pressed_at = time.monotonic()
        await pilot.press("escape")
        await ready(pilot)
        assert completer.cancelled_at is not None
        assert completer.cancelled_at - pressed_at < 0.1
        assert answers(pilot) == ["one two "]
        assert "cut off · /continue goes on" in screen(pilot)
        completer.allow(1)
        await ask(pilot, "go on")
    prompt = completer.requests[1].prompt
    assert prompt[1:2] == (Message("assistant", "one two "),)


async def test_escape_before_the_first_word_gives_the_message_back() -> None:
    completer = ScriptedCompleter("one", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "too early")
        await until(pilot, lambda: completer.requests)
        await pilot.press("escape")
        await ready(pilot)
        assert box(pilot).text == "too early"
        assert questions(pilot) == [] and answers(pilot) == []
        completer.allow(1)
        await pilot.press("enter")
        await until(pilot, lambda: len(completer.requests) == 2)
        await ready(pilot)
    assert completer.requests[1].prompt == (Message("user", "too early"),)


def waiting(pilot: AppPilot) -> list[str]:
    return [entry.text for entry in transcript(pilot).entries if entry.state == "waiting"]


async def test_a_message_sent_while_loading_waits_and_is_then_answered() -> None:
    completer = ScriptedCompleter("Hello.")
    factory = GatedFactory(completer)
    async with ChatApp(factory).run_test(size=SIZE) as pilot:
        await until(pilot, factory.entered.is_set)
        await send(pilot, "Hi")
        await until(pilot, lambda: questions(pilot) == ["Hi"])
        assert status(pilot).state == "loading"
        assert "opening qwen.gguf" in status_line(pilot)
        assert not completer.requests
        factory.opened.set()
        await until(pilot, lambda: answers(pilot) == ["Hello."])
        await ready(pilot)
        assert not waiting(pilot)


async def test_a_notice_stays_whenever_it_comes() -> None:
    completer = ScriptedCompleter("Hello.", "Again.")
    reports: list[Report] = []

    def factory(report: Report) -> Completer:
        reports.append(report)
        report("the database was damaged")
        report("loading qwen")
        return completer

    async with ChatApp(factory).run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert lines(pilot, "note") == ["the database was damaged"]
        await ask(pilot, "Hi")
        reports[0]("an answer was not remembered (disk full)")
        await until(pilot, lambda: len(lines(pilot, "note")) == 2)
        assert status(pilot).state == "ready"
        await ask(pilot, "And?")
        assert answers(pilot) == ["Hello.", "Again."]
        assert lines(pilot, "note")[1] == "an answer was not remembered (disk full)"


async def test_a_message_sent_while_answering_waits_for_its_turn() -> None:
    completer = ScriptedCompleter("one two", "three", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "first")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await send(pilot, "second")
        await until(pilot, lambda: waiting(pilot) == ["second"])
        assert len(completer.requests) == 1
        completer.allow(2)
        await until(pilot, lambda: answers(pilot) == ["one two", "three"])
        await ready(pilot)
        shown = [entry.kind for entry in transcript(pilot).entries]
        assert shown == ["question", "answer", "question", "answer"]


async def test_only_one_message_waits_and_the_next_stays_in_the_box() -> None:
    completer = ScriptedCompleter("one", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "first")
        await until(pilot, lambda: completer.requests)
        await send(pilot, "second")
        await send(pilot, "third")
        await until(pilot, lambda: box(pilot).text == "third")
        assert questions(pilot) == ["first", "second"]
        assert "waiting already" in str(box(pilot).border_subtitle)


async def test_escape_takes_a_waiting_message_back_into_the_box() -> None:
    completer = ScriptedCompleter("one two", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "first")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await send(pilot, "second")
        await until(pilot, lambda: len(questions(pilot)) == 2)
        await pilot.press("escape")
        await ready(pilot)
        assert box(pilot).text == "second"
        assert questions(pilot) == ["first"]
        assert len(completer.requests) == 1


async def test_an_error_is_one_line_and_the_chat_goes_on() -> None:
    error = NativeLibraryError("llama_decode returned -3", "restart edgespec")
    completer = ScriptedCompleter(error, "Better now.")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        assert lines(pilot, "error") == ["llama_decode returned -3; restart edgespec"]
        assert box(pilot).text == "Hi"
        await pilot.press("enter")
        await until(pilot, lambda: answers(pilot) == ["Better now."])
        await ready(pilot)
    assert completer.requests[1].prompt == (Message("user", "Hi"),)


async def test_an_unexpected_exception_is_one_line_without_a_traceback() -> None:
    completer = ScriptedCompleter(KeyError("rows"), "Fine.")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        (line,) = lines(pilot, "error")
        assert line.startswith("internal error at tui_support.py:")
        assert line.endswith("KeyError: 'rows'; please report this")
        await pilot.press("enter")
        await until(pilot, lambda: answers(pilot) == ["Fine."])
        await ready(pilot)


async def test_an_error_after_some_words_keeps_them_in_the_conversation() -> None:
    completer = ScriptedCompleter(("half an", NativeLibraryError("lost")), "Go on.")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        assert answers(pilot) == ["half an"]
        await ask(pilot, "And?")
    assert completer.requests[1].prompt[1] == Message("assistant", "half an")


@pytest.mark.parametrize("said", ["", "Well, "])
async def test_what_the_engine_died_in_is_asked_again_with_one_key(said: str) -> None:
    died = HostDied("the engine died: it gave up", "ask again, and it starts anew")
    completer = ScriptedCompleter("Hello.", (said, died), "Better now.")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+r")
        assert "nothing was asked yet" in str(box(pilot).border_subtitle)
        await ask(pilot, "Hi")
        await ask(pilot, "And now?")
        (line,) = lines(pilot, "error")
        assert line == f"{died} · Ctrl+R asks again"
        assert box(pilot).text == ""
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(completer.requests) == 3)
        await ready(pilot)
        assert answers(pilot)[-1] == "Better now."
    *_, failed, again = completer.requests
    assert again == failed
    assert again.conversation == completer.requests[0].conversation


async def test_after_a_death_one_may_go_on_with_something_else() -> None:
    completer = ScriptedCompleter(("Well, ", HostDied("it crashed")), "Fine.")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "Hi")
        await ask(pilot, "Never mind.")
    assert completer.requests[1].prompt == (
        Message("user", "Hi"),
        Message("assistant", "Well, "),
        Message("user", "Never mind."),
    )


async def test_an_error_takes_the_waiting_message_back() -> None:
    completer = ScriptedCompleter(("one", ContextOverflowError("too long")), gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "first")
        await until(pilot, lambda: completer.requests)
        await send(pilot, "second")
        await until(pilot, lambda: len(questions(pilot)) == 2)
        completer.allow(1)
        await ready(pilot)
        assert box(pilot).text == "second"
        assert len(completer.requests) == 1


async def test_left_out_messages_are_told_once_per_number() -> None:
    completer = ScriptedCompleter("ok", num_dropped=(0, 1, 1, 3))
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        for _ in range(4):
            await ask(pilot, "more")
        assert lines(pilot, "note") == [
            "1 oldest message no longer fits and was left out",
            "3 oldest messages no longer fit and were left out",
        ]


async def test_the_status_bar_shows_nothing_before_and_the_numbers_after() -> None:
    completer = ScriptedCompleter("one two three four five")
    async with ChatApp(completer).run_test(size=(120, 24)) as pilot:
        await ready(pilot)
        assert status_line(pilot).startswith("● ready · identical")
        await ask(pilot, "count to five")
        # 4 tokens after the first in 80 ms are 50 a second, 2.5 times one in 50 ms.
        expected = "● ready · 50.0 tok/s · 2.5x · 75% accepted · context 8/4,096 · identical"
        assert status_line(pilot).startswith(expected)
        assert status_line(pilot).endswith("qwen2.5-coder-1.5b · drafter context")


async def test_the_status_bar_counts_while_the_answer_runs() -> None:
    completer = ScriptedCompleter("one two three four five", gated=True)
    async with ChatApp(completer).run_test(size=(120, 24)) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(3)
        await until(pilot, lambda: answers(pilot) == ["one two three "])
        await until(pilot, lambda: status(pilot).state == "answering")
        completer.allow(1)
        time.sleep(0.3)  # numbers change at most four times a second
        completer.allow(1)
        await ready(pilot)
        assert "context 6/4,096" in status_line(pilot)


async def test_a_new_conversation_forgets_the_old_one() -> None:
    completer = ScriptedCompleter("one", "two")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not answers(pilot))
        assert "tok/s" not in status_line(pilot)
        await ask(pilot, "second")
    assert completer.requests[1].prompt == (Message("user", "second"),)


async def test_a_new_conversation_stops_the_answer_and_drops_it() -> None:
    completer = ScriptedCompleter("one two", "three", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "first")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await pilot.press("ctrl+n")
        await send(pilot, "second")
        await until(pilot, lambda: len(completer.requests) == 2)
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["three"])
        await ready(pilot)
        assert questions(pilot) == ["second"]
    assert completer.requests[1].prompt == (Message("user", "second"),)


async def test_the_last_answer_is_copied_as_markdown() -> None:
    async with ChatApp(ScriptedCompleter("*one*", "**two**")).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard == ""
        assert "no answer" in str(box(pilot).border_subtitle)
        await ask(pilot, "a")
        await ask(pilot, "b")
        await pilot.press("ctrl+y")
        assert pilot.app.clipboard == "**two**"


async def test_the_initial_message_is_sent_by_itself_and_can_be_recalled() -> None:
    completer = ScriptedCompleter("Hello.")
    options = ChatOptions(initial_message="Hi there")
    async with ChatApp(completer, options).run_test(size=SIZE) as pilot:
        await until(pilot, lambda: answers(pilot) == ["Hello."])
        await ready(pilot)
        await pilot.press("up")
        assert box(pilot).text == "Hi there"


async def test_characters_typed_in_one_burst_with_enter_are_all_sent() -> None:
    """A terminal delivers a paste without brackets, or fast typing, as keys without pauses."""
    completer = ScriptedCompleter("ok")
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        for character in "hurry up":
            pilot.app.post_message(
                events.Key("space" if character == " " else character, character)
            )
        pilot.app.post_message(events.Key("enter", "\r"))
        await until(pilot, lambda: answers(pilot) == ["ok"])
        await ready(pilot)
    assert completer.requests[0].prompt == (Message("user", "hurry up"),)


async def test_help_opens_over_the_chat_and_the_answer_goes_on() -> None:
    completer = ScriptedCompleter("one two", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        await pilot.press("f1")
        await until(pilot, lambda: "stop the answer" in screen(pilot))
        completer.allow(2)
        await ready(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "one two" in screen(pilot))
        assert answers(pilot) == ["one two"]


async def test_a_users_keys_are_used_and_what_is_wrong_with_them_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('help = "f9"\ntea = "f8"')
    app = ChatApp(ScriptedCompleter("one"), services=Services(keys=keys))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert lines(pilot, "note") == ["keys.toml: there is no command tea"]
        await pilot.press("f9")
        await until(pilot, lambda: "send the message" in screen(pilot))


async def test_scrolling_up_is_respected_and_the_end_is_followed_again() -> None:
    long = "\n\n".join(f"Paragraph {number}." for number in range(30))
    completer = ScriptedCompleter(long, "more\n\n" * 20, gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        completer.allow(100)
        await ask(pilot, "long")
        await until(pilot, lambda: "Paragraph 29." in screen(pilot))
        await _drain(completer)
        await send(pilot, "again")
        completer.allow(3)
        await until(pilot, lambda: len(answers(pilot)) == 2)
        await pilot.press("pageup", "pageup")
        await pilot.pause()
        before = transcript(pilot).scroll_y
        completer.allow(30)
        await ready(pilot)
        assert transcript(pilot).scroll_y == before
        for _ in range(6):
            await pilot.press("pagedown")
        await pilot.pause()
        assert transcript(pilot).scroll_y == transcript(pilot).max_scroll_y


async def _drain(completer: ScriptedCompleter) -> None:
    while completer._permits.acquire(blocking=False):
        pass


async def test_a_fast_model_is_drawn_less_often_than_it_speaks() -> None:
    text = " ".join(f"word{number}" for number in range(400))
    completer = ScriptedCompleter(text)
    app = ChatApp(completer)
    num_drawn = 0
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        real_redraw = app.dialogue._pacer.redraw

        def counted() -> None:
            nonlocal num_drawn
            num_drawn += 1
            real_redraw()

        app.dialogue._pacer.redraw = counted  # type: ignore[method-assign]
        await ask(pilot, "go")
        assert answers(pilot) == [text]
    assert 1 <= num_drawn < 40


async def test_typing_goes_on_while_an_answer_runs() -> None:
    completer = ScriptedCompleter("one two", gated=True)
    async with ChatApp(completer).run_test(size=SIZE) as pilot:
        await ready(pilot)
        await send(pilot, "count")
        completer.allow(1)
        await until(pilot, lambda: answers(pilot) == ["one "])
        await pilot.press("x")
        assert box(pilot).text == "x"


async def test_a_file_attached_while_the_model_loads_is_counted_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.md").write_text("one two three")
    monkeypatch.chdir(tmp_path)
    factory = GatedFactory(ScriptedCompleter("Hello."))
    async with ChatApp(factory).run_test(size=SIZE) as pilot:
        await until(pilot, factory.entered.is_set)
        box(pilot).attach("notes.md")
        label = box(pilot).text
        factory.opened.set()
        assert "KB" in label
        await until(pilot, lambda: "3 tokens" in shown(box(pilot).text))
