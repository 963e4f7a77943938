"""Chats as they are kept: what a history stores and what faces show.

A chat is a tree. Each message knows its parent: a question the answer before it, an answer its
question. Messages with one parent are versions of each other; the `tip` is the last message of the
versions that are shown, and the way from it to the root is the conversation as it is read.

    system?   q1 ── a1 ── q2 ── a2          an edited q2 or a regenerated a2 is a sibling:
                      └── q2' ── a2' (tip)  both stay, `2/2` steps between them

Nothing here knows of inference, nor of SQLite: sources are names, figures are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

MessageState = Literal["open", "done", "cut"]
"""Under way (or killed on the way), finished, ended early: stopped, failed, or out of room."""

Origin = Literal["chat", "run", "serve", "import"]


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What a conversation was set to; None is the default of whoever opens it."""

    system: str | None = None
    model: str | None = None
    drafter: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message; `created` is in seconds since 1970.

    `sources` are (number of characters, name) in the order of `content`, empty where unknown.
    `figures` are numbers about an answer by name (docs/metrics.md): tokens, ms, counts.
    """

    id: int
    parent: int | None
    role: str
    content: str
    created: float
    state: MessageState = "done"
    model: str | None = None
    sources: tuple[tuple[int, str], ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatHead:
    """What a list shows of a chat; times are in seconds since 1970."""

    id: str
    title: str
    created: float
    updated: float
    num_messages: int
    is_pinned: bool = False
    origin: Origin = "chat"


@dataclass(frozen=True, slots=True)
class Chat:
    """A whole chat: every version of every message, in the order in which they came."""

    head: ChatHead
    settings: ChatSettings
    messages: tuple[ChatMessage, ...]
    tip: int | None


@dataclass(frozen=True, slots=True)
class ChatHit:
    """A message that was found; `snippet` is text in pieces, True for those that match.

    Where only the title was found, the role is "title" and the message the first one.
    """

    chat: str
    title: str
    message: int
    role: str
    created: float
    snippet: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """Ids of what `History.begin` has written down."""

    chat: str
    question: int
    answer: int


class History(Protocol):
    """Keeps chats. Every method waits for the disk and may be called from any one thread at a time.

    Raises StorageError where something cannot be kept or read (full, locked for long, damaged);
    what was kept before stays.
    """

    def begin(
        self,
        chat: str | None,
        parent: int | None,
        question: str,
        settings: ChatSettings = ...,
        origin: Origin = ...,
    ) -> Begun:
        """Write a question and its open answer down, before the model starts.

        `chat` None begins a new one with these settings, titled by the question's first words; one
        that is known keeps its own (`set`), and is restored if it was deleted. `parent` is the
        answer before it, None at the beginning. The answer becomes the tip.
        """
        ...

    def another(self, question: int) -> int:
        """Open another answer to a question, beside those it has; it becomes the tip."""
        ...

    def reopen(self, answer: int) -> None:
        """An answer that was cut goes on; StorageError while another process writes it."""
        ...

    def partial(self, answer: int, text: str, sources: Sequence[tuple[int, str]] = ()) -> None:
        """What there is of an open answer, should nothing more come; nothing if it has ended."""
        ...

    def finish(
        self,
        answer: int,
        text: str,
        state: MessageState,
        model: str | None = None,
        figures: Mapping[str, float] = ...,
        sources: Sequence[tuple[int, str]] = (),
    ) -> None:
        """An open answer ended."""
        ...

    def withdraw(self, question: int) -> None:
        """Take a question out again unless an answer says something or is done.

        The newest versions of what is left are shown; a chat without messages goes, too.
        """
        ...

    def recent(self, limit: int = 50, offset: int = 0) -> list[ChatHead]:
        """Chats, pinned ones first, then the one spoken in last first."""
        ...

    def search(self, text: str, limit: int = 50) -> list[ChatHit]:
        """Titles and messages with every word of `text`, the last one as a beginning.

        First chats of which only the title was found; the latest first.
        """
        ...

    def load(self, chat: str) -> Chat | None:
        """A chat with all its versions; None if there is none, or it is deleted.

        An answer is open as long as the process lives that writes it; then it is cut. A message
        that cannot be read is left out, and what followed it follows the one before it.
        """
        ...

    def choose(self, chat: str, tip: int) -> None:
        """Show the versions on the way to `tip` from now on."""
        ...

    def set(self, chat: str, settings: ChatSettings) -> None:
        """Change what a chat is set to."""
        ...

    def rename(self, chat: str, title: str) -> None:
        """Give a chat another title."""
        ...

    def pin(self, chat: str, is_pinned: bool) -> None:
        """Keep a chat at the head of the list, or no longer."""
        ...

    def delete(self, chat: str) -> None:
        """Hide a chat; `restore` brings it back, later it is purged with its tokens."""
        ...

    def restore(self, chat: str) -> None:
        """Take a `delete` back."""
        ...

    def copy(self, chat: str, tip: int) -> str:
        """The conversation up to `tip`, that version alone, as a new chat; its id."""
        ...

    def questions(self, limit: int = 200) -> list[str]:
        """What was asked lately in chats (not of other origin), the oldest first."""
        ...

    def close(self) -> None:
        """Nothing more is to be kept or read."""
        ...


def path_to(messages: Sequence[ChatMessage], tip: int | None) -> list[ChatMessage]:
    """The conversation as it is read: from the root to `tip`.

    >>> q, a = ChatMessage(1, None, "user", "Hi", 0.0), ChatMessage(2, 1, "assistant", "Ho", 0.0)
    >>> [message.content for message in path_to([q, a], 2)]
    ['Hi', 'Ho']
    """
    by_id = {message.id: message for message in messages}
    path: list[ChatMessage] = []
    while tip is not None and tip in by_id and len(path) < len(by_id):
        path.append(by_id[tip])
        tip = by_id[tip].parent
    return path[::-1]


def versions_of(messages: Sequence[ChatMessage], message: ChatMessage) -> list[ChatMessage]:
    """The messages with the same parent, itself included, the oldest first."""
    return [each for each in messages if each.parent == message.parent]


def newest_tip(messages: Sequence[ChatMessage], start: int) -> int:
    """The end of the way from `start` that follows the newest version at each fork."""
    newest = {each.parent: each.id for each in sorted(messages, key=lambda each: each.id)}
    tip = start
    while tip in newest:
        tip = newest[tip]
    return tip
