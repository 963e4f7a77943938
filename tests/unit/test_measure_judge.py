"""The verdict on two runs of the same models, with and without fast weight layouts."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.machine.soundness import ChildReport, Soundness, judge

LOGITS = st.floats(-50, 50)
RUNS = st.lists(st.lists(LOGITS, min_size=1, max_size=8), min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(RUNS, st.data())
def test_runs_that_differ_by_rounding_are_sound(
    plain: list[list[float]], data: st.DataObject
) -> None:
    noise = data.draw(st.floats(-0.5, 0.5))
    fast = [[value + noise for value in row] for row in plain]
    assert judge(plain, ChildReport(fast)) == Soundness(use_extra_buffers=True)


@given(RUNS, st.sampled_from([2.0, -3.5, 1e9, math.nan, math.inf, -math.inf]), st.data())
def test_one_wrong_number_anywhere_is_found(
    plain: list[list[float]], wrong: float, data: st.DataObject
) -> None:
    model = data.draw(st.integers(0, len(plain) - 1))
    place = data.draw(st.integers(0, len(plain[model]) - 1))
    fast = [list(row) for row in plain]
    fast[model][place] = plain[model][place] + wrong
    verdict = judge(plain, ChildReport(fast))
    assert not verdict.use_extra_buffers
    (finding,) = verdict.findings
    assert "wrong numbers" in finding
    assert "make setup" in finding
    assert "\n" not in finding


def test_a_crash_is_told_with_its_signal() -> None:
    verdict = judge([[1.0]], ChildReport(None, "killed by SIGSEGV"))
    assert not verdict.use_extra_buffers
    (finding,) = verdict.findings
    assert "crash" in finding
    assert "killed by SIGSEGV" in finding
    assert "make setup" in finding


def test_a_crash_is_final_and_an_end_by_others_is_not() -> None:
    assert judge([[1.0]], ChildReport(None, "killed by SIGSEGV")).is_final
    assert judge([[1.0]], ChildReport(None, "no answer within 60 seconds", "time")).is_final
    verdict = judge([[1.0]], ChildReport(None, "killed by SIGKILL", "others"))
    assert not verdict.is_final
    assert not verdict.use_extra_buffers
    (finding,) = verdict.findings
    assert "killed by SIGKILL" in finding
    assert "make setup" not in finding


@pytest.mark.parametrize("difference", [0.999, -0.999])
def test_up_to_one_unit_is_rounding_and_beyond_is_not(difference: float) -> None:
    assert judge([[0.0]], ChildReport([[difference]])).use_extra_buffers
    assert not judge([[0.0]], ChildReport([[difference * 1.01]])).use_extra_buffers


@given(st.booleans(), st.lists(st.text(), max_size=3))
def test_a_verdict_survives_json(use: bool, findings: list[str]) -> None:
    verdict = Soundness(use, tuple(findings))
    assert Soundness.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@given(st.dictionaries(st.sampled_from(["use_extra_buffers", "findings", "x"]), JSON))
def test_anything_else_is_no_verdict(value: dict[str, object]) -> None:
    verdict = Soundness.from_json(value)
    use, findings = value.get("use_extra_buffers"), value.get("findings")
    if isinstance(use, bool) and isinstance(findings, list):
        assert verdict == Soundness(use, tuple(map(str, findings)))
    else:
        assert verdict is None
