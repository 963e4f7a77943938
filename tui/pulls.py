"""Pulls that go on while one chats: each in a thread of its own, told by messages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from textual.message import Message

from edgespec.catalog import AcceptTerms, Catalog, PullMeter, PullState
from edgespec.errors import BusyError, Cancelled
from edgespec.tui.failure import Failure, describe

Post = Callable[[Message], object]


class PullMoved(Message, bubble=False):
    """A pull came further."""

    def __init__(self, state: PullState) -> None:
        super().__init__()
        self.state = state

    def can_replace(self, message: Message) -> bool:
        """Only the newest state of a pull matters."""
        return isinstance(message, PullMoved) and message.state.name == self.state.name


class PullEnded(Message, bubble=False):
    """The model `name` is on disk, or the pull was cancelled, or failed."""

    def __init__(self, name: str, failure: Failure | None, is_cancelled: bool) -> None:
        super().__init__()
        self.name = name
        self.failure = failure
        self.is_cancelled = is_cancelled


class Pulls:
    """The pulls of one app; `listen` to them as long as there is somebody to be told."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._cancels: dict[str, threading.Event] = {}
        self._states: dict[str, PullState] = {}
        self._posts: list[Post] = []

    @property
    def states(self) -> list[PullState]:
        """How far each pull under way is, in the order in which they were begun."""
        with self._lock:
            return list(self._states.values())

    def is_pulling(self, name: str) -> bool:
        """Whether the model is under way."""
        return name in self._cancels

    def listen(self, post: Post) -> Callable[[], None]:
        """Have `post` told, from any thread, until what is returned is called."""
        self._posts.append(post)
        return lambda: self._posts.remove(post)

    def start(self, name: str, accept_terms: AcceptTerms) -> None:
        """Begin to pull a model; raises BusyError if that is under way."""
        with self._lock:
            if name in self._cancels:
                raise BusyError(f"{name} is being pulled already", "wait until it is here")
            cancel = self._cancels[name] = threading.Event()
            self._states[name] = PullState(name)
        threading.Thread(
            target=self._pull, args=(name, accept_terms, cancel), name="pull", daemon=True
        ).start()

    def cancel(self, name: str) -> None:
        """End a pull; what came is kept, and the next one goes on from there."""
        cancel = self._cancels.get(name)
        if cancel is not None:
            cancel.set()

    def _pull(self, name: str, accept_terms: AcceptTerms, cancel: threading.Event) -> None:
        failure, is_cancelled = None, False
        try:
            self._catalog.pull(name, PullMeter(name, self._moved), accept_terms, cancel.is_set)
        except Cancelled:
            is_cancelled = True
        except Exception as error:  # noqa: BLE001 - a user sees a line, no traceback
            failure = describe(error)
        with self._lock:
            del self._cancels[name], self._states[name]
        self._tell(lambda: PullEnded(name, failure, is_cancelled))

    def _moved(self, state: PullState) -> None:
        with self._lock:
            self._states[state.name] = state
        self._tell(lambda: PullMoved(state))

    def _tell(self, make: Callable[[], Message]) -> None:
        for post in list(self._posts):
            with contextlib.suppress(RuntimeError):  # the event loop is closed: the user has left
                post(make())
