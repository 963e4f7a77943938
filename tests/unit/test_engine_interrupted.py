"""An answer may be cut short anywhere; the next one is right, and little is computed twice."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import pytest
from fakes import (
    FakeClock,
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    collect,
    joined,
    make_engine,
    oracle,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.errors import Cancelled, GrammarError, NativeLibraryError
from edgespec.passes import Proposal
from edgespec.protocols import Target
from edgespec.types import EncodedPrompt

TOKENS = st.integers(0, 5)
PROMPTS = st.lists(TOKENS, min_size=1, max_size=30)
FAILURES: list[BaseException] = [
    Cancelled(),
    NativeLibraryError("llama_decode returned -3"),
    KeyboardInterrupt(),
]


def plain_answer(prompt: list[int], max_tokens: int = 20) -> list[int]:
    return joined(
        collect(make_engine(FakeTarget(num_context=200)), prompt, limits=Limits(max_tokens))
    )


def now_and_then_wrong(target: FakeTarget) -> FakeDrafter:
    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for index, proposal in enumerate(oracle(target)(text)):
            token = proposal.token if (len(text) + index) % 3 else 0
            yield Proposal(token, 1.0)

    return FakeDrafter(guess)


def answer_until_failure(engine: Engine, prompt: list[int], sampler: FakeSampler) -> list[int]:
    """What was emitted before something was raised (or all of it)."""
    emitted: list[int] = []
    with contextlib.suppress(Cancelled, NativeLibraryError, KeyboardInterrupt):
        for kept in run(engine, prompt, sampler, Limits(20)):
            emitted.extend(kept.tokens)
    return emitted


@settings(max_examples=300)
@given(
    PROMPTS,
    st.lists(TOKENS, min_size=1, max_size=8),
    st.integers(0, 24),
    st.sampled_from(FAILURES),
    st.booleans(),
)
def test_a_pass_that_fails_leaves_nothing_wrong_behind(
    prompt: list[int], more: list[int], fail_at: int, failure: BaseException, can_roll_back: bool
) -> None:
    target = FakeTarget(num_context=200, max_rows=4, can_roll_back=can_roll_back)
    engine = make_engine(target, now_and_then_wrong(target))
    countdown = iter([None] * fail_at)

    def fail(_tokens: Sequence[int]) -> None:
        if next(countdown, failure) is not None:
            raise failure

    target.on_pass = fail
    emitted = answer_until_failure(engine, prompt, FakeSampler())
    assert emitted == plain_answer(prompt)[: len(emitted)]
    text = prompt + emitted
    assert target.cells == text[: target.num_cached(0)]

    target.on_pass = lambda _tokens: None
    held, tally = target.num_cached(0), Tally(FakeClock())
    following = text + more
    again = joined(collect(engine, following, limits=Limits(20), tally=tally))
    assert again == plain_answer(following)
    assert tally.num_cached_tokens == held


def test_a_step_that_was_aborted_can_be_repeated() -> None:
    target = FakeTarget(num_context=200, max_rows=4)
    engine = make_engine(target, now_and_then_wrong(target))
    decoding = engine.open(EncodedPrompt((1,) * 20), FakeSampler(), Limits(40))
    emitted: list[int] = []
    while not decoding.is_over:
        target.abort()
        with pytest.raises(Cancelled):
            engine.step([decoding])
        target.resume()
        emitted.extend(engine.step([decoding])[0][1].tokens)
    assert emitted == plain_answer([1] * 20, 40)


@pytest.mark.parametrize("num_batches", [0, 1, 2, 3])
def test_cancel_while_reading_keeps_the_batches_that_were_done(num_batches: int) -> None:
    target = FakeTarget(num_context=200, num_batch=8)
    engine = make_engine(target)
    prompt = [index % 5 for index in range(30)]
    left = iter(range(num_batches))
    target.on_pass = lambda _tokens: None if next(left, None) is not None else target.abort()
    with pytest.raises(Cancelled):
        collect(engine, prompt)
    assert target.cells == prompt[: 8 * num_batches]

    target.resume()
    target.on_pass = lambda _tokens: None
    assert joined(collect(engine, prompt, limits=Limits(20))) == plain_answer(prompt)


@pytest.mark.parametrize("num_passes", [1, 2, 5])
def test_an_answer_that_is_closed_early_keeps_what_was_emitted(num_passes: int) -> None:
    target = FakeTarget(num_context=200, max_rows=4)
    engine = make_engine(target, now_and_then_wrong(target))
    passes = itertools.islice(run(engine, [1, 2], limits=Limits(60)), num_passes)
    emitted = joined(kept.tokens for kept in passes)
    assert target.cells == [1, 2, *emitted[:-1]]
    assert emitted == plain_answer([1, 2], 60)[: len(emitted)]
    tally, following = Tally(FakeClock()), [1, 2, *emitted, 4]
    again = joined(collect(engine, following, limits=Limits(20), tally=tally))
    assert again == plain_answer(following)
    assert tally.num_cached_tokens == len(following) - 2


@pytest.mark.parametrize("num_tokens", range(1, 8))
def test_an_answer_may_be_cut_within_a_pass(num_tokens: int) -> None:
    """As where a stop string ends it: the cache is that of an answer which ended there."""
    target = FakeTarget(num_context=200, max_rows=4)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    decoding = engine.open(EncodedPrompt((1, 2)), FakeSampler(), Limits(60))
    while decoding.num_emitted < num_tokens:
        engine.step([decoding])
    engine.close(decoding, num_tokens)
    assert target.cells == [1, 2, *plain_answer([1, 2])[: num_tokens - 1]]


class FailingSampler(FakeSampler):
    """A chain that raises at its draw number `fail_at`, as a grammar may."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self._fail_at = fail_at

    def sample(self, target: Target, row: int) -> int:
        if len(self.rows) == self._fail_at:
            raise GrammarError("no token is legal here")
        return super().sample(target, row)


@pytest.mark.parametrize("can_roll_back", [True, False])
@pytest.mark.parametrize("fail_at", range(6))
def test_a_sampler_that_fails_within_a_draft_ends_its_answer_alone(
    fail_at: int, can_roll_back: bool
) -> None:
    target = FakeTarget(num_context=200, max_rows=4, can_roll_back=can_roll_back)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    emitted: list[int] = []
    with pytest.raises(GrammarError):
        for kept in run(engine, [1, 2], FailingSampler(fail_at), Limits(20)):
            emitted.extend(kept.tokens)
    assert len(emitted) == fail_at
    following = [1, 2, *emitted, 3, 3]
    assert joined(collect(engine, following, limits=Limits(20))) == plain_answer(following)
