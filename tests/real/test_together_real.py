"""Sixteen answers at once on the default model, in four slots and in sixteen: each as if alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from completers import completion_of
from tiny_models.corpus import CORPUS
from together import PROMPTS

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.paths import Paths
from edgespec.pauses import NO_PAUSE
from edgespec.runtime.measuring import ProveReading
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.runtime.target import OpenTarget, context_options
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
QUESTIONS = (
    *PROMPTS,
    "Count from 20 down to 1.",
    f"Say the first two sentences again.\n\n{CORPUS[:600]}",
    "What is a quay?",
    f"What is this about?\n\n{CORPUS[:2400]}",
)
MAX_TOKENS = 16
ALONE = LoadRequest(idle=False)


def requests() -> list[CompletionRequest]:
    """Greedy and warm, of the same questions."""
    return [
        CompletionRequest(
            (Message("user", question),),
            SamplingParams() if greedy else dataclasses.replace(WARM, seed=place),
            max_tokens=MAX_TOKENS + place,
            record=False,
        )
        for place, question in enumerate(QUESTIONS)
        for greedy in (True, False)
    ]


@pytest.fixture(scope="module")
def alone(target_path: Path, real_paths: Paths) -> list[Completion]:
    """Each answer by itself, from an empty cache, token by token; how it reads is known then."""
    plain = [dataclasses.replace(each, speculate=False, reuse_prefix=False) for each in requests()]
    with load(ALONE, target_path, real_paths, lambda _line: None) as running:
        model, facts, machine = running.model, running.facts, running.machine
        target = OpenTarget(model, facts, machine, context_options(ALONE, model, facts, machine))
        with open_database(real_paths.database) as database:
            proving = ProveReading(target, Facts(database), print)
            while proving.run(NO_PAUSE):
                pass
        return [completion_of(list(running.completer.answer(each))) for each in plain]


@pytest.mark.parametrize("num_slots", [4, 16])
def test_sixteen_answers_at_once_are_those_of_each_alone(
    target_path: Path, real_paths: Paths, alone: list[Completion], num_slots: int
) -> None:
    options = LoadRequest(num_slots=num_slots, num_context=4096, idle=False)
    with load(options, target_path, real_paths, lambda _line: None) as running:
        answers = [running.completer.answer(each) for each in requests()]
        together = [completion_of(list(each)) for each in answers]
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert sum(each.stats.accepted for each in together) > 0
