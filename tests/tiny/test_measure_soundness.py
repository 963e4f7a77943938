"""The self-check of the native library, in children that answer, crash, babble or hang.

A child dies for real: code that it runs before anything else does to it what a bad build would do.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_llama import RawModel
from rigs import Sabotage, WriteModel
from tiny_models import TinySpec

from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.errors import NativeLibraryError
from edgespec.machine import soundness
from edgespec.machine.check_models import write_check_models
from edgespec.machine.facts import known_soundness
from edgespec.machine.identity import Machine, this_machine
from edgespec.machine.soundness import ChildReport, Soundness, check_soundness, run_child

TINY = TinySpec(num_layers=1, width=64, ffn_width=64, quantization="Q8_0", num_vocab=384)
CRASH = "import ctypes, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
CRASH += "ctypes.string_at(0)\n"
HANG = "import time\ntime.sleep(1000)\n"


def test_a_child_tells_the_logits_of_every_model(write_model: WriteModel) -> None:
    """The same numbers as llama.cpp gives when it is called here, without the wrapper."""
    specs = [TINY, dataclasses.replace(TINY, architecture="gemma3", vocabulary="spm")]
    paths = [write_model(spec) for spec in specs]
    for use_extra_buffers in (False, True):
        report = run_child(paths, use_extra_buffers=use_extra_buffers, num_threads=1)
        assert report.death == ""
        assert report.logits is not None
        assert len(report.logits) == len(paths)
        for path, logits in zip(paths, report.logits, strict=True):
            np.testing.assert_allclose(logits, _logits_here(path, use_extra_buffers), atol=0.05)


def _logits_here(path: Path, use_extra_bufts: bool) -> list[float]:
    raw = RawModel(path, use_extra_bufts=use_extra_bufts)
    try:
        tokens = [(7 * index) % raw.num_vocab for index in range(41)]
        raw.decode(tokens[:-1])
        return [float(value) for value in raw.decode(tokens[-1:])]
    finally:
        raw.close()


def test_a_crash_is_named_by_its_signal(sabotage: Sabotage, write_model: WriteModel) -> None:
    sabotage("1", CRASH)
    report = run_child([write_model(TINY)], use_extra_buffers=True, num_threads=1)
    assert report.logits is None
    assert report.death == "killed by SIGSEGV"
    spared = run_child([write_model(TINY)], use_extra_buffers=False, num_threads=1)
    assert spared.logits is not None


@pytest.mark.parametrize(
    ("code", "death"),
    [
        ("import os\nos._exit(3)", "exit status 3"),
        ("import os\nos.write(1, b'llama: hello\\n')", "exit status 0"),
        ("import os\nos.write(1, b'not JSON')\nos.write(2, b'one\\ntwo\\n')\nos._exit(1)", "two"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)", "killed by SIGABRT"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "killed by SIGILL"),
    ],
    ids=["silent", "babble before", "babble and die", "abort", "illegal instruction"],
)
def test_no_way_to_die_is_an_exception(
    sabotage: Sabotage, write_model: WriteModel, code: str, death: str
) -> None:
    sabotage("1", code)
    report = run_child([write_model(TINY)], use_extra_buffers=True, num_threads=1)
    assert report.logits is None
    assert report.death == death


def test_a_model_that_cannot_be_loaded_is_a_death_with_its_reason(tmp_path: Path) -> None:
    report = run_child([tmp_path / "gone.gguf"], use_extra_buffers=True, num_threads=1)
    assert report.logits is None
    assert "gone.gguf" in report.death
    assert "\n" not in report.death


def test_a_child_that_hangs_is_ended(
    sabotage: Sabotage, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage("1", HANG)
    monkeypatch.setattr(soundness, "_TIMEOUT_S", 1.0)
    report = run_child([write_model(TINY)], use_extra_buffers=True, num_threads=1)
    assert report == ChildReport(None, "no answer within 1 seconds", "time")


def test_a_python_that_is_gone_is_a_death(
    tmp_path: Path, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    report = run_child([write_model(TINY)], use_extra_buffers=True, num_threads=1)
    assert report.logits is None
    assert "could not be started" in report.death


def test_this_build_gets_the_verdict_that_its_numbers_deserve(tmp_path: Path) -> None:
    verdict = check_soundness(this_machine().num_threads)
    assert verdict.use_extra_buffers == (not verdict.findings)
    if verdict.use_extra_buffers:  # otherwise it may crash, as it would here
        for path in write_check_models(tmp_path):
            fast, plain = _logits_here(path, True), _logits_here(path, False)
            np.testing.assert_allclose(fast, plain, atol=1.0)


def test_layouts_that_crash_are_switched_off(sabotage: Sabotage) -> None:
    sabotage("1", CRASH)
    verdict = check_soundness(1)
    assert not verdict.use_extra_buffers
    (finding,) = verdict.findings
    assert "SIGSEGV" in finding


def test_a_build_that_always_crashes_cannot_be_used(sabotage: Sabotage) -> None:
    sabotage("01", CRASH)
    with pytest.raises(NativeLibraryError, match=r"SIGSEGV.*make setup") as caught:
        check_soundness(1)
    assert "\n" not in str(caught.value)


def test_a_verdict_is_remembered_for_its_machine(sabotage: Sabotage, database: Database) -> None:
    """What is remembered is what comes back, until the machine differs."""
    store, machine = Facts(database), _machine()
    verdict = known_soundness(store, machine)
    sabotage("01", CRASH)  # from here on, measuring anew does not go unnoticed
    assert known_soundness(store, machine) == verdict
    for other in (_machine(num_threads=2), _machine(features=f"{machine.features} more")):
        with pytest.raises(NativeLibraryError):
            known_soundness(store, other)
    assert _remembered(database) == [verdict]


@pytest.mark.parametrize("garbage", ["no JSON", "[]", '{"use_extra_buffers": 1, "findings": []}'])
def test_a_damaged_verdict_is_found_out_again(
    database: Database, sabotage: Sabotage, garbage: str
) -> None:
    sabotage("1", CRASH)
    store, machine = Facts(database), _machine()
    crashed = known_soundness(store, machine)
    assert not crashed.use_extra_buffers
    with database.connection as connection:
        connection.execute("UPDATE facts SET value = ?", (garbage,))
    assert known_soundness(store, machine) == crashed
    assert _remembered(database) == [crashed]


def test_a_build_that_cannot_be_used_is_asked_again(sabotage: Sabotage, database: Database) -> None:
    sabotage("01", CRASH)
    with pytest.raises(NativeLibraryError):
        known_soundness(Facts(database), _machine())
    assert _remembered(database) == []


def _machine(num_threads: int = 1, features: str | None = None) -> Machine:
    machine = dataclasses.replace(this_machine(), num_threads=num_threads)
    return dataclasses.replace(machine, features=features or machine.features)


def _remembered(database: Database) -> list[Soundness | None]:
    rows = database.connection.execute("SELECT value FROM facts WHERE kind = 'soundness'")
    return [Soundness.from_json(json.loads(row[0])) for row in rows]
