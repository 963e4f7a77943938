"""The cost model: interpolation, and how it follows a machine that drifts and hiccups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fakes import best_length
from hypothesis import example, given
from hypothesis import strategies as st

from edgespec.planning.cost import CostModel, CostTable

SHORT = {1: 53.0, 2: 87.0, 4: 95.0, 8: 125.0, 16: 150.0}
LONG = {1: 65.0, 2: 99.0, 4: 109.0, 8: 145.0, 16: 180.0}
TABLE = CostTable(256, 1536, SHORT, LONG)


def model(max_rows: int = 16) -> CostModel:
    return CostModel(TABLE, max_rows)


def test_measured_points_are_given_back() -> None:
    for context, costs in ((256, SHORT), (1536, LONG)):
        for rows, cost in costs.items():
            assert model().pass_ms(rows, context) == pytest.approx(cost)


def test_between_measured_points_lines_are_straight() -> None:
    assert model().pass_ms(3, 256) == pytest.approx(91.0)
    assert model().pass_ms(6, 256) == pytest.approx(110.0)
    assert model().pass_ms(1, 896) == pytest.approx(59.0)
    assert model().pass_ms(3, 896) == pytest.approx((91.0 + 104.0) / 2)


def test_beyond_the_longest_context_the_line_goes_on() -> None:
    assert model().pass_ms(1, 2816) == pytest.approx(77.0)


def test_beyond_the_most_rows_each_costs_as_much_as_those_before() -> None:
    assert model(32).pass_ms(32, 256) == pytest.approx(300.0)
    assert model(32).pass_ms(20, 256) == pytest.approx(150.0 + 4 * 150.0 / 16)


def test_rows_may_differ_between_the_contexts() -> None:
    table = CostTable(0, 100, {1: 10.0, 2: 20.0, 4: 22.0}, {1: 10.0, 4: 40.0})
    costs = CostModel(table, 4)
    assert costs.pass_ms(2, 0) == pytest.approx(20.0)
    assert costs.pass_ms(2, 100) == pytest.approx(20.0 + 18.0 / 3)
    assert costs.pass_ms(3, 100) == pytest.approx(21.0 + 2 * 18.0 / 3)
    assert costs.pass_ms(4, 100) == pytest.approx(40.0)


def test_a_step_seen_at_the_short_context_is_one_at_the_long_context_too() -> None:
    """Seven rows are cheaper than six, and eight much dearer: kernels have such steps."""
    short = {1: 30.0, 4: 41.0, 6: 50.0, 7: 47.0, 8: 66.0}
    costs = CostModel(CostTable(64, 576, short, {1: 31.0, 4: 47.0, 8: 80.0}), 8)
    for context in (64, 576, 2000):
        curve = costs.curve_ms(context)
        assert curve[6] < curve[5] + 5.0
        assert curve[7] - curve[6] > 15.0
    assert costs.pass_ms(7, 576) == pytest.approx(47.0 + 6.0 + 0.75 * 8.0)


def test_two_contexts_with_no_rows_in_common_but_one_know_the_single_row() -> None:
    costs = CostModel(CostTable(0, 10, {1: 10.0, 2: 15.0}, {1: 12.0, 4: 99.0}), 4)
    assert costs.pass_ms(1, 10) == pytest.approx(12.0)
    assert costs.pass_ms(2, 10) == pytest.approx(15.0 + 2 * 2.0)


def test_a_longer_context_never_makes_a_pass_cheaper() -> None:
    """Measurements are noisy; a falling line would reach zero."""
    costs = CostModel(CostTable(64, 128, {1: 50.0, 2: 60.0}, {1: 30.0, 2: 61.0}), 2)
    assert costs.pass_ms(1, 10_000) == pytest.approx(50.0)


def test_a_table_without_plain_passes_is_refused() -> None:
    with pytest.raises(ValueError, match="cost of one row at both"):
        CostTable(1, 2, {2: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="cost of one row at both"):
        CostTable(1, 2, {1: 1.0}, {2: 1.0})
    with pytest.raises(ValueError, match="cost of one row at both"):
        CostTable(1, 2, {1: 1.0}, {})
    with pytest.raises(ValueError, match="contexts 2 and 2 do not ascend"):
        CostTable(2, 2, {1: 1.0}, {1: 1.0})


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    milliseconds = st.floats(0.01, 1000)
    short = draw(st.dictionaries(st.integers(2, 32), milliseconds, max_size=6))
    long = draw(st.dictionaries(st.integers(2, 32), milliseconds, max_size=6))
    start = draw(st.integers(0, 500))
    end = start + draw(st.integers(1, 2000))
    return CostTable(start, end, {1: draw(milliseconds)} | short, {1: draw(milliseconds)} | long)


PASSES = st.lists(
    st.tuples(st.integers(-1, 40), st.integers(0, 9000), st.floats(-1, 1e6)), max_size=300
)


@given(tables(), st.integers(1, 32), PASSES, st.integers(0, 100_000))
@example(CostTable(0, 1, {1: 2.0}, {1: 1.0}), 1, [(1, 0, 5e-324)], 0)  # the least of all times
def test_no_pass_is_ever_free(
    table: CostTable, max_rows: int, passes: list[tuple[int, int, float]], context: int
) -> None:
    costs = CostModel(table, max_rows)
    for rows, at, elapsed in passes:
        costs.observe(rows, at, elapsed)
    curve = costs.curve_ms(context)
    assert curve.shape == (max_rows,)
    assert np.isfinite(curve).all()
    assert (curve > 0).all()
    assert costs.pass_ms(max_rows, context) == curve[-1]


@pytest.mark.parametrize(
    ("rows", "elapsed_ms"), [(0, 5.0), (-1, 5.0), (17, 5.0), (1, 0.0), (1, -3.0)]
)
def test_nonsense_is_not_learned(rows: int, elapsed_ms: float) -> None:
    costs = model()
    costs.observe(rows, 256, elapsed_ms)
    np.testing.assert_array_equal(costs.curve_ms(256), model().curve_ms(256))


def replay(costs: CostModel, factors: dict[int, float], num_passes: int, seed: int = 0) -> None:
    """Passes of `factors`' rows in turn, their table costs times the factor, with noise.

    Every tenth takes five times as long, as when another program takes the cores.
    """
    stream = np.random.default_rng(seed)
    truth = model()
    rows_in_turn = itertools.cycle(factors)
    for index in range(num_passes):
        rows = next(rows_in_turn)
        context = int(stream.integers(0, 3000))
        noise = float(np.exp(0.05 * stream.standard_normal())) * (5.0 if index % 10 == 9 else 1.0)
        costs.observe(rows, context, truth.pass_ms(rows, context) * factors[rows] * noise)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.6])
def test_a_machine_that_drifts_is_followed(factor: float) -> None:
    costs = model()
    replay(costs, dict.fromkeys(range(1, 17), factor), 200)
    for rows in (1, 2, 5, 16):
        for context in (0, 256, 3000):
            expected = factor * model().pass_ms(rows, context)
            assert costs.pass_ms(rows, context) == pytest.approx(expected, rel=0.12)


def test_drift_is_followed_within_twenty_passes() -> None:
    costs = model()
    replay(costs, {1: 1.5}, 20)
    assert costs.pass_ms(1, 256) == pytest.approx(1.5 * 53.0, rel=0.12)


def test_drift_seen_in_plain_passes_moves_the_other_rows_too() -> None:
    costs = model()
    replay(costs, {1: 1.5}, 100)
    assert costs.pass_ms(8, 256) == pytest.approx(1.5 * 125.0, rel=0.2)


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.25, 1.6])
def test_drift_leaves_decisions_alone(factor: float) -> None:
    """All costs scaled alike scale every plan alike; what is left is noise of a few per cent."""
    costs = model()
    replay(costs, dict.fromkeys(range(1, 17), factor), 400)
    for share, length in ((0.2, 0), (0.95, 15)):
        assert best_length([share] * 15, model().curve_ms(256).tolist()) == length
        assert best_length([share] * 15, costs.curve_ms(256).tolist()) == length
    shape = costs.curve_ms(256) / costs.pass_ms(1, 256)
    np.testing.assert_allclose(shape, model().curve_ms(256) / 53.0, rtol=0.15)


def test_a_shape_that_was_measured_wrongly_is_corrected() -> None:
    """Four rows really cost 40 % more than the table says, one row what it says."""
    costs = model()
    replay(costs, {1: 1.0, 4: 1.4}, 600)
    assert costs.pass_ms(1, 256) == pytest.approx(53.0, rel=0.12)
    assert costs.pass_ms(4, 256) == pytest.approx(1.4 * 95.0, rel=0.12)


def test_one_outlier_moves_little() -> None:
    costs = model()
    costs.observe(1, 256, 1e6)
    assert costs.pass_ms(1, 256) == pytest.approx(53.0, rel=0.05)
    assert costs.pass_ms(2, 256) == pytest.approx(87.0, rel=0.05)


def test_a_row_count_is_never_bent_out_of_shape() -> None:
    """However often one row count is slow, its factor against the others keeps its limit."""
    costs = model()
    for _ in range(2000):
        costs.observe(16, 256, 1e6)
        costs.observe(1, 256, 0.001)
    ratio = costs.pass_ms(16, 256) / costs.pass_ms(1, 256)
    assert ratio <= 4.01 * 150.0 / 53.0
