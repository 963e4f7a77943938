"""The target's slots: whose text each holds, which one suits the next answer, what has room.

An answer takes the idle slot that shares the longest beginning with its prompt, of equals the one
that was not used for longest. Slots share the cells of one cache. Cells are reserved for an answer
as it grows; idle slots are forgotten, the oldest first, to make room. Where that is not enough an
open answer is put aside: what was computed of it is held in memory until there is room again.

What is forgotten of one conversation for another is handed to the prompt cache before; where that
one knows more of a prompt than any slot, an idle slot is filled from there. A slot that was left
alone and one that was restored hold the same cells in the same order. What was computed for one
owner is not used for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from edgespec.errors import NativeLibraryError
from edgespec.lookup.prefix import common_prefix
from edgespec.passes import SavedPrompt, Stretch
from edgespec.protocols import PromptCache, Target

TOLD_BY_TEXT = ""
"""The name of a conversation that nobody named; `None` is one of which nothing is to be kept."""

_FEW_TOKENS = 64
"""So much of a text at its end is computed again sooner than kept."""


class Slots:
    """Keeps the books of a target's slots; computes nothing."""

    def __init__(self, target: Target, prompts: PromptCache | None = None) -> None:
        self._target = target
        self._prompts = prompts
        self._texts: list[list[int]] = [[] for _ in range(target.num_slots)]
        self._conversations: list[str | None] = [None] * target.num_slots
        self._owners = [""] * target.num_slots
        self._reserved = [0] * target.num_slots  # cells that an open answer may come to need
        self._used = [0] * target.num_slots
        self._num_uses = 0

    def has_room(self, num_tokens: int) -> bool:
        """Whether an answer that needs so many cells, prompt included, can be let in now."""
        taken = sum(self._reserved)
        return not taken or (0 in self._reserved and taken + num_tokens <= self._target.num_context)

    def take(
        self,
        prompt: Sequence[int],
        num_tokens: int,
        *,
        reuse: bool,
        conversation: str | None = None,
        owner: str = "",
    ) -> int:
        """A slot for an answer that needs `num_tokens` cells, cut to what its text shares.

        At least the last token of the prompt is left to be scored. Needs `has_room`.
        """
        idle = self._idle()
        shared = {
            slot: common_prefix(self._texts[slot], prompt[:-1])
            if reuse and self._owners[slot] == owner
            else 0
            for slot in idle
        }
        slot = max(idle, key=lambda slot: (shared[slot], -self._used[slot]))
        saved = None
        if reuse and self._prompts is not None:
            saved = self._prompts.find(prompt[:-1], shared[slot], owner)
        if saved is not None:
            slot = min(idle, key=lambda slot: self._used[slot])
        self._forget(slot, shared[slot] if saved is None else 0, conversation, owner)
        self._occupy(slot, num_tokens)
        if saved is not None:
            self._restore(slot, prompt, saved)
        self._conversations[slot], self._owners[slot] = conversation, owner
        return slot

    def reserve(self, slot: int, num_tokens: int) -> bool:
        """Let an open answer grow to so many tokens; False where others need the cells."""
        others = sum(self._reserved) - self._reserved[slot]
        if others + num_tokens > self._target.num_context:
            return False
        self._reserved[slot] = max(num_tokens, self._reserved[slot])
        self._make_room()
        return True

    def reserved(self, slot: int) -> int:
        """Tokens that the answer in a slot may grow to."""
        return self._reserved[slot]

    def put_aside(self, slot: int) -> tuple[Stretch, ...]:
        """Give an open answer's slot away: what was computed of it, nothing if memory is short."""
        saved: tuple[Stretch, ...] = ()
        with contextlib.suppress(NativeLibraryError, MemoryError):  # it is read once more then
            saved = self._target.save(slot)
        self._truncate(slot, 0)
        self._reserved[slot] = 0
        return saved

    def bring_back(
        self,
        stretches: tuple[Stretch, ...],
        num_tokens: int,
        *,
        conversation: str | None,
        owner: str,
    ) -> int:
        """A slot with what was put aside; needs `has_room`."""
        slot = min(self._idle(), key=lambda slot: self._used[slot])
        self._forget(slot, 0, None, "")
        self._occupy(slot, num_tokens)
        with contextlib.suppress(NativeLibraryError, MemoryError):
            self._target.restore(slot, stretches)
        self._conversations[slot], self._owners[slot] = conversation, owner
        return slot

    def give_back(self, slot: int, text: Sequence[int]) -> None:
        """The answer is over; what the cache holds of `text` stays for the next one."""
        self._truncate(slot, min(self._target.num_cached(slot), max(len(text) - 1, 0)))
        self._texts[slot] = list(text[: self._target.num_cached(slot)])
        self._reserved[slot] = 0

    def forget(self) -> None:
        """Empty the idle slots."""
        for slot in self._idle():
            self._truncate(slot, 0)

    def keep(self) -> None:
        """Hand the conversations of all idle slots to the prompt cache."""
        for slot in self._idle():
            self._keep(slot)

    def disown(self, conversation: str) -> None:
        """Keep nothing of a conversation that was deleted, which may be one that nobody named."""
        for slot, name in enumerate(self._conversations):
            if name in (conversation, TOLD_BY_TEXT):
                self._conversations[slot] = None

    def _idle(self) -> list[int]:
        return [slot for slot, reserved in enumerate(self._reserved) if not reserved]

    def _occupy(self, slot: int, num_tokens: int) -> None:
        self._reserved[slot] = num_tokens
        self._num_uses += 1
        self._used[slot] = self._num_uses
        self._make_room()

    def _make_room(self) -> None:
        """Forget idle slots, the oldest first, until all open answers have what they reserved."""
        idle = self._idle()
        for slot in sorted(idle, key=lambda slot: self._used[slot]):
            held = sum(len(self._texts[slot]) for slot in idle)
            if not held or sum(self._reserved) + held <= self._target.num_context:
                return
            self._forget(slot, 0, None, "")

    def _forget(self, slot: int, num_tokens: int, conversation: str | None, owner: str) -> None:
        """Cut a slot's text for `conversation`; what is lost of another one is kept.

        One that is told by its text may be the same that goes on after a change at its end.
        """
        num_lost = len(self._texts[slot]) - num_tokens
        is_same = (conversation, owner) == self._whose(slot)
        if num_lost > (_FEW_TOKENS if conversation == TOLD_BY_TEXT else 0) and not (
            is_same and conversation != TOLD_BY_TEXT
        ):
            self._keep(slot)
        self._truncate(slot, num_tokens)

    def _keep(self, slot: int) -> None:
        (conversation, owner), text = self._whose(slot), self._texts[slot]
        if self._prompts is None or conversation is None:
            return
        if self._prompts.lacks(conversation, text, owner):
            with contextlib.suppress(NativeLibraryError, MemoryError):  # it is read once more then
                self._prompts.keep(conversation, text, self._target.save(slot), owner)

    def _whose(self, slot: int) -> tuple[str | None, str]:
        return self._conversations[slot], self._owners[slot]

    def _restore(self, slot: int, prompt: Sequence[int], saved: SavedPrompt) -> None:
        """Fill an empty slot; if that cannot be, it stays empty and the prompt is read."""
        with contextlib.suppress(NativeLibraryError, MemoryError):
            self._target.restore(slot, saved.stretches)
            self._target.truncate(slot, saved.num_shared)
        self._texts[slot] = list(prompt[: self._target.num_cached(slot)])

    def _truncate(self, slot: int, num_tokens: int) -> None:
        self._target.truncate(slot, num_tokens)
        del self._texts[slot][self._target.num_cached(slot) :]
