"""One answer kept as a chat: the question before the model starts, the answer when it ends.

What cannot be kept is told in one line; the answer comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from edgespec.chats import Begun, ChatSettings, History, MessageState
from edgespec.cli.loading import say
from edgespec.errors import StorageError
from edgespec.paths import user_paths
from edgespec.types import Completion, CompletionRequest, figures_of


class KeptAnswer:
    """Keeps the question of a request; `request` is the one to ask with.

    A plain prompt is no chat, and nothing is kept of it.
    """

    def __init__(self, request: CompletionRequest, keeps: bool) -> None:
        """Without `keeps` this does nothing."""
        self.request = request
        self._history: History | None = None
        self._begun: Begun | None = None
        if keeps and not isinstance(request.prompt, str):
            from edgespec.runtime.history import open_history  # while the model is loaded

            self._history = open_history(user_paths().database, _untold)
            # Where this fails, whoever records the answer keeps the question, too, or tells.
            with contextlib.suppress(StorageError):
                self._begin(self._history)

    def _begin(self, history: History) -> None:
        said = {message.role: message.content for message in self.request.prompt}  # type: ignore[union-attr]
        sampling = self.request.sampling
        settings = ChatSettings(
            system=said.get("system"),
            temperature=sampling.temperature,
            seed=sampling.seed,
            max_tokens=self.request.max_tokens,
        )
        self._begun = history.begin(None, None, said["user"], settings, "run")
        self.request = dataclasses.replace(self.request, conversation=self._begun.chat)

    def finish(self, completion: Completion | None, model: str) -> None:
        """Keep the answer; None is one that never came, of which the question stays."""
        if self._history is None or self._begun is None:
            return
        with _told():
            if completion is None:
                self._history.finish(self._begun.answer, "", "cut", model)
                return
            state: MessageState = "done" if completion.finish_reason == "stop" else "cut"
            figures = figures_of(completion, self.request)
            self._history.finish(self._begun.answer, completion.text, state, model, figures)

    def __enter__(self) -> KeptAnswer:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._history is not None:
            self._history.close()


def _untold(_line: str) -> None:
    """The host has told already what is wrong with the database."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        say(f"the chat is not kept: {error}")
