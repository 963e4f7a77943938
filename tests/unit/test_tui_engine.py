"""The chat over the real engine (with a target that has no weights): the two must agree."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fakes import FakeDrafter, FakeSampler, FakeTarget, TinyBridge, make_engine
from tui_support import AppPilot, answers, box, lines, ready, screen, send, status, until

from edgespec.engine.completer import EngineCompleter
from edgespec.tui import ChatApp, ChatOptions
from edgespec.types import Completion, CompletionRequest, Message, ServedModel

BRIDGE = TinyBridge()
NUM_VOCAB = BRIDGE.num_vocab - 2
"""Without the two halves of é: alone they are no text that could be sent again."""
OPTIONS = ChatOptions(max_tokens=12)


class EndlessBridge(TinyBridge):
    """No token ends an answer."""

    def is_end(self, token: int) -> bool:
        return False


def build(target: FakeTarget, bridge: TinyBridge = BRIDGE) -> EngineCompleter:
    model = ServedModel("fake", "a pseudo-model", target.num_context, 0, "none", "identical")
    engine = make_engine(target, FakeDrafter())
    return EngineCompleter(engine, bridge, lambda params: FakeSampler(), model)


def target(num_context: int = 256, pass_seconds: float = 0.0) -> FakeTarget:
    made = FakeTarget(num_vocab=NUM_VOCAB, num_context=num_context)

    def slow(tokens: Sequence[int]) -> None:
        time.sleep(pass_seconds)

    made.on_pass = slow
    return made


def completion(completer: EngineCompleter, messages: tuple[Message, ...]) -> Completion:
    """The answer that the engine gives without the app."""
    request = CompletionRequest(messages, max_tokens=12, overflow="drop-oldest")
    last = list(completer.answer(request))[-1].completion
    assert last is not None
    return last


async def answered(pilot: AppPilot, num_answers: int) -> None:
    await until(pilot, lambda: len(answers(pilot)) == num_answers)
    await ready(pilot)


async def test_two_turns_are_answered_as_the_engine_answers_them() -> None:
    first = completion(build(target()), (Message("user", "abc"),))
    conversation = (
        Message("user", "abc"),
        Message("assistant", first.text),
        Message("user", "cab"),
    )
    second = completion(build(target()), conversation)
    async with ChatApp(build(target()), OPTIONS).run_test() as pilot:
        await ready(pilot)
        for number, text in enumerate(("abc", "cab")):
            await send(pilot, text)
            await answered(pilot, number + 1)
        assert answers(pilot) == [first.text, second.text]
        timings = status(pilot).timings
        assert timings is not None
        assert timings.num_prompt_tokens == second.timings.num_prompt_tokens


async def test_escape_stops_the_engine_between_passes_and_keeps_the_text() -> None:
    options = ChatOptions(max_tokens=200)
    completer = build(target(pass_seconds=0.02), EndlessBridge())
    async with ChatApp(completer, options).run_test() as pilot:
        await ready(pilot)
        await send(pilot, "abc")
        await until(pilot, lambda: answers(pilot) and answers(pilot)[0])
        started = time.monotonic()
        await pilot.press("escape")
        await ready(pilot)
        assert time.monotonic() - started < 0.5
        assert "cut off" in screen(pilot)


async def test_escape_stops_a_long_prefill_and_gives_the_message_back() -> None:
    question = "abc " * 40
    async with ChatApp(build(target(pass_seconds=0.05)), OPTIONS).run_test() as pilot:
        await ready(pilot)
        await send(pilot, question)
        await until(pilot, lambda: status(pilot).state == "prefilling")
        await pilot.press("escape")
        await ready(pilot)
        assert box(pilot).text == question.strip()
        assert answers(pilot) == []


async def test_a_message_too_long_for_the_context_is_one_line_and_comes_back() -> None:
    async with ChatApp(build(target(num_context=32)), OPTIONS).run_test() as pilot:
        await ready(pilot)
        await send(pilot, "abc " * 20)
        await until(pilot, lambda: lines(pilot, "error"))
        await ready(pilot)
        assert box(pilot).text == ("abc " * 20).strip()
        assert len(lines(pilot, "error")[0].splitlines()) == 1


async def test_a_long_conversation_drops_its_oldest_turns_and_goes_on() -> None:
    async with ChatApp(build(target(num_context=48)), OPTIONS).run_test(size=(80, 60)) as pilot:
        await ready(pilot)
        for number in range(4):
            await send(pilot, "abc cab")
            await answered(pilot, number + 1)
        assert not lines(pilot, "error")
        assert any("no longer fit" in note for note in lines(pilot, "note"))
