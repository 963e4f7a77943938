"""Sample and compare: what a pass emits, draw by draw."""

from __future__ import annotations

import pytest
from fakes import FakeTarget, ScriptedSampler
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine.verify import verify
from edgespec.passes import EMPTY_DRAFT, Draft

VOCABULARY = 5
TOKENS = st.integers(0, VOCABULARY - 1)


def scored(draft: Draft) -> FakeTarget:
    """A target after a pass over a kept token and `draft`."""
    target = FakeTarget(num_vocab=VOCABULARY, max_rows=32)
    target.score([0, *draft.tokens])
    return target


def chain(*tokens: int) -> Draft:
    return Draft.chain(tokens, (0.5,) * len(tokens), "s")


def never(_token: int, _row: int) -> bool:
    return False


@pytest.mark.parametrize("wrong_at", range(5))
def test_a_draft_is_kept_up_to_its_first_wrong_token(wrong_at: int) -> None:
    truth = [1, 2, 3, 4, 0]
    guess = [*truth[:4]]
    if wrong_at < 4:
        guess[wrong_at] = 0
    draft = chain(*guess)
    sampler = ScriptedSampler(truth)
    verified = verify(scored(draft), sampler, draft, never)
    assert verified.tokens == tuple(truth[: wrong_at + 1])
    assert not verified.ended
    assert sampler.rows == list(range(wrong_at + 1))


@given(st.lists(TOKENS, max_size=8), st.lists(TOKENS, min_size=9, max_size=9))
def test_what_is_emitted_is_what_the_sampler_said(guess: list[int], said: list[int]) -> None:
    draft = chain(*guess)
    sampler = ScriptedSampler(said)
    seen: list[tuple[int, int]] = []

    def watch(token: int, row: int) -> bool:
        seen.append((token, row))
        return False

    verified = verify(scored(draft), sampler, draft, watch)
    emitted = len(verified.tokens)
    assert list(verified.tokens) == said[:emitted]
    assert sampler.rows == list(range(emitted))
    assert seen == list(zip(said, range(emitted), strict=False))
    assert list(verified.tokens[:-1]) == guess[: emitted - 1]
    assert emitted == len(guess) + 1 or verified.tokens[-1] != guess[emitted - 1]


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_answer_may_end_within_a_right_draft(last: int) -> None:
    draft = chain(1, 2, 3)
    sampler = ScriptedSampler([1, 2, 3, 4])
    verified = verify(scored(draft), sampler, draft, lambda token, _row: token == last)
    assert verified.ended
    assert verified.tokens == (1, 2, 3)[:last]
    assert sampler.rows == list(range(last)), "nothing is drawn after the end"


def test_the_end_may_be_the_token_that_proves_the_draft_wrong() -> None:
    draft = chain(1, 2, 3)
    verified = verify(scored(draft), ScriptedSampler([1, 4]), draft, lambda token, _row: token == 4)
    assert verified.tokens == (1, 4)
    assert verified.ended


def test_without_a_draft_one_token_is_drawn() -> None:
    sampler = ScriptedSampler([3])
    verified = verify(scored(EMPTY_DRAFT), sampler, EMPTY_DRAFT, never)
    assert verified.tokens == (3,)
    assert sampler.rows == [0]


def test_a_sampler_that_fails_is_not_asked_again() -> None:
    draft = chain(1, 2)
    sampler = ScriptedSampler([1])
    with pytest.raises(StopIteration):
        verify(scored(draft), sampler, draft, never)
    assert sampler.rows == [0, 1]
