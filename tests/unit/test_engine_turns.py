"""Prefix reuse: what the cache holds of the conversation is not computed again."""

from __future__ import annotations

from fakes import FakeDrafter, FakeSampler, FakeTarget, collect, joined, make_engine, oracle, run
from hypothesis import given
from hypothesis import strategies as st

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
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
        tally = Tally(lambda: 1.0)
        sampler = FakeSampler(temperature)
        answer = joined(collect(engine, prompt, sampler, Limits(max_tokens), tally))
        assert answer == fresh_answer(prompt, max_tokens, temperature)
        shared = shared_prefix(cached, prompt[:-1])
        if not can_roll_back and shared < len(cached):
            shared = 0
        assert (tally.num_prompt_tokens, tally.num_cached_tokens) == (len(prompt), shared)
        text = prompt + answer
        assert target.cells == text[:-1]


_LIMITS = Limits(16)


def num_read(engine: Engine, prompt: list[int], limits: Limits = _LIMITS) -> int:
    """Tokens of the prompt that are computed for an answer."""
    read = [kept for kept in run(engine, prompt, limits=limits) if kept.progress is not None]
    return sum(kept.record.num_rows for kept in read)


def test_only_what_is_new_is_read() -> None:
    """Of a turn that goes on: the answer's last token, which no pass had read, and two more."""
    target = FakeTarget(num_context=200)
    engine = make_engine(target)
    assert num_read(engine, [1, 2, 3, 4]) == 4
    answer = target.cells[4:]
    assert num_read(engine, [1, 2, 3, 4]) == 1
    assert num_read(engine, [1, 2, 3, 4], Limits(16, reuse_prefix=False)) == 4
    following = [1, 2, 3, 4, *answer, target.next_token(target.cells), 5, 5]
    assert num_read(engine, following) == 3
    engine.forget()
    assert target.num_cached(0) == 0
    assert num_read(engine, [1, 2, 3, 4]) == 4
