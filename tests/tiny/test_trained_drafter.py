"""A trained drafter serves from a merged file: the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from cli_support import PATIENCE_S, Cli
from rigs import EXACT, SMALL, OpenModel, WriteModel
from tiny_models import write_tiny_model
from train_support import put_training

from edgespec.gguf.trim import write_trimmed
from edgespec.learning import trainings as trainings_module
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.context import Context
from edgespec.llama.model import Model, ModelOptions
from edgespec.paths import Paths
from edgespec.runtime.form import Form, Trainings
from edgespec.runtime.model_drafter import BoundDrafter, open_model_drafter
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.vocab.tokenizer import ByteTokenizer

TARGET = SMALL
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384, quantization="F32")
T = TypeVar("T")
TOKENS = [5, 80, 17, 200, 33]


class Bench:
    """Binds forms of one drafter to a target, and tells what they guess."""

    def __init__(self, model: Model, whole: Path, folder: Path) -> None:
        self.model = model
        self.whole = whole
        self.store = TrainingStore(folder / "adaptations")
        self.vocabulary = ByteTokenizer(model.vocab).fingerprint
        self.lines: list[str] = []

    def found(self, files: Form) -> Form:
        return self.trainings.of(files)

    @property
    def trainings(self) -> Trainings:
        return Trainings(self.vocabulary, self.store.folder, self.lines.append)

    def with_bound(self, files: Form, use: Callable[[BoundDrafter], T]) -> T:
        with contextlib.ExitStack() as cleanup:
            context = cleanup.enter_context(Context(self.model, EXACT))
            return use(open_model_drafter(files, context, cleanup, of_any_size=True))

    def guesses(self, files: Form) -> list[tuple[int, float]]:
        def guess(bound: BoundDrafter) -> list[tuple[int, float]]:
            found = []
            for token in TOKENS:
                bound.weights.draft_model.read([token])
                found.append(bound.weights.draft_model.guess())
            return found

        return self.with_bound(files, guess)


@pytest.fixture
def bench(open_model: OpenModel, write_model: WriteModel, tmp_path: Path) -> Bench:
    return Bench(open_model(TARGET), write_model(DRAFTER), tmp_path)


@pytest.fixture(params=["whole", "trimmed"])
def files(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> Form:
    if request.param == "whole":
        return Form(bench.whole)
    path = tmp_path / "trimmed.gguf"
    write_trimmed(bench.whole, path, np.arange(0, 384, 2, dtype=np.int32), "test")
    return Form(bench.whole, path)


def test_what_was_trained_serves(bench: Bench, files: Form) -> None:
    assert bench.found(files) == files
    alone = bench.guesses(files)
    put_training(bench.store, bench.vocabulary, bench.whole)
    assert bench.trainings.of(files, None) == files, "nobody waits for it"
    assert dataclasses.replace(bench.trainings, own=False).of(files) == files
    found = bench.found(files)
    assert found == dataclasses.replace(files, merged=found.running)
    assert found.merged is not None
    assert bench.guesses(found) != alone
    assert bench.guesses(files) == alone
    assert bench.lines == []


def test_what_ships_serves_until_there_is_ones_own(
    bench: Bench, files: Form, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = TrainingStore(tmp_path / "shipped")
    monkeypatch.setattr(trainings_module, "_SHIPPED", shipped.folder)
    put_training(shipped, bench.vocabulary, bench.whole, seed=1)
    found = bench.found(files)
    assert found.merged is not None
    told = bench.guesses(found)
    put_training(bench.store, bench.vocabulary, bench.whole)
    assert bench.guesses(bench.found(found)) != told
    incognito = dataclasses.replace(bench.trainings, own=False)
    assert bench.guesses(incognito.of(files)) == told
    assert bench.lines == []


def test_what_cannot_be_used_costs_one_line(bench: Bench, files: Form) -> None:
    path = put_training(bench.store, bench.vocabulary, bench.whole)
    path.write_bytes(path.read_bytes()[:-60])
    assert bench.found(files) == files
    (line,) = bench.lines
    assert "drafts without what it was trained" in line
    assert "learn reset" in line


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


def test_the_same_answer_with_a_trained_drafter(cli: Cli, tmp_path: Path) -> None:
    home = cli.remembered_in(tmp_path / "home").data
    whole = write_tiny_model(
        tmp_path / "small.gguf", dataclasses.replace(SMALL, num_layers=1, repetitive=True)
    )
    with Model(cli.quick, ModelOptions(vocabulary_only=True)) as model:
        vocabulary = ByteTokenizer(model.vocab).fingerprint
    store = TrainingStore(home / "adaptations")
    path = put_training(store, vocabulary, whole)
    asked = ("--max-tokens", "30", "--json", "--no-learn", "Tell me a story.")
    command = ("run", *cli.on_quick, "--no-trim", "--drafter", whole, *asked)
    plain = cli.run("run", *cli.on_quick, "--no-speculation", *asked, home=home).json()
    trained = cli.run(*command, home=home).json()
    assert trained["token_ids"] == plain["token_ids"]
    assert trained["stats"]["proposed"] > 0

    def made() -> list[Path]:
        return [file for file in store.all() if file != path]

    assert made() == [], "nobody waits for a merged file"
    request = LoadRequest(
        drafter="small", drafter_path=whole, num_threads=1, trim=False, learn=False
    )
    with load(request, cli.quick, Paths(home, home / "cache"), lambda _line: None) as running:
        assert running.idle.wait(PATIENCE_S)
    assert len(made()) == 1
    trained = cli.run(*command, home=home).json()
    assert trained["token_ids"] == plain["token_ids"]
    assert trained["stats"]["proposed"] > 0

    path.write_bytes(path.read_bytes()[:-60])
    ended = cli.run(*command, home=home)
    assert ended.json()["token_ids"] == plain["token_ids"]
    assert ended.stderr.count("small drafts without what it was trained") == 1

    incognito = cli.run(*command[:-2], "--incognito", asked[-1], home=home)
    assert incognito.json()["token_ids"] == plain["token_ids"]
    assert "trained" not in incognito.stderr
