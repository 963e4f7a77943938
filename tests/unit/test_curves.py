"""T(r) before it was measured: a usual shape, on the scale of the first passes."""

from __future__ import annotations

import itertools

import pytest

from edgespec.machine.curves import SHAPES, Kernels, kernels_of, scaled_table
from edgespec.planning.cost import CostModel


@pytest.mark.parametrize("kernels", SHAPES)
def test_a_shape_ascends_and_no_row_costs_more_than_a_pass_of_its_own(kernels: Kernels) -> None:
    shape = SHAPES[kernels]
    assert shape[1] == 1.0
    for (rows, cost), (more, higher) in itertools.pairwise(shape.items()):
        assert cost <= higher <= cost + (more - rows)


def test_the_scale_is_that_of_single_rows() -> None:
    costs = CostModel(scaled_table("own", (1, 577), (25.0, 28.0)), 16)
    assert costs.pass_ms(1, 1) == pytest.approx(25.0)
    assert costs.pass_ms(1, 577) == pytest.approx(28.0)
    assert costs.pass_ms(8, 1) == pytest.approx(25.0 * SHAPES["own"][8])
    assert costs.pass_ms(8, 577) == pytest.approx(25.0 * SHAPES["own"][8] + 3.0)


def test_a_long_context_that_seemed_cheaper_is_as_dear() -> None:
    table = scaled_table("stock", (1, 577), (25.0, 20.0))
    assert table.long_ms == table.short_ms


@pytest.mark.parametrize(
    ("features", "is_own_build", "has_gpu", "kernels"),
    [
        (("AVX512_VNNI",), True, False, "own"),
        (("AVX512_VNNI",), False, False, "stock"),
        (("AVX2",), True, False, "stock"),
        (("AVX512_VNNI",), True, True, "gpu"),
    ],
)
def test_whose_kernels(
    features: tuple[str, ...], is_own_build: bool, has_gpu: bool, kernels: Kernels
) -> None:
    assert kernels_of(features, is_own_build=is_own_build, has_gpu=has_gpu) == kernels
