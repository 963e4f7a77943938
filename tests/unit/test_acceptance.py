"""Acceptance estimates: the head against batch fits, which of two serves, what is kept."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.estimates.acceptance import (
    NUM_OWN,
    SPREAD,
    Acceptance,
    AcceptanceHead,
    copied_features,
    log_odds,
    resumed_features,
)
from edgespec.estimates.counts import Calibration
from edgespec.passes import Proposal

PRIOR = (0.0, 1.0, 0.0, 0.0, 0.0)
"""Of one feature besides the head's own."""


def acceptance(prior: Sequence[float] = PRIOR) -> Acceptance:
    return Acceptance(Calibration([0.3, 0.8]), prior)


def stream(
    num_guesses: int, truth: Sequence[float], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Features, the first always 1, and outcomes that a logistic model with `truth` gives."""
    drawn = np.random.default_rng(seed)
    features = np.column_stack(
        [np.ones(num_guesses), drawn.standard_normal((num_guesses, len(truth) - 1))]
    )
    shares = 1 / (1 + np.exp(-features @ np.asarray(truth)))
    return features, drawn.random(num_guesses) < shares


def fitted(features: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The likeliest weights under the head's prior, by Newton's method over all guesses at once."""
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        shares = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (shares - kept) + weights / SPREAD**2
        curvature = (features.T * (shares * (1 - shares))) @ features
        weights -= np.linalg.solve(curvature + np.eye(len(weights)) / SPREAD**2, slope)
    return weights


def test_one_guess_after_the_other_comes_to_what_all_at_once_do() -> None:
    features, kept = stream(400, (0.3, 0.8, -0.5))
    head = AcceptanceHead([0.0, 0.0, 0.0])
    for row, right in zip(features.tolist(), kept, strict=True):
        head.observe(row, bool(right))
    assert head.weights == pytest.approx(fitted(features, kept), abs=0.06)


def test_it_finds_the_truth_and_follows_it_when_it_changes() -> None:
    head = AcceptanceHead([0.0, 0.0, 0.0])
    for truth in ((0.5, 1.0, -1.0), (-0.5, -1.0, 1.0)):
        features, kept = stream(12000, truth, seed=3)
        for row, right in zip(features.tolist(), kept, strict=True):
            head.observe(row, bool(right))
        assert head.weights == pytest.approx(truth, abs=0.3)


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.floats(-4, 4), st.booleans()), min_size=1, max_size=60
    )
)
def test_an_estimate_is_always_a_probability(guesses: list[tuple[float, float, bool]]) -> None:
    head = AcceptanceHead([0.0, 1.0, 0.0])
    for wild, tame, kept in guesses:
        assert 0 < head.estimate((1.0, tame, wild)) < 1
        head.observe((1.0, tame, wild), kept)
        assert np.isfinite(head.weights).all()
    variances = np.diag(head.export()[3:].reshape(3, 3))
    assert (variances >= -1e-9).all()
    assert (variances <= SPREAD**2 + 1e-9).all(), "it never knows less than at first"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_log_odds_are_undone_by_the_estimate(share: float) -> None:
    assert AcceptanceHead([0.0, 1.0]).estimate((1.0, log_odds(share))) == pytest.approx(share)


def test_log_odds_have_limits() -> None:
    limit = math.log(0.9975 / 0.0025)
    assert (log_odds(0.0), log_odds(1.0)) == pytest.approx((-limit, limit))


def test_at_first_the_estimate_is_the_count() -> None:
    fresh = acceptance()
    for kind, share in enumerate((0.3, 0.8)):
        assert fresh.estimate(kind) == pytest.approx(share)
        assert fresh.estimate(kind, (2.0,)) == pytest.approx(share)


def learn(estimates: Acceptance, num_guesses: int, share_of: dict[float, float]) -> None:
    """Guesses of kind 0 that are kept by the share for their feature."""
    drawn = random.Random(1)
    for _ in range(num_guesses):
        feature = drawn.choice(list(share_of))
        held = drawn.random() < share_of[feature]
        estimates.begin()  # whatever was kept before tells nothing here
        estimates.learn([Proposal(int(held), 0.0, 0, (feature,))], [1])


