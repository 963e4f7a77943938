"""The place of the model that drafts: perhaps empty at first, exchanged between answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from edgespec.planning.guarded import GuardedSession
from edgespec.protocols import Drafter, DraftSession, Matcher
from edgespec.types import EncodedPrompt


class ModelPlace:
    """Implements `edgespec.protocols.Drafter` around one that may be exchanged; silent without."""

    def __init__(self) -> None:
        self._drafter: Drafter | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def name(self) -> str:
        """The name of the drafter within."""
        return self._drafter.name if self._drafter is not None else ""

    def put(self, drafter: Drafter, cleanup: contextlib.ExitStack) -> None:
        """Have `drafter` draft from the next answer on; `cleanup` is closed when another comes.

        The one before was emptied out (`close`).
        """
        self._drafter, self._cleanup = drafter, cleanup

    def close(self) -> None:
        """Keep what the drafter learned, and free it."""
        self._drafter = None
        self._cleanup.close()

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> DraftSession:
        """Have the drafter within follow an answer."""
        if self._drafter is None:
            return GuardedSession(None, None)
        return self._drafter.open(prompt, said, matcher)
