"""Figures against computations of their own: Spec-Bench's script, and sums by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.bench.report import Figures, as_json, by_category, figures, table_rows
from edgespec.bench.runner import Pair, Run
from edgespec.bench.suite import Question

FIELDS = {
    "speedup",
    "plain_tokens_per_second",
    "tokens_per_second",
    "block_efficiency",
    "acceptance_rate",
    "identical",
    "questions",
}


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A run as the engine counts it: a pass emits what it accepts and one token more."""
    proposed = draw(st.integers(0, 300))
    accepted = draw(st.integers(0, proposed))
    passes = draw(st.integers(2, 300))
    emitted = passes + accepted
    decode_s = draw(st.floats(0.01, 100.0))
    return Run(emitted - 1, decode_s, passes, emitted, proposed, accepted)


PAIRS = st.lists(
    st.builds(
        Pair,
        question=st.builds(
            Question,
            id=st.text(max_size=4),
            category=st.sampled_from(["qa", "maths", "writing"]),
            turns=st.just(("a question",)),
        ),
        plain=runs(),
        speculative=runs(),
        identical=st.booleans(),
        num_prompt_tokens=st.integers(1, 1000),
    ),
    min_size=1,
    max_size=12,
)


def spec_bench_speedup(pairs: list[Pair]) -> tuple[float, float, float]:
    """Tokens per second with, without, and their ratio, as Spec-Bench's `speed.py` goes about it.

    It reads two files of answers, each with the new tokens and the wall time of every turn, takes
    tokens over time for each question, and divides the means.
    """
    files: dict[str, list[dict[str, Any]]] = {"fast": [], "base": []}
    for pair in pairs:
        for name, run in (("fast", pair.speculative), ("base", pair.plain)):
            choice = {"new_tokens": [run.num_tokens], "wall_time": [run.decode_s]}
            files[name].append({"choices": [choice]})
    speeds = {
        name: np.array(
            [
                sum(data["choices"][0]["new_tokens"]) / sum(data["choices"][0]["wall_time"])
                for data in answers
            ]
        )
        for name, answers in files.items()
    }
    return (
        float(speeds["fast"].mean()),
        float(speeds["base"].mean()),
        float(speeds["fast"].mean() / speeds["base"].mean()),
    )


@given(pairs=PAIRS)
def test_speeds_are_those_of_spec_bench(pairs: list[Pair]) -> None:
    value = figures(pairs)
    fast, plain, ratio = spec_bench_speedup(pairs)
    assert value.tokens_per_second == pytest.approx(fast)
    assert value.plain_tokens_per_second == pytest.approx(plain)
    assert value.speedup == pytest.approx(ratio)


@given(pairs=PAIRS)
def test_the_other_figures_are_taken_over_everything_together(pairs: list[Pair]) -> None:
    value = figures(pairs)
    fast = [pair.speculative for pair in pairs]
    assert value.questions == len(pairs)
    assert value.identical is all(pair.identical for pair in pairs)
    emitted, passes = sum(run.emitted for run in fast), sum(run.passes for run in fast)
    assert value.block_efficiency * passes == pytest.approx(emitted)
    proposed, accepted = sum(run.proposed for run in fast), sum(run.accepted for run in fast)
    assert value.acceptance_rate * proposed == pytest.approx(accepted)
    assert 0 <= value.acceptance_rate <= 1
    assert value.block_efficiency >= 1


@given(pairs=PAIRS)
def test_categories_divide_the_pairs(pairs: list[Pair]) -> None:
    categories = by_category(pairs)
    assert list(categories) == list(dict.fromkeys(pair.question.category for pair in pairs))
    assert sum(value.questions for value in categories.values()) == len(pairs)
    for name, value in categories.items():
        assert value == figures([pair for pair in pairs if pair.question.category == name])
    if len(categories) == 1:
        assert next(iter(categories.values())) == figures(pairs)
    assert table_rows(pairs) == [*categories.items(), ("overall", figures(pairs))]


@given(pairs=PAIRS)
def test_the_json_has_the_promised_form_and_the_same_figures(pairs: list[Pair]) -> None:
    report = json.loads(json.dumps(as_json(pairs, {"model": "m", "complete": True})))
    assert list(report) == ["model", "complete", "overall", "categories", "pairs"]
    expected = {**by_category(pairs), "": figures(pairs)}
    for name, shown in [*report["categories"].items(), ("", report["overall"])]:
        assert set(shown) == FIELDS
        assert type(shown["identical"]) is bool
        assert type(shown["questions"]) is int
        for field in FIELDS:
            assert shown[field] == pytest.approx(getattr(expected[name], field), abs=1e-4)
    assert len(report["pairs"]) == len(pairs)
    for pair, shown in zip(pairs, report["pairs"], strict=True):
        assert shown["question_id"] == pair.question.id
        assert shown["category"] == pair.question.category
        assert shown["tokens"] == pair.plain.num_tokens
        assert shown["target_passes"] == pair.speculative.passes
        assert shown["accepted"] <= shown["proposed"] == pair.speculative.proposed
        assert shown["identical"] is pair.identical


def pair(plain: Run, fast: Run, category: str = "a", *, identical: bool = True) -> Pair:
    return Pair(Question("1", category, ("q",)), plain, fast, identical, 5)


def test_a_worked_example() -> None:
    """Two questions: 10 and 30 tokens/s plain, 20 and 30 with; the ratio of the means is 5 : 4.

    The mean of the ratios would be 1.5, and all tokens over all seconds something else again.
    """
    pairs = [
        pair(Run(100, 10.0, 101, 101, 0, 0), Run(100, 5.0, 51, 101, 60, 50)),
        pair(Run(30, 1.0, 31, 31, 0, 0), Run(30, 1.0, 31, 31, 20, 0), identical=False),
    ]
    assert figures(pairs) == Figures(
        speedup=1.25,
        plain_tokens_per_second=20.0,
        tokens_per_second=25.0,
        block_efficiency=132 / 82,
        acceptance_rate=50 / 80,
        identical=False,
        questions=2,
    )


ONE_TOKEN = Run(0, 0.0, 1, 1, 0, 0)


def test_answers_of_one_token_have_no_speed_and_spoil_none() -> None:
    timed = pair(Run(10, 1.0, 11, 11, 0, 0), Run(10, 0.5, 6, 11, 5, 5))
    silent = pair(ONE_TOKEN, ONE_TOKEN)
    both = figures([timed, silent])
    assert (both.speedup, both.tokens_per_second) == (2.0, 20.0)
    assert both.questions == 2
    lopsided = pair(Run(10, 1.0, 11, 11, 0, 0), ONE_TOKEN, identical=False)
    assert figures([lopsided]).speedup == 0.0, "a speed needs both"
    alone = figures([silent])
    assert (alone.speedup, alone.tokens_per_second, alone.block_efficiency) == (0.0, 0.0, 1.0)
    assert all(
        math.isfinite(number)
        for number in (alone.speedup, alone.acceptance_rate, alone.plain_tokens_per_second)
    )


def test_nothing_measured() -> None:
    assert figures([]) == Figures(0.0, 0.0, 0.0, 0.0, 0.0, True, 0)
    assert by_category([]) == {}
