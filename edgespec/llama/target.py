"""The target as the engine sees it: slots of a KV cache, scored together in one pass.

A slot is a sequence of the cache with a text of its own. All slots share one unified cache, whose
cells llama.cpp hands out by itself: a freed cell is taken again before those behind it. That would
change bytes, because attention sums over a sequence's cells in the order of the cells: a token that
takes a freed place before its predecessors is summed in another order. So no place is ever freed
but at the end. What is dropped anywhere else is plugged: it goes to a sequence that nobody reads.

    cells   0 1 2 3 4 5 6 7 8 | 9 ...       a, b: slots; p: plugged; all below `end` are taken
            a a a b b a p b b |             b drops its last two:  end = 7
                              end           a drops its last one:  plugged, end stays

Once too much is plugged the slots are written out and read back one behind the other, which changes
no number. A single slot drops only at its end, so nothing is ever plugged there. What is restored
into an empty slot goes behind all others, for the same reason.

A draft is a tree; its main chain takes the places right behind the text, siblings those after, in
sequences of their own (branches). Where a sibling is kept its cell stands out of order as well, so
it is dropped, and its token is sent once more, with the next pass.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import NativeLibraryError
from edgespec.llama.batch import Rows
from edgespec.llama.context import Context
from edgespec.passes import Draft, Part, Stretch

MOST_BRANCHES = 8
"""Leaves besides the main chain's, in all drafts of a pass."""

STRETCH = 512
"""Most tokens that are saved in one piece, so that a part can be restored."""

_MOST_TOLD = 4
"""A pass that reads more tokens than so many gives no hidden states: with them llama.cpp computes
the logits of every row."""

_PLUGGED_SHARE = 8
"""Slots are moved together once an eighth of the cache is plugged."""


def num_sequences(num_slots: int) -> int:
    """Sequences of a context for so many slots, their branches and what is plugged."""
    return num_slots + 1 + MOST_BRANCHES


SINGLE_SLOT_SEQUENCES = 2
"""Sequences for one slot whose drafts are chains, which can be saved and restored."""


@dataclass(frozen=True, slots=True)
class _Drafted:
    """Where a draft stands until it is kept or dropped: its main chain from `position` on.

    `branches` are the sequences of its siblings, each with the position where it leaves the chain.
    """

    position: int
    first_cell: int
    end_cell: int
    num_main: int
    branches: dict[int, int]


