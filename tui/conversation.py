"""What has been said, as the next request must show it to the model.

Many chat templates accept only turns that alternate, so a question enters the conversation for good
together with its answer; one that got no answer is taken back. A question whose answer was cut
short by a failure that was not its own can be asked again, in the place of what came of it.
"""

from __future__ import annotations

import uuid

from edgespec.tui.options import ChatOptions
from edgespec.types import CompletionRequest, Message


class Conversation:
    """The finished turns and at most one open question."""

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        self._turns: list[Message] = []
        self._question: str | None = None
        self._cut: tuple[str, int] | None = None
        self._id = uuid.uuid4().hex

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message if there is one, the finished turns, the open question."""
        system = self._options.system
        head = [Message("system", system)] if system else []
        tail = [Message("user", self._question)] if self._question is not None else []
        return (*head, *self._turns, *tail)

    def ask(self, question: str) -> CompletionRequest:
        """Open a question and return the request that answers it."""
        if self._question is not None:
            raise RuntimeError(f"asked {question!r} before {self._question!r} was answered")
        self._question, self._cut = question, None
        return CompletionRequest(
            prompt=self.messages,
            sampling=self._options.sampling,
            max_tokens=self._options.max_tokens,
            overflow="drop-oldest",
            conversation=self._id,
        )

    def answer(self, text: str) -> None:
        """Close the open question with its answer, a partial one included."""
        if self._question is None:
            raise RuntimeError(f"no question is open for the answer {text!r}")
        self._turns += [Message("user", self._question), Message("assistant", text)]
        self._question = None

    def retract(self) -> str:
        """Take the open question out again and return it."""
        if self._question is None:
            raise RuntimeError("no question is open")
        question, self._question = self._question, None
        return question

    def cut(self, text: str) -> None:
        """Close the open question with what there is of its answer; it may be asked `again`."""
        question, num_turns = self.retract(), len(self._turns)
        if text:
            self._turns += [Message("user", question), Message("assistant", text)]
        self._cut = question, num_turns

    def again(self) -> str | None:
        """Take the question that was cut short, and its answer, out again; None without one."""
        if self._cut is None:
            return None
        question, num_turns = self._cut
        del self._turns[num_turns:]
        self._cut = None
        return question

    def clear(self) -> None:
        """Begin another conversation, with the same system message."""
        self._turns.clear()
        self._question = self._cut = None
        self._id = uuid.uuid4().hex