def test_the_head_serves_where_a_feature_tells() -> None:
    estimates = acceptance()
    learn(estimates, 1500, {-1.0: 0.1, 1.0: 0.9})
    counted, headed = estimates.losses
    assert headed < counted
    assert estimates.counts.estimate(0) == pytest.approx(0.5, abs=0.1)
    assert estimates.estimate(0, (-1.0,)) < 0.25
    assert estimates.estimate(0, (1.0,)) > 0.75


def test_the_counts_serve_where_the_head_is_misled() -> None:
    estimates = acceptance((0.0, 1.0, 0.0, 0.0, 4.0))  # believes in a feature that tells nothing
    learn(estimates, 60, {-1.0: 0.5, 1.0: 0.5})
    counted, headed = estimates.losses
    assert counted < headed
    assert estimates.estimate(0, (1.0,)) == estimates.counts.estimate(0)


def test_what_was_kept_of_late_counts() -> None:
    estimates = acceptance((0.0, 1.0, 1.0, 1.0, 0.0))
    before = estimates.estimate(0, (0.0,))
    for _ in range(5):
        estimates.learn([Proposal(1, 0.3, 0, (0.0,))], [1])
    lately = estimates.estimate(0, (0.0,))
    assert lately > before
    estimates.begin()
    assert before < estimates.estimate(0, (0.0,)) < lately, "another answer begins"


def test_guesses_up_to_the_first_wrong_one_are_learned_from() -> None:
    estimates = acceptance()
    guesses = [Proposal(token, 0.5, 1, (0.0,)) for token in (5, 6, 7)]
    assert estimates.learn(guesses, [5, 9, 7]) == [True, False]
    assert estimates.counts.export() == [[0, 0], [1, 1]]
    assert estimates.learn(guesses, [5]) == [True]
    assert estimates.learn(guesses, []) == []


def test_a_guess_without_features_is_only_counted() -> None:
    estimates = acceptance()
    estimates.learn([Proposal(5, 0.5, 1)], [5])
    assert estimates.counts.export() == [[0, 0], [1, 0]]
    assert estimates.head.weights == PRIOR
    assert estimates.losses == (0, 0)


def taught(num_guesses: int = 40) -> Acceptance:
    estimates = acceptance()
    learn(estimates, num_guesses, {-1.0: 0.2, 1.0: 0.7})
    return estimates


def test_what_was_learned_comes_back() -> None:
    estimates, again = taught(), acceptance()
    assert again.restore(estimates.export())
    assert again.export() == estimates.export()
    assert again.losses == estimates.losses
    for feature in (-1.0, 0.0, 1.0):
        assert again.estimate(0, (feature,)) == pytest.approx(
            estimates.estimate(0, (feature,)), abs=0.01
        )


@given(st.binary(max_size=300))
def test_other_bytes_are_ignored(garbage: bytes) -> None:
    estimates = taught(3)
    before = estimates.export()
    for data in (garbage, before[:17] + garbage, before + garbage + b"x"):
        assert not estimates.restore(data)
        assert estimates.export() == before


@given(st.data())
def test_a_damaged_or_cut_off_value_is_ignored(data: st.DataObject) -> None:
    estimates = taught(3)
    kept, before = estimates.export(), acceptance().export()
    place = data.draw(st.integers(0, len(kept) - 1))
    damaged = bytearray(kept)
    damaged[place] ^= data.draw(st.integers(1, 255))
    fresh = acceptance()
    assert not fresh.restore(bytes(damaged))
    assert not fresh.restore(kept[:place])
    assert fresh.export() == before


@pytest.mark.parametrize(
    "other",
    [
        Acceptance(Calibration([0.5]), PRIOR),
        Acceptance(Calibration([0.3, 0.8]), (*PRIOR, 0.0)),
        Acceptance(Calibration([0.3, 0.8, 0.9]), PRIOR),
    ],
)
def test_what_other_kinds_or_features_learned_is_ignored(other: Acceptance) -> None:
    assert not acceptance().restore(other.export())


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 64))
def test_features_are_of_the_order_of_one(length: int, support: int, more: int, place: int) -> None:
    copied = copied_features(length, support, support + more, place)
    assert len(copied) == len(resumed_features(place))
    assert max(map(abs, copied)) < 8
    assert max(map(abs, resumed_features(place))) <= 1
    assert NUM_OWN + len(copied) <= 12
