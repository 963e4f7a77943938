"""Several answers in one engine: whatever happens between them, each is as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from fakes import (
    FakeClock,
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    collect,
    flat_costs,
    joined,
    make_engine,
    oracle,
    run,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Decoding, Limits
from edgespec.engine.engine import LEAST_CHUNK, NUM_AHEAD, Engine
from edgespec.errors import Cancelled
from edgespec.passes import EMPTY_DRAFT, Draft, Part, Proposal
from edgespec.planning.planner import Plan, Planner, Want
from edgespec.types import EncodedPrompt

NUM_SLOTS = 3
NUM_CONTEXT = 160
PROMPTS = st.lists(st.integers(0, 5), min_size=1, max_size=20)


def alone(prompt: Sequence[int], temperature: float, max_tokens: int) -> list[int]:
    """The answer of a target that has just been started, token by token."""
    target = FakeTarget(num_context=NUM_CONTEXT, max_rows=1)
    sampler = FakeSampler(temperature, seed=len(prompt))
    return joined(collect(make_engine(target), prompt, sampler, Limits(max_tokens)))


@dataclass
class Opened:
    """An answer under way, and what it should come to."""

    decoding: Decoding
    expected: list[int]
    emitted: list[int] = field(default_factory=list)


def sometimes_wrong(target: FakeTarget) -> FakeDrafter:
    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for index, proposal in enumerate(oracle(target)(text)):
            yield Proposal(proposal.token if (len(text) + index) % 4 else 0, 0.9)

    return FakeDrafter(guess)


class Interleaving(RuleBasedStateMachine):
    """Opens, steps of any of the open answers, aborts and closes, in any order.

    Where cells are reserved for few tokens ahead, answers are put aside for others.
    """

    num_ahead = NUM_AHEAD

    def __init__(self) -> None:
        super().__init__()
        self.target = FakeTarget(num_context=NUM_CONTEXT, max_rows=5, num_slots=NUM_SLOTS)
        drafter = sometimes_wrong(self.target)
        self.engine = make_engine(self.target, drafter, num_ahead=self.num_ahead)
        self.open: list[Opened] = []

    @rule(
        prompt=PROMPTS,
        temperature=st.sampled_from([0.0, 0.8]),
        max_tokens=st.integers(1, 30),
        speculate=st.booleans(),
        reuse=st.booleans(),
    )
    def begin(
        self,
        prompt: list[int],
        temperature: float,
        max_tokens: int,
        speculate: bool,
        reuse: bool,
    ) -> None:
        limits = Limits(max_tokens, speculate, reuse)
        encoded = EncodedPrompt(tuple(prompt))
        if not self.engine.has_room(encoded, limits):
            assert self.open, "there is room where nothing is open"
            return
        sampler = FakeSampler(temperature, seed=len(prompt))
        decoding = self.engine.open(encoded, sampler, limits)
        self.open.append(Opened(decoding, alone(prompt, temperature, max_tokens)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        chosen = data.draw(
            st.lists(st.sampled_from(self.open), min_size=1, unique_by=lambda each: id(each))
        )
        by_decoding = {each.decoding: each for each in chosen}
        for decoding, kept in self.engine.step(list(by_decoding)):
            by_decoding[decoding].emitted.extend(kept.tokens)
        for each in chosen:
            if each.decoding.is_over:
                assert each.emitted == each.expected
                self.end(each)

    @precondition(lambda self: self.open)
    @rule()
    def abort(self) -> None:
        self.target.abort()
        with pytest.raises(Cancelled):  # the eldest always has a pass
            self.engine.step([each.decoding for each in self.open])
        self.target.resume()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.open))
        self.end(each, num_tokens=data.draw(st.integers(0, len(each.emitted))))

    @rule()
    def forget(self) -> None:
        self.engine.forget()

    @invariant()
    def what_was_said_is_what_would_be_said_alone(self) -> None:
        for each in self.open:
            assert each.emitted == each.expected[: len(each.emitted)]

    def end(self, each: Opened, num_tokens: int | None = None) -> None:
        self.engine.close(each.decoding, num_tokens)
        self.open.remove(each)


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class Crowded(Interleaving):
    """The same, with more answers than the cells can hold at their ends."""

    num_ahead = 6

    def __init__(self) -> None:
        super().__init__()
        self.target.num_context = 60


TestCrowded = Crowded.TestCase
TestCrowded.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_answers_share_a_pass() -> None:
    target = FakeTarget(num_context=200, max_rows=8, num_slots=2)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    prompts = ([1, 2, 3], [4, 4, 0])
    decodings = [
        engine.open(EncodedPrompt(tuple(prompt)), FakeSampler(), Limits(13)) for prompt in prompts
    ]
    for decoding in decodings:  # a prompt is read alone
        engine.step([decoding])
    emitted = engine.step(decodings)
    assert [decoding for decoding, _ in emitted] == decodings
    assert sum(kept.record.num_rows for _, kept in emitted) == 8
    assert {kept.record.num_pass_rows for _, kept in emitted} == {8}


def test_a_pass_with_too_few_exact_rows_goes_round() -> None:
    target = FakeTarget(num_context=200, max_rows=2, num_slots=3)
    engine = make_engine(target)
    decodings = [
        engine.open(EncodedPrompt((1, number)), FakeSampler(), Limits(10)) for number in range(3)
    ]
    for decoding in decodings:
        engine.step([decoding])
    for _ in range(6):
        assert len(engine.step(decodings)) == 2
    assert {decoding.num_emitted for decoding in decodings} == {5}


def reading_beside(
    *, reads_alike: bool = True, lengths: Sequence[int] = (160,), row_ms: float = 0.1
) -> list[tuple[int, int]]:
    """Who had each pass until all prompts are read, and how many rows; the first one writes.

    A pass takes 10 ms, and so much more for each row.
    """
    target = FakeTarget(num_context=900, max_rows=4, num_slots=4, num_batch=64)
    target.reads_alike = reads_alike
    clock = FakeClock(tick=0.0)
    target.on_pass = lambda tokens: clock.pass_by((10.0 + row_ms * len(tokens)) / 1e3)
    engine = make_engine(target, clock=clock)
    prompts = [(1, 2), *[(1, number) * (length // 2) for number, length in enumerate(lengths)]]
    decodings = []
    for prompt in prompts:
        limits = Limits(100, reuse_prefix=False)
        decodings.append(engine.open(EncodedPrompt(prompt), FakeSampler(), limits))
        if len(decodings) == 1:
            engine.step(decodings)
    passes = []
    while any(not each.num_emitted for each in decodings):
        emitted = engine.step(decodings)
        passes.append((decodings.index(emitted[0][0]), emitted[0][1].record.num_rows))
    return passes


def test_a_prompt_is_read_in_turns_with_the_answers_of_others() -> None:
    passes = [who for who, _ in reading_beside()]
    assert passes == [0, 1] * (len(passes) // 2)


@pytest.mark.parametrize(("row_ms", "most"), [(0.1, 64), (0.5, 44), (5.0, LEAST_CHUNK)])
def test_others_wait_for_a_few_of_their_own_passes(row_ms: float, most: int) -> None:
    """Where rows cost much, fewer are read at a time; the first are those that T(r) promises."""
    rows = [count for who, count in reading_beside(row_ms=row_ms) if who == 1]
    assert sum(rows) == 160
    assert 0.5 * most <= max(rows[1:-1], default=64) <= most
    if most > LEAST_CHUNK:
        assert all(10.0 + row_ms * count <= 3.1 * (10.0 + row_ms) for count in rows[1:])


def test_where_pieces_would_change_bits_prompts_are_read_whole() -> None:
    rows = [count for who, count in reading_beside(reads_alike=False, row_ms=50.0) if who == 1]
    assert rows == [64, 64, 32]


def test_of_several_prompts_the_eldest_and_the_shortest_have_turns() -> None:
    passes = [who for who, _ in reading_beside(reads_alike=False, lengths=(200, 130, 60))]
    assert [who for who in passes if who] == [3, 1, 2, 1, 2, 1, 2, 1]
    alike = [who for who, _ in reading_beside(reads_alike=False, lengths=(160, 160))]
    assert [who for who in alike if who] == [1, 1, 1, 2, 2, 2], "the first is not kept waiting"


def test_the_more_prompts_wait_the_more_is_read_at_a_time() -> None:
    one = reading_beside(row_ms=2.0)
    two = reading_beside(row_ms=2.0, lengths=(160, 160))
    assert two[5][1] > 2 * one[5][1], "where passes of the first told what rows take"


def test_an_answer_is_put_aside_for_an_elder_one_and_comes_back() -> None:
    target = FakeTarget(num_context=80, max_rows=2, num_slots=3)
    engine = make_engine(target, num_ahead=8)
    decodings = []
    for number in range(3):
        prompt = EncodedPrompt((number, 1, 2))
        assert engine.has_room(prompt, Limits(70)), "cells are reserved as answers grow"
        decodings.append(engine.open(prompt, FakeSampler(), Limits(70)))
    ended: list[Decoding] = []
    read = 0
    while decodings:
        eldest = decodings[0]
        for decoding, kept in engine.step(decodings):
            read += kept.progress is not None
            if decoding.is_over:
                engine.close(decoding)
                decodings.remove(decoding)
                ended.append(decoding)
        assert eldest.aside is None, "the eldest never waits"
        if any(each.aside is not None for each in decodings):
            assert not engine.has_room(EncodedPrompt((1,)), Limits(1)), "who is aside comes first"
    assert read == 3, "nothing is computed twice"
    assert [each.prompt.tokens[0] for each in ended] == [0, 1, 2]
    for each in ended:
        assert each.text[3:] == alone(each.prompt.tokens, 0.0, 70)


def test_what_was_computed_for_one_is_not_used_for_another() -> None:
    target = FakeTarget(num_context=300, num_slots=3)
    engine = make_engine(target)
    prompt = tuple(range(6))
    cached = []
    for owner in ("", "a", "b", "a", ""):
        kept = next(run(engine, prompt, limits=Limits(4, owner=owner)))
        assert kept.progress is not None
        cached.append(kept.progress.num_cached)
    assert cached == [0, 0, 0, 5, 5]


def test_an_idle_slot_is_forgotten_to_make_room_the_oldest_first() -> None:
    target = FakeTarget(num_context=60, num_slots=3)
    engine = make_engine(target)
    for prompt in ([1, 1, 1], [2, 2, 2]):
        collect(engine, prompt, limits=Limits(12))
    oldest, newest, _ = target.texts
    assert (oldest[0], newest[0]) == (1, 2)
    decoding = engine.open(EncodedPrompt((3, 3, 3)), FakeSampler(), Limits(42))
    assert (oldest, len(newest)) == ([], 14)
    engine.close(decoding)


def test_the_next_turn_finds_its_own_slot() -> None:
    target = FakeTarget(num_context=200, num_slots=2)
    engine = make_engine(target)
    said = {}
    for prompt in ((1, 2, 3, 4), (5, 4, 3, 2)):
        said[prompt] = joined(collect(engine, prompt, limits=Limits(8)))
    for prompt in said:
        kept = next(run(engine, (*prompt, *said[prompt], 0), limits=Limits(8)))
        assert kept.progress is not None
        assert kept.progress.num_cached == len(prompt) + 7


def test_sessions_of_several_answers_keep_apart() -> None:
    target = FakeTarget(num_context=300, max_rows=6, num_slots=3)
    engine = make_engine(target, ContextDrafter())
    prompts = ([1, 2, 3] * 5, [3, 2, 1] * 5, [0, 5] * 5)
    opened = {
        engine.open(EncodedPrompt(tuple(prompt)), FakeSampler(), Limits(40)): alone(prompt, 0.0, 40)
        for prompt in prompts
    }
    emitted: dict[Decoding, list[int]] = {decoding: [] for decoding in opened}
    while running := [decoding for decoding in opened if not decoding.is_over]:
        for decoding, kept in engine.step(running):
            emitted[decoding].extend(kept.tokens)
    assert emitted == opened


class TreePlanner(Planner):
    """Plans a tree about the truth: a chain that goes wrong somewhere, with siblings."""

    def __init__(self, target: FakeTarget, wrong_at: int) -> None:
        super().__init__([], flat_costs(), lambda: 1.0)
        self.target = target
        self.wrong_at = wrong_at
        self.text: list[int] = []

    def plan(self, wants: Sequence[Want], max_rows: int) -> list[Plan]:
        return [Plan(self.tree() if want.max_draft >= 4 else EMPTY_DRAFT) for want in wants]

    def tree(self) -> Draft:
        """Two main nodes and a sibling for each; the one at `wrong_at` is right, if any is."""
        tokens: list[int] = []
        for _ in range(2):
            tokens.append(self.target.next_token([*self.text, *tokens]))
        wrong = [(token + 1) % 6 for token in tokens]
        main = [wrong[i] if i == self.wrong_at else tokens[i] for i in range(2)]
        other = [tokens[i] if i == self.wrong_at else wrong[i] for i in range(2)]
        return Draft((*main, *other), (-1, 0, -1, 0), (0.5,) * 4, ("tree",) * 4)


class Watched(FakeTarget):
    """Notes the parts of each pass."""

    def __init__(self) -> None:
        super().__init__(num_context=200, max_rows=8)
        self.parts: list[Part] = []

    def score(self, parts: Sequence[Part]) -> None:
        self.parts.extend(parts)
        super().score(parts)


@pytest.mark.parametrize("wrong_at", [0, 1, 2])
def test_a_sibling_that_is_kept_is_sent_once_more(wrong_at: int) -> None:
    """Its cell is out of order: the next pass begins with its token, and all goes on as before."""
    target = Watched()
    planner = TreePlanner(target, wrong_at)
    engine = Engine(target, planner, lambda _token: False, lambda: 1.0)
    decoding = engine.open(EncodedPrompt((1, 2, 3)), FakeSampler(), Limits(40))
    emitted: list[int] = []
    while not decoding.is_over:
        planner.text = list(decoding.text)
        [(_, kept)] = engine.step([decoding])
        emitted.extend(kept.tokens)
    assert emitted == alone([1, 2, 3], 0.0, 40)
    num_again = {0: 2, 1: 2, 2: 1}[wrong_at]
    drafted = [len(part.tokens) for part in target.parts if part.draft]
    assert set(drafted[1:]) == {num_again}
