"""Ways to answer: those of one engine, one at a time, and other programs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgespec.types import Message, SamplingParams


class Ways(Protocol):
    """Who drafts for the engine behind a completer."""

    @property
    def about(self) -> Mapping[str, str]:
        """The ways there are, plain decoding first, each with a sentence for people."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """A line for each way that was asked for and makes no sense here."""
        ...

    def use(self, name: str) -> None:
        """Have answers drafted this way from the next one on; only while none is open."""
        ...


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What another program said, and what is known of how; times in milliseconds.

    `request_ms` goes from the request to the last byte, `first_token_ms` from the request to the
    first one with text, `decode_ms` from there to the last. `prompt_ms` is what it says that
    reading the prompt took; it and the numbers of draft tokens are None where it does not say.
    """

    text: str
    num_tokens: int
    num_prompt_tokens: int
    request_ms: float
    first_token_ms: float
    decode_ms: float
    prompt_ms: float | None = None
    proposed: int | None = None
    accepted: int | None = None


class Peer(Protocol):
    """Another program that answers the same questions; ready to be asked."""

    @property
    def name(self) -> str:
        """The way's name, in tables and files."""
        ...

    @property
    def about(self) -> str:
        """One sentence for people: which program, and how it drafts."""
        ...

    def answer(
        self, messages: Sequence[Message], sampling: SamplingParams, max_tokens: int
    ) -> PeerAnswer:
        """Ask, and wait for the whole answer; raises EdgeSpecError, after which none is asked."""
        ...

    def close(self) -> None:
        """End the program, if it was started for this; from any thread, and more than once.

        An answer under way then raises EdgeSpecError at once.
        """
        ...
