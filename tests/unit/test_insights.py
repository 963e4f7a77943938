"""What front ends are told of speed here, beside what the engine knows."""

from __future__ import annotations

import dataclasses
import threading
from typing import cast

import pytest
from fakes import told

from edgespec.machine.facts import ModelFacts
from edgespec.machine.probe import USUAL
from edgespec.passes import Kept
from edgespec.pauses import Pause
from edgespec.planning.cost import CostTable
from edgespec.runtime.idle import IdleTask, IdleWorker
from edgespec.runtime.insights import Insights
from edgespec.types import CompletionRequest, EncodedPrompt, Insight

FACTS = ModelFacts(
    USUAL, 4, "identical", 0.0, CostTable(1, 2, {1: 1.0}, {1: 1.0}), 0.5, 1.4, (), True
)
KNOWN = Insight({1: 30.0, 2: 33.0}, 200)


def planned(kept: Kept, predicted_ms: float) -> Kept:
    return dataclasses.replace(
        kept, record=dataclasses.replace(kept.record, predicted_ms=predicted_ms)
    )


def test_what_was_measured_is_told_as_it_is_now() -> None:
    facts = [FACTS]
    insights = Insights(lambda: facts[-1], lambda: "the target is measured")
    insight = insights.complete(KNOWN)
    assert (insight.is_provisional, insight.spread) == (True, 1.4)
    assert insight.idle == "the target is measured"
    assert (insight.pass_ms, insight.plain_token_ms) == (KNOWN.pass_ms, 30.0)
    facts.append(dataclasses.replace(FACTS, is_provisional=False, spread=1.0))
    assert not insights.complete(KNOWN).is_provisional


@pytest.mark.parametrize(
    ("kept", "is_plain"),
    [(planned(told([1]), 30.0), True), (planned(told([1, 2]), 33.0), False), (told([1]), False)],
    ids=["plain", "drafted", "prompt"],
)
def test_how_busy_the_machine_was_when_plain_passes_told_what_they_take(
    kept: Kept, is_plain: bool
) -> None:
    insights = Insights(lambda: FACTS, lambda: "", lambda: 2.5)
    assert insights.complete(KNOWN).load_average is None
    answer = insights.open(CompletionRequest("a"), EncodedPrompt((1,)))
    answer.take(kept)
    answer.close(None)
    assert insights.complete(KNOWN).load_average == (2.5 if is_plain else None)


def test_idle_work_is_named_while_it_is_done() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Task:
        name = "the sheep are counted"

        def run(self, _pause: Pause) -> bool:
            begun.set()
            return not may_end.wait(10)

    with IdleWorker(pytest.fail, [cast(IdleTask, Task())]) as idle:
        assert idle.doing == ""
        idle.start()
        assert begun.wait(10)
        assert idle.doing == "the sheep are counted"
        may_end.set()
        assert idle.wait(10)
        assert idle.doing == ""
