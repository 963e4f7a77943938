"""Several answers of one completer, taken by one thread or many: each is as if it were alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from completers import A, B, Notebook, Rig, alone, completion_of, drafter_of, said
from hypothesis import given
from hypothesis import strategies as st

from edgespec.passes import Part
from edgespec.protocols import Answer
from edgespec.types import Chunk, CompletionRequest, SamplingParams

PATIENCE_S = 30.0
TEXTS = st.text("abc ", min_size=1, max_size=20)
REQUESTS = st.builds(
    CompletionRequest,
    TEXTS,
    st.builds(SamplingParams, temperature=st.sampled_from([0.0, 0.8]), seed=st.integers(0, 99)),
    max_tokens=st.integers(1, 30),
    stop=st.lists(st.text("abc", min_size=1, max_size=2), max_size=1).map(tuple),
    speculate=st.booleans(),
)


@given(
    st.lists(REQUESTS, min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from(["context", "oracle", "none"]),
    st.data(),
)
def test_answers_iterated_in_any_order_are_each_as_alone(
    requests: list[CompletionRequest], num_slots: int, kind: str, data: st.DataObject
) -> None:
    """One thread takes chunks of any of them; some are cancelled or closed on the way."""
    notebook = Notebook()
    rig = Rig(drafter_of(kind), num_context=160, num_slots=num_slots, observer=notebook)
    answers = [rig.ask(request) for request in requests]
    chunks: list[list[Chunk]] = [[] for _ in requests]
    running = list(range(len(requests)))
    cancelled: set[int] = set()
    while running:
        place = data.draw(st.sampled_from(running))
        if data.draw(st.integers(0, 19)) == 0:
            cancelled.add(place)
            answers[place].cancel()
        chunk = next(answers[place], None)
        if chunk is None:
            running.remove(place)
        else:
            chunks[place].append(chunk)
    for place, request in enumerate(requests):
        completion = completion_of(chunks[place])
        assert "".join(chunk.text for chunk in chunks[place]) == completion.text
        expected = alone(request)
        if completion.finish_reason == "cancelled":
            assert place in cancelled
            count = len(completion.token_ids)
            assert completion.token_ids == expected.token_ids[:count]
        else:
            assert said(completion) == said(expected)
    assert all(sampler.closed for sampler in rig.samplers)
    for notes in notebook.notes:
        [completion_or_none] = notes.closed
        assert completion_or_none is not None
        assert notes.tokens == completion_or_none.token_ids


@contextmanager
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("num_slots", [1, 3])
@pytest.mark.parametrize("kind", ["context", "oracle"])
def test_answers_iterated_by_several_threads_are_each_as_alone(num_slots: int, kind: str) -> None:
    requests = [
        CompletionRequest(
            "abc"[place % 3] * (1 + 3 * place),
            SamplingParams(temperature=0.8 * (place % 2), seed=place),
            max_tokens=5 + 2 * place,
        )
        for place in range(12)
    ]
    rig = Rig(drafter_of(kind), num_context=200, num_slots=num_slots)
    in_pass = threading.Lock()
    score = rig.target.score

    def one_at_a_time(parts: Sequence[Part]) -> None:
        assert in_pass.acquire(blocking=False), "two threads compute at a time"
        score(parts)
        in_pass.release()

    rig.target.score = one_at_a_time  # type: ignore[method-assign]
    with eager_switching(), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(rig.answer, requests, timeout=PATIENCE_S))
    assert [said(each) for each in answers] == [said(alone(request)) for request in requests]


def test_an_answer_that_nobody_takes_holds_nobody_up() -> None:
    """It is computed along with others, in its turn, and what it gives waits for its taker."""
    rig = Rig(num_context=200)
    requests = [CompletionRequest("ab", max_tokens=9), CompletionRequest("bca", max_tokens=30)]
    left, taken = map(rig.ask, requests)
    assert said(completion_of(list(taken))) == said(alone(requests[1]))
    assert said(completion_of(list(left))) == said(alone(requests[0]))


def test_answers_share_passes() -> None:
    rig = Rig(script=[A, B] * 50, num_context=400, num_slots=2)
    request = CompletionRequest("abc", max_tokens=30)
    first, second = rig.ask(request), rig.ask(request)
    completion_of(list(first))
    assert len(rig.target.passes) <= 2 + 30
    assert completion_of(list(second)).text == "ab" * 15


def test_an_answer_is_one() -> None:
    answer: Answer = Rig(script=[A, B, A]).ask(CompletionRequest("abc", max_tokens=3))
    assert iter(answer) is answer
    assert len(list(answer)) == 4
    assert list(answer) == [], "what is over stays over"
    answer.close()
