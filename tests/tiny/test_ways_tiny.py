"""Ways to answer with real llama.cpp: all say the same bytes, each drafts as it says it does."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from cli_support import Cli
from tiny_models import TinySpec, write_tiny_model
from train_support import put_training

from edgespec.bench.recorder import Recorder
from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.database import DatabaseDrafter
from edgespec.drafters.model import ModelDrafter
from edgespec.errors import ModelFileError
from edgespec.gguf.trim import write_trimmed
from edgespec.learning import trainings as trainings_module
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.model import Model, ModelOptions
from edgespec.passes import Kept
from edgespec.planning.baselines import Everything
from edgespec.planning.guarded import GuardedDrafter
from edgespec.planning.planner import Planner, Rule
from edgespec.protocols import Drafter
from edgespec.runtime.form import Form, Trainings
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.runtime.ways import ABOUT, EngineWays
from edgespec.types import (
    PRODUCT,
    CompletionRequest,
    Constraint,
    Message,
    SamplingParams,
    drafter_of,
)
from edgespec.vocab.tokenizer import ByteTokenizer

SMALL = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q8_0", repetitive=True)
WARM = SamplingParams(temperature=0.8, top_k=40, seed=11)
SENTENCE = Constraint("regex", r"(The|A) (river|old mill) is [a-z ]{5,30}\.")
STORY = (Message("user", "Tell me a story."),)


class Rig:
    """A loaded pair with a token database and a trimmed drafter, and all ways over it."""

    def __init__(self, loaded: Running, recorder: Recorder, ways: EngineWays) -> None:
        self.loaded, self.recorder, self.ways = loaded, recorder, ways

    def answer(self, way: str, sampling: SamplingParams) -> tuple[tuple[int, ...], list[Kept]]:
        """Token ids of an answer and the passes that gave it."""
        self.ways.use(way)
        *_, last = self.loaded.completer.answer(CompletionRequest(STORY, sampling, 40))
        assert last.completion is not None
        return last.completion.token_ids, self.recorder.kept


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingStore]:
    """A place for what ships with EdgeSpec, of its own."""
    store = TrainingStore(tmp_path_factory.mktemp("shipped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings_module, "_SHIPPED", store.folder)
        yield store


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, shipped: TrainingStore) -> Iterator[Rig]:
    cli, folder = Cli.of(tmp_path_factory), tmp_path_factory.mktemp("ways")
    whole = write_tiny_model(folder / "small.gguf", SMALL)
    trimmed = folder / "small-trimmed.gguf"
    write_trimmed(whole, trimmed, np.arange(300, dtype=np.int32), "test")
    request = LoadRequest(
        drafter="small",
        drafter_path=trimmed,
        num_threads=1,
        remember=False,
        idle=False,
        memory_at=folder / "edgespec.db",
    )
    recorder = Recorder()
    paths = cli.remembered_in(folder / "home")
    with Model(cli.quick, ModelOptions(vocabulary_only=True)) as model:
        vocabulary = ByteTokenizer(model.vocab).fingerprint
    put_training(shipped, vocabulary, whole)
    trainings = Trainings(vocabulary, paths.adaptations, print, own=False)
    assert trainings.of(Form(whole, trimmed)).merged is not None
    with load(request, cli.quick, paths, lambda _line: None, observers=[recorder]) as loaded:
        *_, _last = loaded.completer.answer(CompletionRequest(STORY, WARM, 40))
        assert loaded.memory is not None
        loaded.memory.is_learning = False
        assert loaded.memory.flush()
        other = write_tiny_model(folder / "other.gguf", dataclasses.replace(SMALL, seed=5))
        yield Rig(loaded, recorder, loaded.ways(tuple(ABOUT), {"other": other}))


@pytest.mark.parametrize(
    "sampling",
    [SamplingParams(), WARM, dataclasses.replace(WARM, constraint=SENTENCE)],
    ids=["greedy", "warm", "regex"],
)
def test_every_way_answers_the_same(rig: Rig, sampling: SamplingParams) -> None:
    assert rig.ways.left_out == []
    assert list(rig.ways.about) == [*ABOUT, "other"]
    answers = {way: rig.answer(way, sampling)[0] for way in rig.ways.about}
    assert set(answers.values()) == {answers["plain"]}
    assert len(answers["plain"]) > 1


def test_each_way_drafts_as_it_says(rig: Rig) -> None:
    asked: dict[str, set[str]] = {}
    longest: dict[str, int] = {}
    for way in rig.ways.about:
        for prompt in range(3):  # which drafter comes to speak is the planner's choice
            _, passes = rig.answer(way, dataclasses.replace(WARM, seed=11 + prompt))
            names = {drafter_of(name) for kept in passes for name in kept.guesses}
            asked[way] = asked.get(way, set()) | names
            longest[way] = max([longest.get(way, 0), *(len(kept.draft) for kept in passes)])
    assert asked["plain"] == set() and longest["plain"] == 0
    assert asked[PRODUCT] >= {"context", "database"}
    assert "context" not in asked["without-context"]
    assert "database" not in asked["without-database"]
    assert "small" not in asked["without-model"]
    assert asked["lookup"] <= {"lookup"} and asked["hierarchy"] == {"hierarchy"}
    assert asked["other"] <= {"context", "database", "other"}
    for length in (2, 4, 8):
        assert asked[f"fixed-{length}"] == {"small"}
        assert longest[f"fixed-{length}"] == length
    assert longest["no-planner"] == longest["hierarchy"] == 8


def exported(drafters: Mapping[str, Drafter]) -> dict[str, bytes]:
    """What drafters have learned of their guesses."""
    inner = {
        name: each.drafter for name, each in drafters.items() if isinstance(each, GuardedDrafter)
    }
    assert inner.keys() == drafters.keys()
    return {
        name: each.calibration.export()
        for name, each in inner.items()
        if isinstance(each, ContextDrafter | DatabaseDrafter | ModelDrafter)
    }


def test_drafters_of_another_way_begin_alike_and_learn_apart(rig: Rig) -> None:
    rig.answer(PRODUCT, WARM)
    product = rig.loaded.drafters
    with contextlib.ExitStack() as opened:
        another, again = product.another(opened), product.another(opened)
        fresh = product.another(opened, knows=False)
        assert exported(another) == exported(again) != exported(fresh)
        assert exported(fresh)["context"] == ContextDrafter().calibration.export()
        planner = rig.loaded.engine.planner
        rig.loaded.engine.plan_with(
            Planner([*another.values()], planner.costs, time.perf_counter, Rule(Everything))
        )
        *_, _last = rig.loaded.completer.answer(CompletionRequest(STORY, WARM, 40))
        assert exported(another) != exported(again) == exported(product.another(opened))


def test_a_form_that_is_no_model_is_refused(rig: Rig, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="bad"):
        rig.loaded.ways((), {"bad": bad})


def test_what_makes_no_sense_is_left_out_with_a_line(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    cli = Cli.of(tmp_path_factory)
    request = LoadRequest(num_threads=1, remember=False, idle=False)
    paths = cli.remembered_in(tmp_path / "home")
    with load(request, cli.quick, paths, lambda _line: None) as loaded:
        ways = loaded.ways(tuple(ABOUT), {})
    assert {line.partition(":")[0] for line in ways.left_out} == {
        "without-database",
        "without-model",
        "without-trim",
        "without-training",
        "without-budget",
        "fixed-2",
        "fixed-4",
        "fixed-8",
    }
    assert set(ways.about) | {line.partition(":")[0] for line in ways.left_out} == set(ABOUT)
