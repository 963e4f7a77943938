"""Sampler values that make no sense are refused, by name and range, before anything is built."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import UsageError
from edgespec.llama.sampler import check_sampling
from edgespec.types import SamplingParams

NUM_VOCAB = 512

RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 1 << 30),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.01, 100.0),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "penalty_last_n": (0, 1 << 20),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 100.0),
    "dry_allowed_length": (0, 1 << 20),
    "dry_penalty_last_n": (0, 1 << 20),
    "seed": (0, 0xFFFFFFFE),
}
NAMES = sorted(RANGES)
NUMBERS = [field.name for field in dataclasses.fields(SamplingParams) if field.name in RANGES]


def with_value(name: str, value: float) -> SamplingParams:
    return dataclasses.replace(SamplingParams(), **{name: value})  # type: ignore[arg-type]


def check_refused(params: SamplingParams, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_sampling(params, NUM_VOCAB)
    message = str(caught.value)
    assert name in message
    assert message.isprintable()
    assert caught.value.remedy


def test_every_number_has_a_range() -> None:
    others = {"logit_bias", "constraint"}
    assert {field.name for field in dataclasses.fields(SamplingParams)} == set(NUMBERS) | others


def test_the_defaults_make_sense() -> None:
    check_sampling(SamplingParams(), NUM_VOCAB)


@pytest.mark.parametrize("name", NAMES)
def test_the_ends_of_a_range_are_in_it(name: str) -> None:
    for value in RANGES[name]:
        check_sampling(with_value(name, value), NUM_VOCAB)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_beyond_a_range_is_refused(name: str) -> None:
    low, high = RANGES[name]
    step = 1 if isinstance(low, int) else 1e-3
    for value in (low - step, high + step, math.inf, -math.inf, math.nan):
        check_refused(with_value(name, value), name)


@given(st.sampled_from(NAMES), st.floats(allow_nan=True))
def test_any_number_is_either_in_range_or_refused(name: str, value: float) -> None:
    low, high = RANGES[name]
    if low <= value <= high:
        check_sampling(with_value(name, value), NUM_VOCAB)
    else:
        check_refused(with_value(name, value), name)


@pytest.mark.parametrize(
    "bias",
    [(-1, 1.0), (NUM_VOCAB, 1.0), (1 << 40, 1.0), (5, math.nan), (5, math.inf), (5, -math.inf)],
)
def test_a_bias_of_nothing_or_without_number_is_refused(bias: tuple[int, float]) -> None:
    check_refused(SamplingParams(logit_bias=((0, 1.0), bias)), "logit_bias")


def test_a_bias_within_the_vocabulary_makes_sense() -> None:
    check_sampling(SamplingParams(logit_bias=((0, -100.0), (NUM_VOCAB - 1, 100.0))), NUM_VOCAB)
