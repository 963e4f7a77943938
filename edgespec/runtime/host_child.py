"""The host: the process that holds the native library (`python -m edgespec.runtime.host_child`).

Three kinds of threads:

    main       does what was asked in the order of asking; loads models, begins answers
    reader     takes messages off the pipe; cancels, which must overtake all else
    answers    one for each that is open: iterates it and sends what comes

The end of the pipe is the end of the parent, however that came: what runs is cancelled, what was
learned is written down, and the process ends; if that hangs, it ends all the same.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from edgespec import signals
from edgespec.errors import BusyError, EdgeSpecError, LoadCancelled
from edgespec.models.trials import Trials
from edgespec.protocols import Answer, TextCompleter
from edgespec.reports import Report
from edgespec.runtime.host_messages import (
    LINE,
    NOT_LOADED,
    Ask,
    Cancel,
    CountTokens,
    DecodeToken,
    Embed,
    Encode,
    Forget,
    Load,
    Pipe,
    Render,
    TellInsight,
    Tokenize,
)
from edgespec.types import CompletionRequest

_ROOM_BYTES = 4 << 30
"""What answers, drafters and what they learn may take besides what was loaded."""

_PATIENCE_S = 15.0
"""How long a host whose parent is gone may take to write down what it learned."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded model; `asked` is told of each request before its answer begins.

    `forget` deletes what was computed of a conversation.
    """

    completer: TextCompleter
    asked: Callable[[CompletionRequest], None]
    close: Callable[[], None]
    forget: Callable[[str], None] = lambda _conversation: None


Open = Callable[[Load, Report], Opened]


class _OpenAnswer:
    """An answer from the moment it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: Answer | None = None
        self._is_cancelled = False

    def begin(self, handle: Answer) -> Answer:
        with self._lock:
            self._handle = handle
            if self._is_cancelled:
                handle.cancel()
        return handle

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._handle is not None:
                self._handle.cancel()


