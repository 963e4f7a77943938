"""The conversation that is open: what of it is kept, what is shown, what the next request holds.

    ask | again | edit | go_on  -> Asked: written down first, then asked
    partial, finish, withdraw   -> what came of it

Methods that touch the history wait for the disk: the app calls them in a thread of their own, one
after the other. Where the history fails, the conversation goes on in memory, and a line says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgespec.chats import (
    ChatMessage,
    ChatSettings,
    History,
    MessageState,
    newest_tip,
    path_to,
    versions_of,
)
from edgespec.errors import StorageError
from edgespec.tui.keeping import Keeping
from edgespec.tui.options import ChatOptions
from edgespec.types import CompletionRequest, Message, Role, SamplingParams

Sources = Sequence[tuple[int, str]]

CONTINUED = "Sum up our conversation so far, so that it can go on from your summary alone."
"""Asked at the end of a conversation that is to go on in a new one; its first question there."""

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is about to be made, and where its answer goes; `text` is there already."""

    request: CompletionRequest
    question: int
    answer: int
    text: str = ""
    sources: tuple[tuple[int, str], ...] = ()


class Session:
    """One conversation at a time, empty at first."""

    def __init__(
        self, history: History | None, options: ChatOptions, report: Callable[[str], object]
    ) -> None:
        """Without a history nothing is kept; `report` gets a line where it fails."""
        self._history = history
        self._options = options
        self._report = report
        self.is_incognito = options.incognito
        self.new()

    def new(self) -> None:
        """An empty conversation; nothing is written until something is asked."""
        self._keeping = self._kept_as(None)
        self.messages: dict[int, ChatMessage] = {}
        self.tip: int | None = None
        self.settings = ChatSettings(system=self._options.system)

    # What there is

    @property
    def chat(self) -> str | None:
        """The conversation's id; None as long as nothing of it was kept."""
        return self._keeping.chat

    @property
    def path(self) -> list[ChatMessage]:
        """The conversation as it is read, an open answer included."""
        return path_to(list(self.messages.values()), self.tip)

    def versions(self, message: int) -> list[int]:
        """The message and what stands beside it, the oldest first."""
        found = versions_of(list(self.messages.values()), self.messages[message])
        return [each.id for each in found]

    def last(self, role: str) -> ChatMessage | None:
        """The last message of a role on the way to the tip."""
        return next((each for each in reversed(self.path) if each.role == role), None)

    # Asking

    def ask(self, text: str) -> Asked:
        """A question at the end."""
        self._keeping.keep_again(self.messages.values(), self.tip, self.settings)
        return self._begin(self.tip, text)

    def edit(self, question: int, text: str) -> Asked:
        """Another version of an earlier question; what followed stays with the old one."""
        return self._begin(self.messages[question].parent, text)

    def again(self, question: int) -> Asked:
        """Another answer to a question, drawn with another seed; one that came to nothing goes."""
        asked = self._another(question)
        others = [self.messages[each] for each in self.versions(asked.answer)]
        for other in others:
            if other.id != asked.answer and not other.content:
                self._remove(other.id)
        num_drawn = sum(
            "seed" in other.figures and not other.figures.get("plain") for other in others
        )
        return _with_seed(asked, self.sampling.seed + num_drawn)

    def plain(self, answer: int) -> Asked:
        """The same answer once more without speculation, beside the first."""
        message = self.messages[answer]
        assert message.parent is not None
        asked = self._another(message.parent)
        asked = _with_seed(asked, int(message.figures.get("seed", self.sampling.seed)))
        return dataclasses.replace(
            asked, request=dataclasses.replace(asked.request, speculate=False)
        )

    def go_on(self, answer: int) -> Asked:
        """An answer that was cut goes on where it stopped; StorageError if another chat has it."""
        self._keeping.reopen(answer)
        message = self._change(answer, state="open")
        assert message.parent is not None
        asked = self._asked(message.parent, answer)
        assert not isinstance(asked.request.prompt, str)
        request = dataclasses.replace(
            asked.request,
            prompt=(*asked.request.prompt, Message("assistant", message.content)),
            continue_final_message=True,
        )
        return dataclasses.replace(
            asked, request=request, text=message.content, sources=message.sources
        )

    def summary_request(self, num_context: int) -> CompletionRequest:
        """Has the model sum up what was said; the answer is no part of the conversation.

        The middle of messages of more than `num_context` characters is left out: one that fills
        the context could only be left out as a whole.
        """
        said = [_shortened(message, num_context) for message in self._messages_until(self.tip)]
        messages = (*said, Message("user", CONTINUED))
        return dataclasses.replace(self._request(messages), record=False)

    def begin_with_summary(self, summary: str, model: str) -> None:
        """A new conversation that knows by its summary what was said in this one."""
        settings = self.settings
        self.new()
        self.settings = settings
        asked = self._begin(None, CONTINUED)
        self.finish(asked.answer, summary, "done", model)

    # What came of it

    def partial(self, answer: int, text: str, sources: Sources = ()) -> None:
        """Keep what there is of an answer, should the app be killed."""
        self._keeping.partial(answer, text, sources)

    def finish(
        self,
        answer: int,
        text: str,
        state: MessageState,
        model: str | None = None,
        figures: Mapping[str, float] | None = None,
        sources: Sources = (),
    ) -> None:
        """An answer ended; model and figures of one that was gone on with stay if none come."""
        before = self.messages[answer]
        model = before.model if model is None else model
        numbers = dict(before.figures if figures is None else figures)
        ended = self._change(
            answer, content=text, state=state, model=model, figures=numbers, sources=tuple(sources)
        )
        self._keeping.finish(ended)

    def withdraw(self, asked: Asked) -> None:
        """Take an answer that brought nothing out again, with its question if that has no other."""
        is_alone = len(self.versions(asked.answer)) == 1
        gone = asked.question if is_alone else asked.answer
        parent = self.messages[gone].parent
        for message in {asked.answer, gone}:
            del self.messages[message]
        beside = [each.id for each in self.messages.values() if each.parent == parent]
        self.tip = self._end_of(beside[-1]) if beside else parent
        self._keeping.withdraw(gone)
        if not self.messages:
            self._keeping.chat = None

    # Moving about

    def set_incognito(self, is_incognito: bool) -> None:
        """Begin a conversation of which nothing is kept, or one that is."""
        self.is_incognito = is_incognito
        self.new()

    def open(self, chat: str) -> None:
        """Show a kept conversation; raises StorageError if there is none, or it cannot be read."""
        found = self._history.load(chat) if self._history is not None else None
        if found is None:
            raise StorageError("this conversation is gone", "choose another one")
        self.is_incognito = False
        self.new()
        self._keeping = self._kept_as(chat)
        self.tip, self.settings = found.tip, found.settings
        for message in found.messages:  # nobody goes on with what is open there
            is_open = message.state == "open"
            self.messages[message.id] = (
                dataclasses.replace(message, state="cut") if is_open else message
            )

    def go_to(self, message: int) -> None:
        """Show the versions on which `message` lies."""
        self.tip = self._end_of(message)
        self._keeping.choose(self.tip)

    def set(self, settings: ChatSettings) -> None:
        """Change what the conversation is set to."""
        self.settings = settings
        self._keeping.set(settings)

    # What it is set to

    @property
    def sampling(self) -> SamplingParams:
        """How answers are drawn: as the app was started, but for what is set here."""
        given = {name: getattr(self.settings, name) for name in _SAMPLING}
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self._options.sampling, **changes)

    @property
    def max_tokens(self) -> int | None:
        """The limit of an answer, None for none."""
        own = self.settings.max_tokens
        return own if own is not None else self._options.max_tokens

    # Inside

    def _kept_as(self, chat: str | None) -> Keeping:
        return Keeping(None if self.is_incognito else self._history, self._report, chat)

    def _begin(self, parent: int | None, text: str) -> Asked:
        question, answer = self._keeping.begin(parent, text, self.settings)
        self._add(question, parent, "user", text, "done")
        self._add(answer, question, "assistant", "", "open")
        return self._asked(question, answer)

    def _another(self, question: int) -> Asked:
        answer = self._keeping.another(question)
        self._add(answer, question, "assistant", "", "open")
        return self._asked(question, answer)

    def _asked(self, question: int, answer: int) -> Asked:
        self.tip = answer
        return Asked(self._request(self._messages_until(question)), question, answer)

    def _request(self, messages: Sequence[Message]) -> CompletionRequest:
        return CompletionRequest(
            prompt=tuple(messages),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            overflow="drop-oldest",
            conversation=self.chat if self._keeping.is_on else None,
            record=not self.is_incognito,
        )

    def _messages_until(self, tip: int | None) -> list[Message]:
        """What the model is shown: templates want turns that alternate, and no empty answers."""
        system = self.settings.system
        messages = [Message("system", system)] if system else []
        for message in path_to(list(self.messages.values()), tip):
            role: Role = "user" if message.role == "user" else "assistant"
            if not message.content and role == "assistant":
                messages.pop()  # its question got no answer
                continue
            messages.append(Message(role, message.content))
        return messages

    def _remove(self, message: int) -> None:
        del self.messages[message]
        self._keeping.withdraw(message)

    def _end_of(self, message: int) -> int:
        return newest_tip(list(self.messages.values()), message)

    def _add(
        self, message: int, parent: int | None, role: str, text: str, state: MessageState
    ) -> None:
        self.messages[message] = ChatMessage(message, parent, role, text, time.time(), state)

    def _change(self, message: int, **changes: object) -> ChatMessage:
        changed = dataclasses.replace(self.messages[message], **changes)  # type: ignore[arg-type]
        self.messages[message] = changed
        return changed


def _shortened(message: Message, most: int) -> Message:
    text = message.content
    if len(text) <= most:
        return message
    return dataclasses.replace(message, content=f"{text[: most // 2]} … {text[-most // 2 :]}")


def _with_seed(asked: Asked, seed: int) -> Asked:
    sampling = dataclasses.replace(asked.request.sampling, seed=seed & 0xFFFFFFFF)
    return dataclasses.replace(asked, request=dataclasses.replace(asked.request, sampling=sampling))
