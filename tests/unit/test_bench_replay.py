"""What-if on reports whose costs are known exactly: what is predicted can be said beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_reports import PASS_MS, WAYS, bench_report, curve_ms

from edgespec.bench.figures import summary
from edgespec.bench.records import Passes, Report, Run, Way
from edgespec.bench.replay import CURVES, Curve, Prediction, load_curve, what_if
from edgespec.errors import UsageError

QUIET = bench_report(noise=0.0)
HERE = Curve(name="here", machine="", model="", source="", pass_ms=PASS_MS)


def curve(pass_ms: dict[int, float]) -> Curve:
    return Curve(name="other", machine="m", model="n", source="s", pass_ms=pass_ms)


def predicted(way: str, pass_ms: dict[int, float], report: Report = QUIET) -> Prediction:
    prediction = what_if(report, way, curve(pass_ms))
    assert prediction is not None
    return prediction


@pytest.mark.parametrize("way", ["fixed-4", "prompt-lookup"])
def test_on_the_same_machine_it_predicts_what_was_measured(way: str) -> None:
    prediction, figures = what_if(QUIET, way, HERE), summary(QUIET, way)
    assert prediction is not None
    assert prediction.speedup == pytest.approx(figures.speedup)
    assert prediction.decoding.median == pytest.approx(figures.decoding.median)
    assert prediction.plain_tokens_per_second == pytest.approx(figures.plain_tokens_per_second)
    assert prediction.num_cut == 0


def test_a_machine_that_is_slower_in_all_gives_the_same_speed_up() -> None:
    slower = {rows: 3 * ms for rows, ms in PASS_MS.items()}
    for way in ("edgespec", "fixed-4"):
        assert predicted(way, slower).speedup == pytest.approx(predicted(way, PASS_MS).speedup)


def one_pass(way: Way, rows: int, kept: int, estimates: tuple[float, ...], ms: float) -> Report:
    """A question of `kept` + 1 tokens: one pass took them, beside as many plain ones.

    A guess took 2 ms, and all passes those of T(r) here; nothing else took any time.
    """

    def run(name: str, passes: Passes) -> Run:
        decode_ms = sum(passes.took) + sum(passes.drafting)
        return Run.model_validate(
            {
                "question": "q",
                "category": "c",
                "way": name,
                "place": 0,
                "num_turns": 1,
                "num_prompt_tokens": 9,
                "num_tokens": kept + 1,
                "request_ms": decode_ms,
                "prompt_ms": 0.0,
                "first_token_ms": 0.0,
                "decode_ms": decode_ms,
                "passes": passes,
            }
        )

    plain = Passes(
        rows=(1,) * kept,
        kept=(1,) * kept,
        context=(9,) * kept,
        took=(PASS_MS[1],) * kept,
        drafting=(0.0,) * kept,
        plain=(0.0,) * kept,
        estimates=((),) * kept,
    )
    drafted = Passes(
        rows=(rows,),
        kept=(kept,),
        context=(9,),
        took=(ms,),
        drafting=(2.0 * (rows - 1),),
        plain=(PASS_MS[1],),
        estimates=(estimates,),
    )
    runs = (run("plain", plain), run(way.name, drafted))
    report = bench_report(ways=(WAYS[0], way), categories=(), num_each=0)
    return report.model_copy(update={"runs": runs})


PLANNED, FIXED = Way(name="w", about=""), Way(name="w", about="", is_planned=False)


def test_a_pass_takes_the_other_time_and_guesses_as_much_longer_as_a_token() -> None:
    """Three guesses, two right: T'(4) + 3 x 2 ms x T'(1) / T(1), against three T'(1)."""
    report = one_pass(FIXED, 4, 3, (0.9, 0.9, 0.9), curve_ms(4))
    prediction = predicted("w", {1: 106.0, 4: 200.0}, report)
    assert prediction.speedup == pytest.approx(3 * 106.0 / (200.0 + 12.0))


def test_the_planner_cuts_where_rows_are_dear_and_guesses_again_behind_the_cut() -> None:
    """A second row costs little there and a third twice as much: one guess a pass.

    Three tokens came of a pass over four rows: there a pass over two rows gives two, and another
    one the third. The first looked at two guesses, the second at the one that was left.
    """
    report = one_pass(PLANNED, 4, 3, (0.9, 0.9, 0.1), curve_ms(4))
    dear = {1: 53.0, 2: 58.0, 3: 200.0, 4: 300.0}
    prediction = predicted("w", dear, report)
    assert (prediction.num_cut, prediction.num_passes) == (1, 1)
    assert prediction.speedup == pytest.approx(3 * 53.0 / (58.0 + 4.0 + 53.0 + 2.0))
    fixed = predicted("w", dear, one_pass(FIXED, 4, 3, (0.9, 0.9, 0.1), curve_ms(4)))
    assert fixed.num_cut == 0
    assert fixed.speedup == pytest.approx(3 * 53.0 / 306.0)


def test_no_curve_is_used_beyond_its_last_row() -> None:
    """Four rows on a curve of two: two passes over two rows, whoever planned."""
    report = one_pass(FIXED, 4, 4, (0.9, 0.9, 0.9), curve_ms(4))
    prediction = predicted("w", {1: 53.0, 2: 53.0}, report)
    assert prediction.num_cut == 1
    assert prediction.speedup == pytest.approx(4 * 53.0 / (2 * 53.0 + 4.0 + 2.0))


def test_where_rows_pay_nothing_the_product_falls_back_to_plain_decoding() -> None:
    linear = {rows: 53.0 * rows for rows in PASS_MS}
    free = [way for way in WAYS if way.name in ("plain", "without-model")]
    report = bench_report(ways=free, noise=0.0)
    assert predicted("without-model", linear, report).speedup == pytest.approx(1.0, abs=0.01)
    assert predicted("fixed-4", linear).speedup < 0.6


def test_peers_cannot_be_predicted() -> None:
    assert what_if(QUIET, "llama-server", HERE) is None


def test_the_curves_are_named_after_their_files_and_say_where_they_are_from() -> None:
    for name in CURVES:
        told = load_curve(name)
        assert told.name == name
        assert told.machine and told.model and told.source
        assert len(told.costs) == max(told.pass_ms)
        assert all(ms > 0 for ms in told.costs)
        assert predicted("edgespec", told.pass_ms).speedup > 0.9


def test_own_curves_come_from_files_and_others_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    form = HERE.model_dump()
    path.write_text(json.dumps(form), encoding="utf-8")
    assert load_curve(str(path)) == HERE
    for wrong in ({**form, "pass_ms": {"2": 5.0, "3": 6.0}}, {**form, "extra": 1}, {"name": "x"}):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        with pytest.raises(UsageError, match=r"is no curve: [^\n]+$"):
            load_curve(str(path))
    with pytest.raises(UsageError, match="metal-7b-q8_0"):
        load_curve("metal-8b")
