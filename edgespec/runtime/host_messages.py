"""What parent and host say to each other: frozen values, pickled, over a pair of sockets.

    parent -> host    (number, a message), of those below
    host -> parent    (number, a value or an EdgeSpecError), several for an `Ask`; (LINE, a line)

Both ends are one program: nothing here is a format for others.
"""

from __future__ import annotations

import pickle
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from edgespec.paths import Paths
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest, Message, SamplingParams

LINE = 0
"""The number of what answers nothing: a line for people (`edgespec.reports`)."""

NOT_LOADED = "the model was not loaded: it was cancelled"

_NUM_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model in the place of the one there is; answered by the `ServedModel`.

    `sampling` is what it will be asked for: nonsense is refused before the load.
    """

    options: LoadRequest
    path: Path
    paths: Paths
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a request; answered by its chunks, the last of which carries the completion."""

    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the answer, or the loading, of the same number; not answered."""


@dataclass(frozen=True, slots=True)
class CountTokens:
    """Answered by how many tokens a conversation or a text takes."""

    text: tuple[Message, ...] | str


@dataclass(frozen=True, slots=True)
class Encode:
    """Answered by the token ids of a request's prompt."""

    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class Render:
    """Answered by the text that a request's conversation becomes."""

    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Answered by the token ids of a text."""

    text: str
    add_special: bool
    parse_special: bool


@dataclass(frozen=True, slots=True)
class DecodeToken:
    """Answered by the bytes of a token."""

    token: int


@dataclass(frozen=True, slots=True)
class TellInsight:
    """Answered by the `Insight`."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep nothing that was computed of a conversation; answered by None."""

    conversation: str


@dataclass(frozen=True, slots=True)
class Embed:
    """Answered by the vector of a text's tokens."""

    tokens: tuple[int, ...]


Consultation = CountTokens | DecodeToken | Encode | Render | Tokenize | TellInsight
"""What is answered at once by one value."""

Asked = Load | Ask | Cancel | Consultation | Embed | Forget


class Pipe:
    """One end of the connection: one thread receives, any thread sends."""

    def __init__(self, end: socket.socket) -> None:
        """`end` is closed with this."""
        self._end = end
        self._file = end.makefile("rb")
        self._sending = threading.Lock()

    def send(self, number: int, value: object) -> None:
        """Send a value; raises OSError when the other end is gone."""
        data = pickle.dumps((number, value), pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._end.sendall(len(data).to_bytes(_NUM_LENGTH_BYTES) + data)

    def receive(self) -> tuple[int, object]:
        """Wait for a number and a value; raises EOFError or OSError when there are no more."""
        length = int.from_bytes(self._read(_NUM_LENGTH_BYTES))
        number, value = pickle.loads(self._read(length))
        return number, value

    def end(self) -> None:
        """Tell the other end that nothing more will be sent."""
        self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._file.close()
        self._end.close()

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data
