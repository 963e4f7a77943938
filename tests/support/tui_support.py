"""A completer that says what a test scripted, one word per permit, and helpers to drive the app."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from answer_support import GeneratedAnswer
from textual import _wait
from textual._compositor import LayoutUpdate
from textual.pilot import Pilot

from edgespec.protocols import Completer
from edgespec.tui import ChatApp
from edgespec.tui.message_input import MessageInput
from edgespec.tui.status import Status, StatusBar
from edgespec.tui.transcript import Transcript
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    DrafterCounts,
    FinishReason,
    Insight,
    Message,
    ServedModel,
    Span,
    SpeculationStats,
    Timings,
)

_wait.SLEEP_GRANULARITY = 1 / 200
"""How long the pilot sleeps to see whether the app is idle, twice per key (Textual's is 1 / 50)."""

MODEL = ServedModel(
    name="qwen2.5-coder-1.5b",
    description="Qwen2.5-Coder 1.5B Instruct, Q4_K_M",
    num_context=4096,
    size_bytes=1_117_320_768,
    drafter="context",
    exactness="identical",
)


def words(text: str) -> list[str]:
    """Pieces that join to `text` again, about one word each."""
    pieces: list[str] = []
    for character in text:
        if not pieces or (pieces[-1][-1].isspace() and not character.isspace()):
            pieces.append("")
        pieces[-1] += character
    return pieces


class ScriptedCompleter:
    """Implements `Completer`: answers the n-th question with the n-th script.

    A script is a text, or an exception to raise; one that is raised after some text is a tuple of
    both. Words wait for permits (`allow`); without `gated` they come at once. Like the engine, it
    looks for a cancel all the time, gives one answer after the other, and takes every token 20 ms
    of reported time where plain decoding would take 50.
    """

    def __init__(
        self,
        *scripts: str | Exception | tuple[str, Exception],
        gated: bool = False,
        num_dropped: Sequence[int] = (),
        finish: FinishReason = "stop",
        model: ServedModel = MODEL,
        sources: Callable[[str, int], str] | None = None,
    ) -> None:
        self.requests: list[CompletionRequest] = []
        self.model = model
        self.cancelled_at: float | None = None
        self._scripts = scripts
        self._num_dropped = num_dropped
        self._finish = finish
        self._sources = sources
        self._gated = gated
        self._permits = threading.Semaphore(0)
        self._busy = threading.Lock()

    def allow(self, num_words: int) -> None:
        """Let that many more words out."""
        self._permits.release(num_words)

    def answer(self, request: CompletionRequest) -> GeneratedAnswer:
        index = len(self.requests)
        self.requests.append(request)
        return GeneratedAnswer(lambda cancelled: self._in_turn(request, index, cancelled))

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        texts = [text] if isinstance(text, str) else [message.content for message in text]
        return sum(len(words(each)) for each in texts)

    def insight(self) -> Insight:
        return Insight({1: 50.0}, 0)

    def decode_token(self, token: int) -> bytes:
        return str(token).encode()

    def _in_turn(
        self, request: CompletionRequest, index: int, cancelled: threading.Event
    ) -> Iterator[Chunk]:
        with self._busy:
            yield from self._say(request, index, cancelled)

    def _say(
        self, request: CompletionRequest, index: int, cancelled: threading.Event
    ) -> Iterator[Chunk]:
        script = self._scripts[index % len(self._scripts)]
        text = script if isinstance(script, str) else script[0] if isinstance(script, tuple) else ""
        said: list[str] = []
        reason = self._finish
        assert not isinstance(request.prompt, str)
        num_prompt = self.count_tokens(request.prompt)
        for word in words(text):
            if not self._permitted(cancelled):
                reason = "cancelled"
                break
            said.append(word)
            timings = _timings(len(said), num_prompt)
            spans = self._spans(word, len(said))
            yield Chunk(word, stats=_stats(len(said)), timings=timings, spans=spans)
        if isinstance(script, tuple):
            raise script[1]
        if isinstance(script, Exception):
            raise script
        yield Chunk(
            "",
            stats=_stats(len(said)),
            timings=_timings(len(said), num_prompt),
            completion=Completion(
                text="".join(said),
                token_ids=tuple(range(len(said))),
                finish_reason=reason,
                timings=_timings(len(said), num_prompt),
                stats=_stats(len(said)),
                num_dropped_messages=self._num_dropped[index] if self._num_dropped else 0,
            ),
        )

    def _spans(self, word: str, number: int) -> tuple[Span, ...]:
        """Who guessed the n-th word, as `sources` says."""
        return (Span(len(word), self._sources(word, number)),) if self._sources else ()

    def _permitted(self, cancelled: threading.Event) -> bool:
        while not cancelled.is_set():
            if not self._gated or self._permits.acquire(timeout=0.002):
                return True
        self.cancelled_at = time.monotonic()
        return False


def _stats(num_tokens: int) -> SpeculationStats:
    return SpeculationStats(
        emitted=num_tokens,
        target_passes=num_tokens // 2 + 1,
        by_drafter={"context": DrafterCounts(proposed=4 * num_tokens, accepted=3 * num_tokens)},
    )


def _timings(num_tokens: int, num_prompt: int) -> Timings:
    return Timings(
        prompt_ms=30.0,
        decode_ms=20.0 * max(0, num_tokens - 1),
        time_to_first_token_ms=30.0,
        num_prompt_tokens=num_prompt,
        num_cached_tokens=0,
        num_decoded_tokens=num_tokens,
        plain_token_ms=50.0,
    )


class GatedFactory:
    """A factory that reports and waits until a test opens it, as loading a model does."""

    def __init__(self, completer: Completer | None = None, error: Exception | None = None) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.left_by: BaseException | None = None
        self._completer = completer
        self._error = error

    def __call__(self, report: Callable[[str], None]) -> Completer:
        self.entered.set()
        try:
            report("opening qwen.gguf")
            while not self.opened.wait(0.1):
                report("opening qwen.gguf, 40 %")
            if self._error is not None:
                raise self._error
        except BaseException as error:
            self.left_by = error
            raise
        assert self._completer is not None
        return self._completer


AppPilot = Pilot[Any]


async def until(pilot: AppPilot, condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Let the app run until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {seconds} s\n{screen(pilot)}"
        await pilot.pause(0.005)


async def ready(pilot: AppPilot) -> None:
    """Wait until the model is loaded and no answer is under way."""
    await until(pilot, lambda: status(pilot).state == "ready")
    await pilot.pause()


async def send(pilot: AppPilot, text: str) -> None:
    """Type `text` as a paste, and press Enter."""
    box(pilot).insert(text)
    await pilot.press("enter")


async def ask(pilot: AppPilot, text: str) -> None:
    """Send `text` and wait for the end of its answer."""
    before = len(_completer_requests(pilot))
    await send(pilot, text)
    await until(pilot, lambda: len(_completer_requests(pilot)) > before)
    await ready(pilot)


def _completer_requests(pilot: AppPilot) -> list[CompletionRequest]:
    app = pilot.app
    assert isinstance(app, ChatApp)
    completer = app.worker._completer
    assert isinstance(completer, ScriptedCompleter)
    return completer.requests


def base(pilot: AppPilot) -> Any:  # noqa: ANN401 - textual's Screen is generic in its result
    return pilot.app.screen_stack[0]


def box(pilot: AppPilot) -> MessageInput:
    found = base(pilot).query_one(MessageInput)
    assert isinstance(found, MessageInput)
    return found


def status(pilot: AppPilot) -> Status:
    found = base(pilot).query_one(StatusBar).status
    assert isinstance(found, Status)
    return found


def status_line(pilot: AppPilot) -> str:
    return str(base(pilot).query_one(StatusBar).render())


def transcript(pilot: AppPilot) -> Transcript:
    found = base(pilot).query_one(Transcript)
    assert isinstance(found, Transcript)
    return found


def answers(pilot: AppPilot) -> list[str]:
    return lines(pilot, "answer")


def questions(pilot: AppPilot) -> list[str]:
    return lines(pilot, "question")


def lines(pilot: AppPilot, kind: str) -> list[str]:
    """The texts of that kind ("note", "error") in the transcript."""
    return [entry.text for entry in transcript(pilot).entries if entry.kind == kind]


def screen(pilot: AppPilot) -> str:
    """What a user sees, as text, screens that lie below others included."""
    width, height = pilot.app.size
    compositor, below = pilot.app.screen._compositor, pilot.app._background_screens
    update = compositor.render_update(full=True, screen_stack=below)
    assert isinstance(update, LayoutUpdate)
    rows = update.strips[:height]
    return "\n".join("".join(s.text for s in strip)[:width].rstrip() for strip in rows)
