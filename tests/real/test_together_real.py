"""Sixteen answers at once on the default model, in four slots and in sixteen: each as if alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_same_bytes_real import CODE, PARAGRAPH, STORY, WARM

from edgespec.paths import Paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

QUESTIONS = (
    "Say the alphabet.",
    "Repeat three times: apples, pears, plums, cherries.",
    f"Rename `values` to `numbers`.\n\n{CODE}",
    f"Who keeps the light?\n\n{STORY}",
    f"Say the second sentence again.\n\n{PARAGRAPH}",
    "What is a quay?",
    "Count from 20 down to 1.",
    f"{STORY}\n\n{PARAGRAPH}\n\nWhat do both have in common?",
)
MAX_TOKENS = 24


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
    """Each answer by itself, from an empty cache, token by token."""
    with load(LoadRequest(idle=False), target_path, real_paths, lambda _line: None) as running:
        return [
            answered(running.completer.answer(dataclasses.replace(each, **PLAIN)))
            for each in requests()
        ]


PLAIN = {"speculate": False, "reuse_prefix": False}


def answered(chunks: object) -> Completion:
    *_, last = chunks  # type: ignore[misc]
    completion: Completion = last.completion
    return completion


@pytest.mark.parametrize("num_slots", [4, 16])
def test_sixteen_answers_at_once_are_those_of_each_alone(
    target_path: Path, real_paths: Paths, alone: list[Completion], num_slots: int
) -> None:
    options = LoadRequest(num_slots=num_slots, num_context=4096)
    with load(options, target_path, real_paths, lambda _line: None) as running:
        assert running.idle.wait(120.0), "whether prompts may be read in pieces is known"
        answers = [running.completer.answer(each) for each in requests()]
        together = [answered(each) for each in answers]
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert sum(each.stats.accepted for each in together) > 0
