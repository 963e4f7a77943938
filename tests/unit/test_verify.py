"""Sample and compare: what a pass emits, draw by draw."""

from __future__ import annotations

import pytest
from fakes import FakeTarget, ScriptedSampler
from hypothesis import given
from hypothesis import strategies as st

from edgespec.engine.verify import Verified, verify
from edgespec.errors import GrammarError
from edgespec.passes import EMPTY_DRAFT, Draft, Part
from edgespec.protocols import Target

VOCABULARY = 5
TOKENS = st.integers(0, VOCABULARY - 1)


def scored(draft: Draft) -> FakeTarget:
    """A target after a pass over a kept token and `draft`."""
    target = FakeTarget(num_vocab=VOCABULARY, max_rows=32)
    target.score([Part(0, (0,), draft)])
    return target


def chain(*tokens: int) -> Draft:
    return Draft.chain(tokens, (0.5,) * len(tokens), "s")


@st.composite
def trees(draw: st.DrawFn) -> Draft:
    """Any tree of up to ten nodes, siblings that say the same included."""
    tokens = tuple(draw(st.lists(TOKENS, max_size=10)))
    parents = tuple(draw(st.integers(-1, index - 1)) for index in range(len(tokens)))
    return Draft(tokens, parents, (0.5,) * len(tokens), ("s",) * len(tokens))


def never(_token: int) -> bool:
    return False


def check(draft: Draft, said: list[int], last: int | None = None) -> Verified:
    """Verify a draft where the target says `said` and ends with the token `last`."""
    sampler = ScriptedSampler(said)
    verified = verify(scored(draft), sampler, draft, 0, lambda token: token == last)
    assert list(verified.tokens) == said[: len(verified.tokens)]
    assert sampler.rows == [0, *(1 + node for node in verified.path)], "one draw a token"
    assert [draft.tokens[node] for node in verified.path] == list(verified.tokens[:-1])
    return verified


@pytest.mark.parametrize("wrong_at", range(5))
def test_a_chain_is_kept_up_to_its_first_wrong_token(wrong_at: int) -> None:
    truth = [1, 2, 3, 4, 0]
    guess = [*truth[:4]]
    if wrong_at < 4:
        guess[wrong_at] = 0
    verified = check(chain(*guess), truth)
    assert verified == Verified(tuple(truth[: wrong_at + 1]), tuple(range(wrong_at)))


@given(trees(), st.lists(TOKENS, min_size=11, max_size=11), st.none() | TOKENS)
def test_of_any_tree_the_longest_path_that_was_said_is_kept(
    draft: Draft, said: list[int], last: int | None
) -> None:
    verified = check(draft, said, last)
    end = said.index(last) if last in said else len(said)
    paths = [draft.path_to(node) for node in range(len(draft))]
    right = [path for path in paths if [draft.tokens[node] for node in path] == said[: len(path)]]
    # A node that says what ended the answer is not followed; of equal siblings the first is.
    first = {path for path in right if all(_is_first(draft, node) for node in path)}
    longest = max((path for path in first if len(path) <= end), key=len, default=())
    assert verified.path == longest
    assert verified.ends == (len(longest) == end)


def _is_first(draft: Draft, node: int) -> bool:
    return draft.child(draft.parents[node], draft.tokens[node]) == node


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_answer_may_end_within_a_right_draft(last: int) -> None:
    verified = check(chain(1, 2, 3), [1, 2, 3, 4], last)
    assert verified.ends
    assert verified.tokens == (1, 2, 3)[:last]


def test_the_end_may_be_the_token_that_proves_the_draft_wrong() -> None:
    assert check(chain(1, 2, 3), [1, 4], last=4) == Verified((1, 4), (0,), ends=True)


def test_without_a_draft_one_token_is_drawn() -> None:
    assert check(EMPTY_DRAFT, [3]) == Verified((3,), ())


def test_rows_are_counted_from_the_answers_first_one() -> None:
    target = FakeTarget(num_vocab=VOCABULARY, max_rows=8, num_slots=2)
    target.score([Part(0, (0,), chain(1)), Part(1, (2,), chain(3))])
    sampler = ScriptedSampler([3, 4])
    assert verify(target, sampler, chain(3), 2, never).tokens == (3, 4)
    assert sampler.rows == [2, 3]


def test_a_sampler_that_cannot_go_on_is_not_asked_again() -> None:
    class Failing(ScriptedSampler):
        def sample(self, target: Target, row: int) -> int:
            if row == 1:
                raise GrammarError("no token is legal here")
            return super().sample(target, row)

    draft = chain(1, 2)
    verified = verify(scored(draft), Failing([1]), draft, 0, never)
    assert (verified.tokens, verified.path) == ((1,), (0,))
    assert isinstance(verified.error, GrammarError)