class Child:
    """Serves one parent until the pipe ends."""

    def __init__(
        self,
        pipe: Pipe,
        open_model: Open,
        on_end: Callable[[Child], None],
        end_load: Callable[[Child], None],
    ) -> None:
        """`on_end` is called in the reader, once the pipe has ended and answers are cancelled.

        `end_load` is so when a load under way is cancelled; nothing ends that but the process's
        end.
        """
        self.is_loading = False
        self._loading: int | None = None  # the number of the load that may be cancelled
        self._cancelled_load = 0
        self._pipe = pipe
        self._open_model = open_model
        self._on_end = on_end
        self._end_load = end_load
        self._jobs: queue.SimpleQueue[tuple[int, object] | None] = queue.SimpleQueue()
        self._answers: dict[int, _OpenAnswer] = {}
        self._threads: list[threading.Thread] = []
        self._load: Load | None = None
        self._opened: Opened | None = None
        self._error = EdgeSpecError("no model is loaded")

    def run(self) -> None:
        """Work until the pipe ends, then close what is open."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            while (job := self._jobs.get()) is not None:
                self._do(*job)
        except KeyboardInterrupt:  # SIGTERM: of `end_process`, or from somebody else
            self._cancel_all()
        with contextlib.suppress(KeyboardInterrupt):
            self._let_go()

    def withdraw_marks(self) -> None:
        """Whatever is on trial, it is not at fault for what follows."""
        if self._load is not None:
            Trials(self._load.paths.trials).withdraw(os.getpid())

    # The reader

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, message = self._pipe.receive()
                if isinstance(message, Cancel):
                    self._cancel(number)
                    continue
                if isinstance(message, Ask):
                    self._answers[number] = _OpenAnswer()
                self._jobs.put((number, message))
        self._cancel_all()
        self._jobs.put(None)
        self._on_end(self)

    def _cancel(self, number: int) -> None:
        if (answer := self._answers.get(number)) is not None:
            answer.cancel()
            return
        self._cancelled_load = number
        if self.is_loading and self._loading == number:
            self._end_load(self)

    def _cancel_all(self) -> None:
        for answer in list(self._answers.values()):
            answer.cancel()

    # The main thread

    def _do(self, number: int, message: object) -> None:
        if isinstance(message, Ask):
            self._begin(self._answer, number, message.request)
            return
        if isinstance(message, Embed):
            self._begin(self._embed, number, message.tokens)
            return
        try:
            match message:
                case Load():
                    self._loading = number
                    value: object = self._switch_to(message)
                case Forget():
                    value = None
                    self._forget(message.conversation)
                case _:
                    value = self._told(message)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            value = as_told(error)
        self._send(number, value)

    def _begin(self, act: Callable[..., None], number: int, asked: object) -> None:
        """Do what takes long in a thread of its own."""
        thread = threading.Thread(target=act, args=(number, asked), name="answer", daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()]
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads, or no memory for its stack
            self._answers.pop(number, None)
            busy = BusyError("there is no room for one more answer", "ask again when others ended")
            self._send(number, busy)
        else:
            self._threads.append(thread)

    def _told(self, message: object) -> object:
        """What the model's completer says to a consultation."""
        completer = self._completer()
        match message:
            case CountTokens():
                return completer.count_tokens(message.text)
            case DecodeToken():
                return completer.decode_token(message.token)
            case TellInsight():
                return completer.insight()
            case Encode():
                return completer.encode(message.request)
            case Render():
                return completer.render(message.request)
            case Tokenize(text, add_special, parse_special):
                return completer.tokenize(
                    text, add_special=add_special, parse_special=parse_special
                )
        raise TypeError(f"a message of kind {type(message).__name__} is not known")

    def _switch_to(self, load: Load) -> object:
        """Load in the place of what there is, which comes back if that fails."""
        before = self._load if self._opened is not None else None
        self._wait_for_answers()
        self._check_cancelled()
        self._let_go()
        try:
            return self._open(load)
        except Exception as error:
            self._error, self._loading = as_told(error), None
            if before is not None:
                with contextlib.suppress(Exception):  # the first error says more
                    self._open(before)
            raise

    def _open(self, load: Load) -> object:
        self._load, self.is_loading = load, True
        bound_memory(None)
        try:
            self._check_cancelled()  # it came before anybody could see that the load had begun
            self._opened = self._open_model(load, lambda line: self._send(LINE, line))
        finally:
            self.is_loading = False
            bound_memory(_ROOM_BYTES)
        return self._opened.completer.model

    def _check_cancelled(self) -> None:
        if self._loading is not None and self._cancelled_load == self._loading:
            raise LoadCancelled(NOT_LOADED)

    def _wait_for_answers(self) -> None:
        for thread in self._threads:
            thread.join()

    def _let_go(self) -> None:
        """Wait for the answers to end, and close the model."""
        self._wait_for_answers()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _forget(self, conversation: str) -> None:
        if self._opened is not None:
            self._opened.forget(conversation)

    def _completer(self) -> TextCompleter:
        if self._opened is None:
            raise self._error
        return self._opened.completer

    # The answers

    def _answer(self, number: int, request: CompletionRequest) -> None:
        answer = self._answers[number]
        try:
            handle = answer.begin(self._completer().answer(request))
            if self._opened is not None:
                self._opened.asked(request)
            try:
                for chunk in handle:
                    self._pipe.send(number, chunk)
            except OSError:  # the parent is gone
                handle.close()
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            self._send(number, as_told(error))
        finally:
            del self._answers[number]

    def _embed(self, number: int, tokens: tuple[int, ...]) -> None:
        try:
            value: object = self._completer().embed(tokens)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            value = as_told(error)
        self._send(number, value)

    def _send(self, number: int, value: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: the reader sees to it
            self._pipe.send(number, value)


def bound_memory(num_bytes: int | None) -> None:
    """Let this process take so many bytes more than it has; None takes the bound away.

    What strangers wrote (a template, a constraint) may ask for memory without end: this ends the
    process, not the machine.
    Where the system does not count, nothing is bounded.
    """
    taken = getattr(psutil.Process().memory_info(), "data", None)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = resource.RLIM_INFINITY if num_bytes is None or taken is None else taken + num_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def as_told(error: Exception) -> EdgeSpecError:
    """The error as one that a user can be shown, and that can be pickled."""
    if isinstance(error, EdgeSpecError):
        return error
    if isinstance(error, MemoryError):
        return EdgeSpecError("not enough memory", "use a smaller model or --context")
    traceback.print_exception(error)  # seen with --verbose
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return EdgeSpecError(f"unexpected {text}", "please report this")


def open_model(load: Load, report: Report) -> Opened:
    """Load with llama.cpp."""
    from edgespec.llama.sampler import check_sampling
    from edgespec.runtime.running import load as load_all

    check_sampling(load.sampling, num_vocab=0)  # no option biases single tokens
    loaded = load_all(load.options, load.path, load.paths, report)
    asked = loaded.memory.asked if loaded.memory is not None else _remember_nothing
    return Opened(loaded.completer, asked, loaded.close, loaded.forget)


def _remember_nothing(_request: CompletionRequest) -> None:
    """Nothing is remembered."""


def end_load(child: Child) -> None:
    """End this process if it still loads."""
    child.withdraw_marks()
    if child.is_loading:  # native code: nothing else interrupts it
        os.kill(os.getpid(), signal.SIGTERM)


def end_process(child: Child) -> None:
    """End this process, in order if that is possible."""
    end_load(child)
    time.sleep(_PATIENCE_S)
    os._exit(1)


def volunteer() -> None:
    """Where memory runs out, have the kernel end this process first: it can be started again."""
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(arguments: list[str]) -> NoReturn:
    """`arguments`: the file descriptor of the socket to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals.raise_once()
    volunteer()
    end = socket.socket(fileno=int(arguments[0]))
    end.set_inheritable(False)
    with contextlib.suppress(Exception):  # loading tells what is wrong
        import edgespec.runtime.running  # noqa: F401 - takes long, while the parent gets ready
    Child(Pipe(end), open_model, end_process, end_load).run()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
