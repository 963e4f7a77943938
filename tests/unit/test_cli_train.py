"""`edgespec learn drafter` before it trains, and what `edgespec learn` tells of trainings."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
from pathlib import Path

import click
import numpy as np
import pytest
from command_support import refusal, run_command
from train_support import ABOUT, BigramPupil, random_lora

from edgespec import signals
from edgespec.cli.learn_drafter import check_torch, described, training_display
from edgespec.errors import EdgeSpecError, StorageError, UsageError
from edgespec.learning import trainings as trainings_module
from edgespec.learning.checkpoint import Checkpoint, write_checkpoint
from edgespec.learning.corpus import NUM_TOP, Corpus, Said, Top
from edgespec.learning.lora import About, read_lora, write_lora
from edgespec.learning.training import Judged, Progress, TuningOptions
from edgespec.learning.trainings import TrainingStore
from edgespec.paths import user_paths
from edgespec.types import Message

OTHER = dataclasses.replace(ABOUT, drafter="4" * 32, drafter_name="other")
LORA = random_lora({"blk.0.attn_q.weight": (8, 6)})
PROGRESS = Progress(30, 95, 2, 0.75, Judged(100, 50, 1.5), Judged(100, 60, 1.25), LORA)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingStore:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trainings_module, "_SHIPPED", tmp_path / "shipped")
    store = TrainingStore(user_paths().adaptations)
    store.ensure()
    return store


def keep(store: TrainingStore, about: About = ABOUT) -> list[Path]:
    """A LoRA, a merged file and a training that can go on, of one pair."""
    lora = store.lora(about.target, about.drafter)
    write_lora(LORA, about, "llama", lora)
    merged = store.merged(lora, "0" * 16)
    merged.write_bytes(b"merged")
    training = store.training(about.target, about.drafter)
    names = (about.target, about.drafter, about.target_name, about.drafter_name)
    state = BigramPupil(5).state()
    write_checkpoint(Checkpoint(*names, TuningOptions(), PROGRESS, state, "guide"), training)
    return [lora, merged, training]


def refused(kind: type[EdgeSpecError], *arguments: str | Path) -> str:
    return refusal(kind, "learn", *arguments)


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )


def test_without_torch_one_line_tells_how_to_get_it(
    store: TrainingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    line = refused(UsageError, "drafter")
    assert "PyTorch" in line
    assert "pip install 'edgespec[learn]'" in line


def test_with_torch_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    check_torch()


@pytest.mark.parametrize(
    "arguments",
    [("--steps", "0"), ("--minutes", "0"), ("--minutes", "nan"), ("--threads", "0")],
)
def test_nonsense_is_refused_before_anything_else(
    store: TrainingStore, arguments: tuple[str, str]
) -> None:
    assert "PyTorch" not in refused(UsageError, "drafter", *arguments)


def test_nothing_was_learned_at_first(store: TrainingStore) -> None:
    store.folder.rmdir()
    assert run_command("learn", "status").stdout == ""
    assert "nothing" in run_command("learn", "status").stderr
    assert json.loads(run_command("learn", "status", "--json").stdout) == []
    assert "nothing" in run_command("learn", "reset").stderr
    assert not store.folder.exists()


def test_status_tells_of_trainings(store: TrainingStore) -> None:
    paths = keep(store)
    lines = run_command("learn", "status").stdout.splitlines()
    assert lines[0].startswith("small trained for big: 40 steps over 300 answers, 900 guesses")
    assert "right 0.500 before and 0.600 as trained" in lines[0]
    assert lines[1].startswith("small trained for big: can go on after 30 steps")
    told = json.loads(run_command("learn", "status", "--json").stdout)
    assert [entry["path"] for entry in told] == [str(paths[0]), str(paths[2])]
    assert [entry["drafter_name"] for entry in told] == ["small", "small"]
    assert [entry["num_steps"] for entry in told] == [40, 30]


def test_status_tells_what_was_learned_without_being_asked_for(store: TrainingStore) -> None:
    paths = keep(store, dataclasses.replace(ABOUT, by_itself=True))
    idle = store.idle(ABOUT.target, ABOUT.drafter)
    paths[2].rename(idle)
    lines = run_command("learn", "status").stdout.splitlines()
    assert lines[0].endswith(", learned by itself")
    assert lines[1].startswith("small trained for big: learns by itself, 30 steps so far")
    told = json.loads(run_command("learn", "status", "--json").stdout)
    assert [entry["by_itself"] for entry in told] == [True, True]
    run_command("learn", "reset", "--drafter", "small", "--yes")
    assert store.all() == []


def test_status_tells_what_cannot_be_read(store: TrainingStore) -> None:
    for path in keep(store):
        path.write_bytes(path.read_bytes()[:200])
    lines = run_command("learn", "status").stdout.splitlines()
    assert len(lines) == 2
    assert "learn reset" in lines[0]
    assert "cut off" in lines[1] or "damaged" in lines[1]
    told = json.loads(run_command("learn", "status", "--json").stdout)
    assert all(entry["problem"] for entry in told)


def test_reset_deletes_every_file_of_a_drafter(store: TrainingStore) -> None:
    small, other = keep(store), keep(store, OTHER)
    assert "add --yes" in refused(UsageError, "reset")
    run_command("learn", "reset", "--drafter", "small", "--yes")
    assert store.all() == sorted(other)
    run_command("learn", "reset", "--yes")
    assert store.all() == []
    assert not any(path.exists() for path in small)


def test_what_targets_answered_is_told_of_and_forgotten_by_itself(store: TrainingStore) -> None:
    paths = keep(store)
    said = np.zeros(5, np.int32)
    top = Top(np.zeros((5, NUM_TOP), np.int32), np.zeros((5, NUM_TOP), np.float16))
    answer = Said("0", 0, "chat", 0.0, (Message("user", "hi"),), "yes", said, top, None)
    Corpus(user_paths().corpora, "7" * 32, "big").append([answer, answer])
    lines = run_command("learn", "status").stdout.splitlines()
    assert lines[-1].startswith("big answered 2 prompts: 10 tokens, ")
    told = json.loads(run_command("learn", "status", "--json").stdout)
    assert told[-1]["corpus"]["num_tokens"] == 10
    assert "add --yes" in refused(UsageError, "reset", "--corpora")
    run_command("learn", "reset", "--corpora", "--yes")
    assert "no target" in run_command("learn", "reset", "--corpora").stderr
    assert store.all() == sorted(paths)


def test_deleting_takes_what_killed_processes_left(store: TrainingStore) -> None:
    keep(store)
    with store.scratch() as name:
        (Path(name) / "candidate.gguf").write_bytes(b"private")
        left = store.folder / f".{ABOUT.target}.training.x1.part"
        left.write_bytes(b"private")
        store.delete(store.all())
        assert list(store.folder.iterdir()) == []
        Path(name).mkdir()  # which the context wants to delete


def test_reset_of_a_training_that_never_served(store: TrainingStore) -> None:
    lora, merged, training = keep(store)
    lora.unlink()
    merged.unlink()
    run_command("learn", "reset", "--drafter", "small", "--yes")
    assert not training.exists()


def test_a_lora_is_carried_elsewhere(store: TrainingStore, tmp_path: Path) -> None:
    keep(store)
    out = tmp_path / "carried.gguf"
    run_command("learn", "export", out)
    assert read_lora(out)[1] == ABOUT
    assert "trained for big already" in refused(UsageError, "import", out)
    assert "900 guesses" in run_command("learn", "import", out, "--yes").stdout
    store.delete(store.all())
    assert "small trained for big" in run_command("learn", "import", out).stdout
    assert store.loras() == [store.lora(ABOUT.target, ABOUT.drafter)]


def test_which_lora_is_meant_must_be_clear(store: TrainingStore, tmp_path: Path) -> None:
    out = tmp_path / "carried.gguf"
    assert "no drafter was trained" in refused(UsageError, "export", out)
    keep(store)
    keep(store, OTHER)
    assert "--drafter" in refused(UsageError, "export", out)
    assert "nobody was not trained" in refused(UsageError, "export", out, "--drafter", "nobody")
    run_command("learn", "export", out, "--drafter", "other")
    assert read_lora(out)[1] == OTHER
    elsewhere = tmp_path / "missing" / "out.gguf"
    assert "missing" in refused(StorageError, "export", elsewhere, "--drafter", "other")


def test_a_damaged_lora_is_not_carried(store: TrainingStore, tmp_path: Path) -> None:
    lora = keep(store)[0]
    out = tmp_path / "carried.gguf"
    run_command("learn", "export", out)
    out.write_bytes(out.read_bytes()[:-50])
    assert "learn reset" in refused(StorageError, "import", out)
    lora.write_bytes(lora.read_bytes()[:-50])
    out.unlink()
    assert "learn reset" in refused(StorageError, "export", out)
    assert not out.exists()


def test_forgetting_deletes_trainings(store: TrainingStore) -> None:
    keep(store)
    result = run_command("db", "forget", "--all", "--yes")
    assert "what drafters learned" in result.stderr
    assert store.all() == []


def test_what_is_told_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    line = described(PROGRESS)
    assert line == "training: 30 steps, loss 0.750, held-out agreement 0.600, 0.500 before"
    assert described(Progress()) == "training: 0 steps"
    with training_display() as show:
        show(PROGRESS, 0.5, False)
        assert capsys.readouterr().err == ""
        show(PROGRESS, 0.5, True)
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_a_second_one_unwinds(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals.raise_once()
        with signals.noted() as interrupt:
            assert interrupt() is None
            signal.raise_signal(number)
            noted = interrupt()
            assert noted is not None
            assert isinstance(noted, signals.Terminated) == (number == signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        with signals.noted() as interrupt:
            assert interrupt() is None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_the_command_is_part_of_learn() -> None:
    from edgespec.cli.learn import learn

    assert isinstance(learn, click.Group)
    assert "drafter" in learn.commands
