"""Marks of model files: left by who dies loading, taken off by who lives, or by a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_support import GONE_PID

from edgespec.errors import ModelFileError
from edgespec.models.trials import Trials


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    return Trials(tmp_path / "data" / "trials")


def die_loading(trials: Trials, *paths: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process would that is gone now."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: GONE_PID)
        for path in paths:
            trials.begin(path)


def test_a_file_that_was_loaded_is_not_tried_again(
    trials: Trials, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trials.loading(model):
        assert not trials.is_marked(model), "by a process that lives"
    die_loading(trials, model, monkeypatch=monkeypatch)
    assert not trials.is_marked(model)
    os.utime(model, ns=(0, 0))
    die_loading(trials, model, monkeypatch=monkeypatch)
    assert trials.is_marked(model), "changed: another file"


def test_a_file_whose_process_died_is_refused(
    trials: Trials, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_loading(trials, model, monkeypatch=monkeypatch)
    with pytest.raises(ModelFileError, match="killed the engine"), trials.loading(model):
        pytest.fail("refused")
    with pytest.raises(ModelFileError, match="edgespec doctor --model"):
        trials.begin(model)
    assert trials.is_marked(model), "until it is forgiven"
    trials.forgive(model)
    with trials.loading(model):
        pass
    assert not trials.is_marked(model)


def test_an_error_is_no_death(
    trials: Trials, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = tmp_path / "drafter.gguf"
    drafter.write_bytes(b"GGUF")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: GONE_PID)
        with pytest.raises(ModelFileError), trials.loading(model):
            trials.begin(drafter)
            raise ModelFileError("truncated")
    assert not trials.is_marked(model)
    assert not trials.is_marked(drafter)


def test_what_others_killed_is_not_at_fault(
    trials: Trials, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_loading(trials, model, monkeypatch=monkeypatch)
    trials.withdraw(GONE_PID + 1)
    assert trials.is_marked(model)
    trials.withdraw(GONE_PID)
    assert not trials.is_marked(model)


def test_without_a_folder_or_a_file_there_are_no_marks(tmp_path: Path, model: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    for trials in (Trials(blocked), Trials(blocked / "below")):
        with trials.loading(model):
            assert not trials.is_marked(model)
    with Trials(tmp_path / "trials").loading(tmp_path / "missing.gguf"):
        pass
    Trials(tmp_path / "trials").forgive(tmp_path / "missing.gguf")


def test_a_damaged_mark_is_none(
    trials: Trials, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_loading(trials, model, monkeypatch=monkeypatch)
    [mark] = (tmp_path / "data" / "trials").iterdir()
    mark.write_bytes(b"\xff")
    assert not trials.is_marked(model)
