"""The cells of each slot stay in the order of its text, whatever is drafted, dropped or moved.

The context here hands out cells as llama.cpp does (`llama_kv_cache::find_slot`, `seq_rm`): from a
head that falls back to the lowest freed cell, so that holes are filled first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.llama.batch import Rows
from edgespec.llama.context import Context
from edgespec.llama.target import LlamaTarget, num_sequences
from edgespec.passes import EMPTY_DRAFT, Draft, Part, Stretch

NUM_CELLS = 96
SLIDING_WINDOW = 7


@dataclass
class Cell:
    """A cell of the cache: who uses it, at which position, for which token."""

    sequences: set[int] = field(default_factory=set)
    position: int = -1
    token: int = -1


class CellContext:
    """What `LlamaTarget` asks of a context, over cells that only remember."""

    def __init__(self, num_slots: int) -> None:
        self.options = SimpleNamespace(num_batch=32, num_sequences=num_sequences(num_slots))
        self.model = SimpleNamespace(can_roll_back=True, sliding_window=SLIDING_WINDOW)
        self.num_context = NUM_CELLS
        self.cells = [Cell() for _ in range(NUM_CELLS)]
        self.head = 0
        self.fails = False

    def compute(self, rows: Rows, *, hidden_states: bool = True) -> None:
        if self.fails:
            raise Cancelled
        self.place(rows)

    def place(self, rows: Rows) -> None:
        free = [i for i, cell in enumerate(self.cells) if not cell.sequences]
        if self.head > NUM_CELLS - len(free) + 2 * len(rows):
            self.head = 0
        ahead = [i for i in free if i >= self.head] + [i for i in free if i < self.head]
        assert len(ahead) >= len(rows), "no place in the cache"
        for index, token, position, sequences in zip(
            ahead, rows.inputs, rows.positions, rows.sequences, strict=False
        ):
            self.cells[index] = Cell(set(sequences), position, int(token))
        self.head = ahead[len(rows) - 1] + 1

    def copy_sequence(
        self, source: int, destination: int, *, start: int = -1, end: int = -1
    ) -> None:
        last = end if end >= 0 else NUM_CELLS
        for cell in self.cells:
            if source in cell.sequences and start <= cell.position < last:
                cell.sequences.add(destination)

    def remove(self, start: int, end: int = -1, *, sequence: int = 0) -> None:
        for index, cell in enumerate(self.cells):
            if sequence in cell.sequences and cell.position >= start:
                cell.sequences.remove(sequence)
                if not cell.sequences:
                    self.head = min(self.head, index)

    def clear(self) -> None:
        self.cells = [Cell() for _ in range(NUM_CELLS)]
        self.head = 0

    def save_state(self, sequence: int) -> bytes:
        """What the window sees from the last position (`llama_kv_cache::state_write`)."""
        held = [(cell.position, cell.token) for cell in self.cells if sequence in cell.sequences]
        first = max((position for position, _ in held), default=0) - SLIDING_WINDOW + 1
        return repr([each for each in held if each[0] >= first]).encode()

    def load_state(self, state: bytes, sequence: int) -> None:
        held: list[tuple[int, int]] = eval(state.decode())
        positions, tokens = [each[0] for each in held], [each[1] for each in held]
        self.place(Rows(tokens, positions, ((sequence,),) * len(held), ()))

    def last_position(self, sequence: int) -> int:
        held = (cell.position for cell in self.cells if sequence in cell.sequences)
        return max(held, default=-1)

    def synchronize(self) -> None:
        """Nothing is under way."""


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    tokens = tuple(draw(st.lists(st.integers(0, 99), max_size=5)))
    parents = tuple(
        draw(st.sampled_from([index - 1, *range(-1, index)])) for index in range(len(tokens))
    )
    return Draft(tokens, parents, (0.5,) * len(tokens), ("s",) * len(tokens))


class Layout(RuleBasedStateMachine):
    """Passes over any slots, with any drafts of which any path is kept; cuts in between."""

    @initialize(num_slots=st.integers(1, 3))
    def begin(self, num_slots: int) -> None:
        self.context = CellContext(num_slots)
        self.target = LlamaTarget(cast(Context, self.context), max_rows=16, num_slots=num_slots)
        self.texts: list[list[int]] = [[] for _ in range(num_slots)]

    def room(self) -> int:
        return NUM_CELLS - sum(map(len, self.texts))

    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def score(self, data: st.DataObject, fails: bool) -> None:
        slots = data.draw(
            st.lists(st.sampled_from(range(len(self.texts))), min_size=1, unique=True)
        )
        parts: list[Part] = []
        branches = self.target.max_branches
        for slot in slots:
            tokens = tuple(data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=8)))
            draft = data.draw(drafts())
            branches -= len(set(range(len(draft))) - set(draft.parents))
            parts.append(Part(slot, tokens, draft if branches >= 0 else EMPTY_DRAFT))
        if sum(map(len, parts)) > min(self.room(), 32):
            return
        self.context.fails = fails
        if fails:
            with pytest.raises(Cancelled):
                self.target.score(parts)
            self.context.fails = False
            return
        self.target.score(parts)
        for part in data.draw(st.permutations(parts)):
            self.keep(part, data)

    def keep(self, part: Part, data: st.DataObject) -> None:
        nodes: list[int] = []
        if part.draft:
            last = data.draw(st.integers(-1, len(part.draft) - 1))
            nodes = list(part.draft.path_to(last)) if last >= 0 else []
        self.target.keep(part.slot, nodes)
        text = self.texts[part.slot]
        text.extend(part.tokens)
        for place, node in enumerate(nodes):
            if node != place:
                break
            text.append(part.draft.tokens[node])

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(range(len(self.texts))))
        num_tokens = data.draw(st.integers(0, len(self.texts[slot])))
        self.target.truncate(slot, num_tokens)
        del self.texts[slot][num_tokens:]

    @rule(data=st.data(), fails=st.booleans())
    def restore(self, data: st.DataObject, fails: bool) -> None:
        """The text of one slot comes back into any slot, which is emptied before."""
        source, slot = (data.draw(st.sampled_from(range(len(self.texts)))) for _ in range(2))
        saved = self.target.save(source)
        text = list(self.texts[source])
        self.target.truncate(slot, 0)
        self.texts[slot] = []
        if len(text) > self.room() or fails:
            with pytest.raises(NativeLibraryError):
                self.target.restore(slot, [*saved, Stretch(int(fails), b"[]")])
            return
        self.target.restore(slot, saved)
        self.texts[slot] = text

    @invariant()
    def each_slot_holds_its_text_in_order(self) -> None:
        for slot, text in enumerate(getattr(self, "texts", [])):
            held = [cell for cell in self.context.cells if slot in cell.sequences]
            assert [cell.token for cell in held] == text
            assert [cell.position for cell in held] == list(range(len(text)))
            assert self.target.num_cached(slot) == len(text)


TestLayout = Layout.TestCase
TestLayout.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_single_slot_never_plugs_anything() -> None:
    context = CellContext(1)
    target = LlamaTarget(cast(Context, context), max_rows=16)
    draft = Draft.chain((1, 2, 3), (0.5,) * 3, "s")
    for _ in range(12):
        target.score([Part(0, (7,), draft)])
        target.keep(0, (0,))
    assert sum(bool(cell.sequences) for cell in context.cells) == 24
    target.truncate(0, 0)
    assert not any(cell.sequences for cell in context.cells)


def owners(context: CellContext) -> Sequence[set[int]]:
    return [cell.sequences for cell in context.cells if cell.sequences]


def test_what_is_dropped_between_others_is_plugged() -> None:
    context = CellContext(2)
    target = LlamaTarget(cast(Context, context), max_rows=16, num_slots=2)
    draft = Draft.chain((1, 2), (0.5,) * 2, "s")
    target.score([Part(0, (7,), draft), Part(1, (8,), draft)])
    target.keep(1, (0,))
    target.keep(0, ())
    assert owners(context) == [{0}, {2}, {2}, {1}, {1}]
    target.score([Part(0, (9,)), Part(1, (9,))])
    target.keep(1, ())
    target.keep(0, ())
    assert owners(context) == [{0}, {2}, {2}, {1}, {1}, {0}, {1}]
