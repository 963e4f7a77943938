"""Signals while the self-check's children run: they end with us, and blame no one for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_support import PATIENCE_S, assert_ends, processes
from rigs import Sabotage

from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.errors import NativeLibraryError
from edgespec.machine import soundness
from edgespec.machine.facts import SOUNDNESS, known_soundness
from edgespec.machine.identity import this_machine
from edgespec.machine.soundness import Soundness, check_soundness

NOTED = "import json, os, signal, sys, time\nopen({starts!r}, 'a').write(sys.orig_argv[3])\n"
"""Leaves one letter for each child that started."""

SLOW_AT_THE_END = """\
real_dump = json.dump
def slow_dump(*arguments):
    time.sleep({seconds})
    real_dump(*arguments)
json.dump = slow_dump
"""
PARENT = """
import signal, sys
from edgespec.machine.soundness import check_soundness
for number in sys.argv[1:]:
    signal.signal(int(number), lambda *_: None)
print(check_soundness(1))
"""
DIE = "json.dump = lambda *_: os.kill(os.getpid(), {number})\n"
OUTSIDE = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    path = tmp_path / "starts"
    path.touch()
    return path


@contextmanager
def checking(*handled: signal.Signals) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process in a session of its own that asks for a verdict, and its child's process id."""
    numbers = [str(int(number)) for number in handled]
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *numbers],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, first_child(process)
    finally:
        process.kill()
        process.communicate()


def first_child(process: subprocess.Popen[str]) -> int:
    while process.poll() is None:
        for pid, parent in processes():
            if parent == process.pid:
                return pid
    raise AssertionError("it ended without a child")


@pytest.mark.parametrize("number", OUTSIDE)
def test_children_end_with_their_parent(
    sabotage: Sabotage, starts: Path, number: signal.Signals
) -> None:
    sabotage("01", NOTED.format(starts=str(starts)) + SLOW_AT_THE_END.format(seconds=1000))
    with checking() as (parent, child):
        os.killpg(parent.pid, number)
        assert parent.wait(PATIENCE_S) == -number
        assert_ends(child)
    assert len(starts.read_text()) <= 1  # it may end before it begins


@pytest.mark.parametrize("number", OUTSIDE[:3])
def test_signals_to_the_terminal_do_not_reach_them(
    sabotage: Sabotage, starts: Path, number: signal.Signals
) -> None:
    """What the parent survives is not told from a quiet run; no child was started twice."""
    sabotage("01", NOTED.format(starts=str(starts)) + SLOW_AT_THE_END.format(seconds=1))
    undisturbed = check_soundness(1)
    starts.write_text("")
    with checking(number) as (parent, _):
        os.killpg(parent.pid, number)
        said, _ = parent.communicate(timeout=PATIENCE_S)
    assert said.strip() == str(undisturbed)
    assert undisturbed.is_final
    assert starts.read_text() == "01"


@pytest.mark.parametrize("number", OUTSIDE)
def test_an_end_by_others_is_no_verdict(
    sabotage: Sabotage, starts: Path, database: Database, number: signal.Signals
) -> None:
    sabotage("1", NOTED.format(starts=str(starts)) + DIE.format(number=int(number)))
    verdict = known_soundness(Facts(database), this_machine())
    assert not verdict.use_extra_buffers
    assert not verdict.is_final
    (finding,) = verdict.findings
    assert number.name in finding
    assert "make setup" not in finding
    assert starts.read_text() == "11"
    assert remembered(database) == []


@pytest.mark.parametrize("number", OUTSIDE)
def test_an_end_by_others_never_makes_a_build_useless(
    sabotage: Sabotage, starts: Path, database: Database, number: signal.Signals
) -> None:
    sabotage("0", NOTED.format(starts=str(starts)) + DIE.format(number=int(number)))
    with pytest.raises(NativeLibraryError, match=f"{number.name}; run the command again") as caught:
        known_soundness(Facts(database), this_machine())
    assert "\n" not in str(caught.value)
    assert starts.read_text() == "00"
    assert remembered(database) == []


@pytest.mark.parametrize("argument", ["0", "1"])
def test_who_is_ended_once_is_asked_again(
    sabotage: Sabotage, starts: Path, database: Database, argument: str
) -> None:
    undisturbed = check_soundness(this_machine().num_threads)
    once = f"if os.stat({str(starts)!r}).st_size == 1: {DIE.format(number=int(signal.SIGKILL))}"
    sabotage(argument, NOTED.format(starts=str(starts)) + once)
    assert known_soundness(Facts(database), this_machine()) == undisturbed
    assert starts.read_text() == 2 * argument
    assert remembered(database) == [undisturbed]


def test_a_crash_is_believed_at_once(sabotage: Sabotage, starts: Path) -> None:
    sabotage("1", NOTED.format(starts=str(starts)) + DIE.format(number=int(signal.SIGSEGV)))
    assert check_soundness(1).is_final
    assert starts.read_text() == "1"


def test_silence_is_believed_the_second_time(
    sabotage: Sabotage, starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first may be ours: stopped with Ctrl-Z, we look at the clock too late."""
    monkeypatch.setattr(soundness, "_TIMEOUT_S", 5.0)
    sabotage("1", NOTED.format(starts=str(starts)) + "time.sleep(1000)")
    verdict = check_soundness(1)
    assert verdict.is_final and not verdict.use_extra_buffers
    assert starts.read_text() == "11"


def remembered(database: Database) -> list[Soundness | None]:
    rows = database.connection.execute("SELECT value FROM facts WHERE kind = ?", (SOUNDNESS,))
    return [Soundness.from_json(json.loads(row[0])) for row in rows]
