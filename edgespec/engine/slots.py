"""The target's slots: whose text each holds, which one suits the next answer, what has room.

An answer takes the idle slot that shares the longest beginning with its prompt, of equals the one
that was not used for longest. Slots share the cells of one cache: an answer is let in only if all
that are open can grow to their ends, and idle slots are forgotten, the oldest first, to make room.

What is forgotten of one conversation for another is handed to the prompt cache before; where that
one knows more of a prompt than any slot, an idle slot is filled from there. A slot that was left
alone and one that was restored hold the same cells in the same order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from edgespec.errors import NativeLibraryError
from edgespec.lookup.prefix import common_prefix
from edgespec.passes import SavedPrompt
from edgespec.protocols import PromptCache, Target


class Slots:
    """Keeps the books of a target's slots; computes nothing."""

    def __init__(self, target: Target, prompts: PromptCache | None = None) -> None:
        self._target = target
        self._prompts = prompts
        self._texts: list[list[int]] = [[] for _ in range(target.num_slots)]
        self._conversations: list[str | None] = [None] * target.num_slots
        self._reserved = [0] * target.num_slots  # cells that an open answer may come to need
        self._used = [0] * target.num_slots
        self._num_uses = 0

    def has_room(self, num_tokens: int) -> bool:
        """Whether an answer of so many tokens, prompt included, can be let in now."""
        taken = sum(self._reserved)
        return not taken or (0 in self._reserved and taken + num_tokens <= self._target.num_context)

    def take(
        self,
        prompt: Sequence[int],
        num_tokens: int,
        *,
        reuse: bool,
        conversation: str | None = None,
    ) -> int:
        """A slot for an answer that may come to `num_tokens`, cut to what its text shares.

        At least the last token of the prompt is left to be scored. Needs `has_room`.
        """
        idle = [slot for slot, reserved in enumerate(self._reserved) if not reserved]
        shared = {slot: common_prefix(self._texts[slot], prompt[:-1]) * reuse for slot in idle}
        slot = max(idle, key=lambda slot: (shared[slot], -self._used[slot]))
        saved = None
        if reuse and self._prompts is not None:
            saved = self._prompts.find(prompt[:-1], shared[slot])
        if saved is not None:
            slot = min(idle, key=lambda slot: self._used[slot])
        self._forget(slot, shared[slot] if saved is None else 0, conversation)
        self._reserved[slot] = num_tokens
        self._num_uses += 1
        self._used[slot] = self._num_uses
        self._make_room()
        if saved is not None:
            self._restore(slot, prompt, saved)
        self._conversations[slot] = conversation
        return slot

    def give_back(self, slot: int, text: Sequence[int]) -> None:
        """The answer is over; what the cache holds of `text` stays for the next one."""
        self._truncate(slot, min(self._target.num_cached(slot), max(len(text) - 1, 0)))
        self._texts[slot] = list(text[: self._target.num_cached(slot)])
        self._reserved[slot] = 0

    def forget(self) -> None:
        """Empty the idle slots."""
        for slot, reserved in enumerate(self._reserved):
            if not reserved:
                self._truncate(slot, 0)

    def keep(self) -> None:
        """Hand the conversations of all idle slots to the prompt cache."""
        for slot, reserved in enumerate(self._reserved):
            if not reserved:
                self._keep(slot)

    def disown(self, conversation: str) -> None:
        """Keep nothing of a conversation that was deleted."""
        for slot, owner in enumerate(self._conversations):
            if owner == conversation:
                self._conversations[slot] = None

    def _make_room(self) -> None:
        """Forget idle slots, the oldest first, until all open answers can grow to their ends."""
        idle = [slot for slot, reserved in enumerate(self._reserved) if not reserved]
        for slot in sorted(idle, key=lambda slot: self._used[slot]):
            held = sum(len(self._texts[slot]) for slot in idle)
            if not held or sum(self._reserved) + held <= self._target.num_context:
                return
            self._forget(slot, 0, None)

    def _forget(self, slot: int, num_tokens: int, conversation: str | None) -> None:
        """Cut a slot's text for `conversation`; what is lost of another one is kept."""
        is_lost = num_tokens < len(self._texts[slot])
        if is_lost and self._conversations[slot] != conversation:
            self._keep(slot)
        self._truncate(slot, num_tokens)

    def _keep(self, slot: int) -> None:
        conversation, text = self._conversations[slot], self._texts[slot]
        if self._prompts is None or conversation is None:
            return
        if self._prompts.lacks(conversation, text):
            with contextlib.suppress(NativeLibraryError, MemoryError):  # it is read once more then
                self._prompts.keep(conversation, text, self._target.save(slot))

    def _restore(self, slot: int, prompt: Sequence[int], saved: SavedPrompt) -> None:
        """Fill an empty slot; if that cannot be, it stays empty and the prompt is read."""
        with contextlib.suppress(NativeLibraryError, MemoryError):
            self._target.restore(slot, saved.stretches)
            self._target.truncate(slot, saved.num_shared)
        self._texts[slot] = list(prompt[: self._target.num_cached(slot)])

    def _truncate(self, slot: int, num_tokens: int) -> None:
        self._target.truncate(slot, num_tokens)
        del self._texts[slot][self._target.num_cached(slot) :]
