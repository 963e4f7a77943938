"""An answer may be cut short anywhere; the next one is right, and little is computed twice."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

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
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.engine.engine import Engine, Limits
from edgespec.engine.tally import Tally
from edgespec.errors import Cancelled, GrammarError, NativeLibraryError
from edgespec.passes import Proposal
from edgespec.protocols import Target

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
    hook = FakeHook()
    passes = engine.generate(prompt, sampler, Limits(20), hook, Tally(FakeClock()))
    try:
        for tokens in passes:
            emitted.extend(tokens)
    except (Cancelled, NativeLibraryError, KeyboardInterrupt, GrammarError):
        pass
    return emitted


class FakeHook:
    """Never the last; raises at the token with number `fail_at`, if given."""

    def __init__(self, fail_at: int = -1) -> None:
        self._left = fail_at

    def __call__(self, _token: int, _row: int) -> bool:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return False


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
    assert target.cells == text[: target.num_cached]

    target.on_pass = lambda _tokens: None
    held = target.num_cached
    target.num_prefilled = 0
    following = text + more
    assert joined(collect(engine, following, limits=Limits(20))) == plain_answer(following)
    assert target.num_prefilled == len(following) - held


@pytest.mark.parametrize("num_batches", [0, 1, 2, 3])
def test_cancel_during_prefill_keeps_the_batches_that_were_done(num_batches: int) -> None:
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
    target.num_prefilled = 0
    assert joined(collect(engine, prompt, limits=Limits(20))) == plain_answer(prompt)
    assert target.num_prefilled == 30 - 8 * num_batches


@pytest.mark.parametrize("num_passes", [0, 1, 4])
def test_cancel_while_decoding_keeps_what_was_emitted(num_passes: int) -> None:
    target = FakeTarget(num_context=200, max_rows=4)
    engine = make_engine(target, now_and_then_wrong(target))
    emitted: list[int] = []
    hook = FakeHook()
    with pytest.raises(Cancelled):
        for tokens in engine.generate([1, 2], FakeSampler(), Limits(60), hook, Tally(FakeClock())):
            emitted.extend(tokens)
            if len(target.passes) >= num_passes:
                target.abort()
    assert len(target.passes) == num_passes
    assert target.cells == [1, 2, *emitted[:-1]]
    assert emitted == plain_answer([1, 2], 60)[: len(emitted)]

    target.resume()
    following = [1, 2, *emitted, 4]
    assert joined(collect(engine, following, limits=Limits(20))) == plain_answer(following)


def test_closing_the_answer_early_keeps_what_was_emitted() -> None:
    target = FakeTarget(num_context=200, max_rows=4)
    engine = make_engine(target, FakeDrafter(oracle(target)))
    hook = FakeHook()
    answer = engine.generate([1, 2, 3], FakeSampler(), Limits(60), hook, Tally(FakeClock()))
    emitted = joined([next(answer), next(answer)])
    assert isinstance(answer, Generator)
    answer.close()
    assert target.cells == [1, 2, 3, *emitted[:-1]]
    target.num_prefilled = 0
    following = [1, 2, 3, *emitted, 5]
    assert joined(collect(engine, following, limits=Limits(20))) == plain_answer(following)
    assert target.num_prefilled == 2


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
def test_a_sampler_or_hook_that_raises_within_a_draft_leaves_nothing_wrong(
    fail_at: int, can_roll_back: bool
) -> None:
    for by_sampler in (True, False):
        target = FakeTarget(num_context=200, max_rows=4, can_roll_back=can_roll_back)
        engine = make_engine(target, FakeDrafter(oracle(target)))
        sampler = FailingSampler(fail_at) if by_sampler else FakeSampler()
        hook = FakeHook(-1 if by_sampler else fail_at)
        emitted: list[int] = []
        with pytest.raises((GrammarError, KeyboardInterrupt)):
            for tokens in engine.generate([1, 2], sampler, Limits(20), hook, Tally(FakeClock())):
                emitted.extend(tokens)
        following = [1, 2, *emitted, 3, 3]
        assert joined(collect(engine, following, limits=Limits(20))) == plain_answer(following)
