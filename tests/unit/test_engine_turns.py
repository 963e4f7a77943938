"""Prefix reuse: what the cache holds of the conversation is not computed again."""

from __future__ import annotations

from fakes import FakeDrafter, FakeSampler, FakeTarget, collect, joined, make_engine, oracle
from hypothesis import given
from hypothesis import strategies as st

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.engine import Limits
from edgespec.engine.tally import Tally

TOKENS = st.integers(0, 5)


def fresh_answer(prompt: list[int], max_tokens: int, temperature: float) -> list[int]:
    """The answer to `prompt` of a target that has just been started."""
    engine = make_engine(FakeTarget(num_context=400))
    return joined(collect(engine, prompt, FakeSampler(temperature), Limits(max_tokens)))


def shared_prefix(left: list[int], right: list[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, list[int], int]]:
    """Per turn: tokens to take back of the text so far, tokens to add, tokens to answer."""
    turn = st.tuples(
        st.just(0) | st.integers(0, 30),
        st.lists(TOKENS, min_size=1, max_size=15),
        st.integers(1, 9),
    )
    return draw(st.lists(turn, min_size=1, max_size=5))


@given(
    conversations(),
    st.sampled_from(["oracle", "context"]),
    st.sampled_from([0.0, 0.8]),
    st.booleans(),
)
def test_every_turn_is_answered_as_if_it_were_the_first(
    turns: list[tuple[int, list[int], int]], kind: str, temperature: float, can_roll_back: bool
) -> None:
    target = FakeTarget(num_context=400, max_rows=4, can_roll_back=can_roll_back)
    drafter = ContextDrafter() if kind == "context" else FakeDrafter(oracle(target))
    engine = make_engine(target, drafter)
    text: list[int] = []
    for num_taken_back, added, max_tokens in turns:
        prompt = text[: max(len(text) - num_taken_back, 0)] + added
        cached = list(target.cells)
        target.num_prefilled = 0
        tally = Tally(lambda: 1.0)
        answer = joined(
            collect(engine, prompt, FakeSampler(temperature), Limits(max_tokens), tally=tally)
        )
        assert answer == fresh_answer(prompt, max_tokens, temperature)
        shared = shared_prefix(cached, prompt[:-1])
        if not can_roll_back and shared < len(cached):
            shared = 0
        assert target.num_prefilled == len(prompt) - shared
        assert (tally.num_prompt_tokens, tally.num_cached_tokens) == (len(prompt), shared)
        text = prompt + answer
        assert target.cells == text[:-1]


def test_a_turn_that_continues_costs_only_what_is_new() -> None:
    target = FakeTarget(num_context=200)
    engine = make_engine(target)
    answer = joined(collect(engine, [1, 2, 3, 4], limits=Limits(10)))
    target.num_prefilled = 0
    collect(engine, [1, 2, 3, 4, *answer, 5, 5], limits=Limits(10))
    assert target.num_prefilled == 3, (
        "the answer's last token, which no pass had read, and two more"
    )


def test_the_same_prompt_again_costs_one_token() -> None:
    target = FakeTarget(num_context=200)
    engine = make_engine(target)
    first = joined(collect(engine, [1, 2, 3, 4]))
    target.num_prefilled = 0
    assert joined(collect(engine, [1, 2, 3, 4])) == first
    assert target.num_prefilled == 1


def test_reuse_switched_off_computes_the_whole_prompt() -> None:
    target = FakeTarget(num_context=200)
    engine = make_engine(target)
    first = joined(collect(engine, [1, 2, 3, 4]))
    target.num_prefilled = 0
    again = joined(collect(engine, [1, 2, 3, 4], limits=Limits(16, reuse_prefix=False)))
    assert again == first
    assert target.num_prefilled == 4


def test_forgetting_empties_the_cache() -> None:
    target = FakeTarget(num_context=200)
    engine = make_engine(target)
    first = joined(collect(engine, [1, 2, 3, 4]))
    engine.forget()
    assert target.num_cached == 0
    target.num_prefilled = 0
    assert joined(collect(engine, [1, 2, 3, 4])) == first
    assert target.num_prefilled == 4