class LlamaTarget:
    """Implements `edgespec.protocols.Target` over a context with `num_sequences(num_slots)`.

    One of `SINGLE_SLOT_SEQUENCES` does for one slot whose drafts are chains, or of one sequence if
    nothing is saved.
    """

    def __init__(self, context: Context, max_rows: int, num_slots: int = 1) -> None:
        """`max_rows` is the most rows of one pass that give the logits of one row at a time."""
        self.context = context
        self.num_slots = num_slots
        self._max_rows = max_rows
        self.reads_alike = False  # as long as nobody proved it
        self._plug = num_slots
        self._spare = min(num_slots + 1, context.options.num_sequences - 1)  # a branch in a pass
        self._num_plugged = 0
        self._end = 0
        self._cells = [array("i") for _ in range(num_slots)]
        self._drafted: dict[int, _Drafted] = {}
        self._has_states = True

    @property
    def num_context(self) -> int:
        """Cells of the KV cache, which all slots share."""
        return self.context.num_context

    @property
    def num_batch(self) -> int:
        """Most tokens of one pass."""
        return self.context.options.num_batch

    @property
    def max_rows(self) -> int:
        """Most rows of a pass whose logits are those of one row at a time."""
        return min(self._max_rows, self.num_batch)

    @property
    def max_branches(self) -> int:
        """Most leaves of a pass's drafts besides those of their main chains."""
        return max(self.context.options.num_sequences - self.num_slots - 1, 0)

    @property
    def can_roll_back(self) -> bool:
        """False for recurrent and hybrid models."""
        return self.context.model.can_roll_back

    def prove_reading(self, reads_alike: bool) -> None:
        """From the next pass on, a text may be read in pieces of any size, or not."""
        self.reads_alike = reads_alike

    def prove(self, max_rows: int) -> None:
        """From the next answer on, so many rows of a pass give the logits of one row at a time."""
        self._max_rows = max_rows

    def num_cached(self, slot: int) -> int:
        """Tokens of a slot in the cache."""
        return len(self._cells[slot])

    def score(self, parts: Sequence[Part]) -> None:
        """Append each part to its slot in one pass; see `edgespec.protocols.Target.score`."""
        num_rows = sum(map(len, parts))
        if self._end + num_rows > self.num_context or self._is_scattered:
            self._gather()
        rows, drafted = self._lay_out(parts)
        try:
            self.context.compute(rows, hidden_states=self._tells_states(rows))
        except BaseException:  # whatever ended the pass, its cells may be half-written: drop them
            for part, draft in zip(parts, drafted, strict=True):
                self._drop(part.slot, draft.branches)
            raise
        self._end += num_rows
        for part, draft in zip(parts, drafted, strict=True):
            start = draft.first_cell - len(part.tokens)
            self._cells[part.slot].extend(range(start, draft.first_cell + draft.num_main))
            self._drafted[part.slot] = draft
        self.context.synchronize()

    def keep(self, slot: int, path: Sequence[int]) -> None:
        """Drop all of the slot's last draft but the nodes of `path` that are on the main chain."""
        drafted = self._drafted.pop(slot)
        num_kept = min(_num_shared(path), drafted.num_main)
        self._cut(slot, drafted.position + num_kept, drafted)

    def truncate(self, slot: int, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens of a slot, or all where that cannot be."""
        if num_tokens < len(self._cells[slot]):
            self._cut(slot, num_tokens if self.can_roll_back else 0, None)

    def save(self, slot: int) -> tuple[Stretch, ...]:
        """The cells of a slot, for `restore`; raises NativeLibraryError.

        A sequence's state lacks what its next token does not see through a sliding window, which
        may be seen again once the slot is cut: so no stretch is longer than the window.
        """
        count = len(self._cells[slot])
        length = min(self.context.model.sliding_window or STRETCH, STRETCH)
        stretches = []
        for start in range(0, count, length):
            end = min(start + length, count)
            self.context.copy_sequence(slot, self._spare, start=start, end=end)
            try:
                stretches.append(Stretch(end - start, self.context.save_state(self._spare)))
            finally:
                self.context.remove(0, sequence=self._spare)
        return tuple(stretches)

    def restore(self, slot: int, stretches: Sequence[Stretch]) -> None:
        """Put saved cells into an empty slot, which stays empty if NativeLibraryError is raised."""
        num_tokens = sum(stretch.num_tokens for stretch in stretches)
        if self._end + num_tokens > self.num_context:
            self._gather()
        if self._end + num_tokens > self.num_context:
            raise NativeLibraryError(f"no place in the KV cache for {num_tokens} saved tokens")
        try:
            self._load(slot, stretches)
        except BaseException:
            self.context.remove(0, sequence=self._spare)
            self.context.remove(0, sequence=slot)
            raise

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: (num_vocab,), float32, a view."""
        return self.context.logits(row)

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Final hidden state of one row: (num_embedding,), float32, a view; zeros after reading."""
        if self._has_states:
            return self.context.hidden_state(row)
        return np.zeros(self.context.model.num_embedding, np.float32)

    def abort(self) -> None:
        """Make the pass under way, or the next one, raise Cancelled."""
        self.context.abort()

    def resume(self) -> None:
        """Take back an `abort`."""
        self.context.resume()

    @property
    def _is_scattered(self) -> bool:
        return self._num_plugged * _PLUGGED_SHARE > self.num_context

    def _tells_states(self, rows: Rows) -> bool:
        """Whether a pass gives hidden states, where the context does: not one that reads a text."""
        self._has_states = len(rows) - sum(rows.outputs) <= _MOST_TOLD
        return self._has_states

    def _lay_out(self, parts: Sequence[Part]) -> tuple[Rows, list[_Drafted]]:
        """Rows of a pass, part after part: what is not cached yet, the main chain, siblings."""
        inputs: list[int] = []
        positions: list[int] = []
        sequences: list[tuple[int, ...]] = []
        outputs: list[bool] = []
        drafted = []
        next_branch = self.num_slots + 1
        for part in parts:
            start = len(self._cells[part.slot])
            position, num_tokens = start + len(part.tokens), len(part.tokens)
            paths = _branch_paths(part.draft)
            branches = {
                next_branch + place: position + _num_shared(path)
                for place, path in enumerate(paths)
            }
            next_branch += len(paths)
            for branch in branches:
                self.context.copy_sequence(part.slot, branch)
            first_cell = self._end + len(inputs) + num_tokens
            end_cell, num_main = first_cell + len(part.draft), part.draft.num_main
            drafted.append(_Drafted(position, first_cell, end_cell, num_main, branches))
            inputs += [*part.tokens, *part.draft.tokens]
            positions += range(start, position)
            positions += [position + depth for depth in part.draft.depths]
            sequences += [(part.slot, *branches)] * num_tokens
            sequences += _sequences(part, paths, list(branches))
            outputs += [False] * (num_tokens - 1) + [True] * (1 + len(part.draft))
        return Rows(inputs, positions, sequences, outputs), drafted

    def _cut(self, slot: int, num_tokens: int, drafted: _Drafted | None) -> None:
        """Drop what a slot has behind `num_tokens` tokens, its last draft's siblings included."""
        cells = self._cells[slot]
        num_main = len(cells) - num_tokens
        num_siblings = 0 if drafted is None else drafted.end_cell - cells[-1] - 1
        num_dropped = num_main + num_siblings
        if not num_dropped:
            return
        first = cells[num_tokens] if num_main else cells[-1] + 1
        branches = drafted.branches if drafted is not None else {}
        del cells[num_tokens:]
        if not any(self._cells):
            self.context.clear()
            self._end = self._num_plugged = 0
        elif first + num_dropped == self._end:
            self._drop(slot, branches)
            self._end = first
        else:
            for sequence, start in {slot: num_tokens, **branches}.items():
                self.context.copy_sequence(sequence, self._plug, start=start)
            self._drop(slot, branches)
            self._num_plugged += num_dropped

    def _drop(self, slot: int, branches: Iterable[int]) -> None:
        """Take all that is not a slot's text out of its sequences, or all where that cannot be."""
        if not self.can_roll_back:
            self._cells[slot] = array("i")
            self._end = 0
            self.context.clear()
            return
        for branch in branches:
            self.context.remove(0, sequence=branch)
        self.context.remove(len(self._cells[slot]), sequence=slot)

    def _gather(self) -> None:
        """Move the slots together, each in the order of its text; nothing is plugged then."""
        if not self._num_plugged:
            return
        saved = [self.save(slot) for slot in range(self.num_slots)]
        self.context.clear()
        self._end = self._num_plugged = 0
        for slot, stretches in enumerate(saved):
            self._load(slot, stretches)

    def _load(self, slot: int, stretches: Sequence[Stretch]) -> None:
        """Put saved cells of a slot behind all others."""
        for stretch in stretches:
            self.context.load_state(stretch.data, self._spare)
            self.context.copy_sequence(self._spare, slot)
            self.context.remove(0, sequence=self._spare)
        count = sum(stretch.num_tokens for stretch in stretches)
        if self.context.last_position(slot) != count - 1:
            raise NativeLibraryError("a saved state holds other positions than it should")
        self._cells[slot] = array("i", range(self._end, self._end + count))
        self._end += count


def _branch_paths(draft: Draft) -> list[tuple[int, ...]]:
    """The nodes on the way to each leaf that is not the main chain's end."""
    if draft.is_chain:
        return []
    leaves = set(range(len(draft))) - set(draft.parents) - {draft.num_main - 1}
    return [draft.path_to(leaf) for leaf in sorted(leaves)]


def _num_shared(path: Sequence[int]) -> int:
    """Nodes of a path that are on the main chain."""
    places = (place for place, node in enumerate(path) if node != place)
    return next(places, len(path))


def _sequences(
    part: Part, paths: Sequence[Sequence[int]], branches: Sequence[int]
) -> list[tuple[int, ...]]:
    """For each node of a draft the sequences that go through it."""
    num_main = part.draft.num_main
    return [
        (
            *((part.slot,) if node < num_main else ()),
            *(branch for path, branch in zip(paths, branches, strict=True) if node in path),
        )
        for node in range(len(part.draft))
    ]
