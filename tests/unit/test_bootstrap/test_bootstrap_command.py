"""Running programs: exit status, output, log, progress, and no survivors."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from bootstrap.command import Console, Runner, build_percent
from bootstrap.errors import (
    BootstrapError,
    DiskFullError,
    NoNetworkError,
    failure,
    from_os_error,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def runner(tmp_path: Path, stream: io.StringIO | None = None) -> Runner:
    return Runner(tmp_path / "logs" / "log", Console(stream or io.StringIO()))


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("[1/88] Building CXX", 1),
        ("  [88/88] Linking", 100),
        ("[ 40%] Building", 40),
        ("[0/0] odd", 0),
        ("no progress [3/4]", None),
        ("", None),
    ],
)
def test_progress_is_read_from_build_tools(line: str, percent: int | None) -> None:
    assert build_percent(line) == percent


def test_output_and_status_are_returned_and_logged(tmp_path: Path) -> None:
    result = runner(tmp_path).run(["sh", "-c", "echo out; echo err >&2; exit 3"], os.environ)
    assert (result.status, result.output) == (3, "out\nerr\n")
    log = (tmp_path / "logs" / "log").read_text()
    assert log == "$ sh -c echo out; echo err >&2; exit 3\nout\nerr\n"


def test_a_crash_is_told_by_its_signal(tmp_path: Path) -> None:
    result = runner(tmp_path).run(["sh", "-c", "kill -SEGV $$"], os.environ)
    assert result.status == -signal.SIGSEGV


def test_bytes_that_are_no_text_do_not_stop_a_build(tmp_path: Path) -> None:
    result = runner(tmp_path).run(["printf", r"\377\376 ok"], os.environ)
    assert result.output.endswith(" ok")


def test_a_program_sees_no_standard_input(tmp_path: Path) -> None:
    assert runner(tmp_path).run(["cat"], os.environ).output == ""


def test_an_interrupt_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path).run(["sh", "-c", "sleep 60 & echo $!; wait"], os.environ, interrupt)
    for _ in range(100):
        if not _alive(pids[0]):
            break
        time.sleep(0.02)
    assert not _alive(pids[0])


def _alive(pid: int) -> bool:
    """False for a process that is gone or only waits to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_required_step_that_fails_is_an_error_of_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('x.c:1:2: error: no such thing'); raise SystemExit(1)"]
    with pytest.raises(BootstrapError) as caught:
        runner(tmp_path).require("building it", command, os.environ)
    message = str(caught.value)
    assert message.startswith("building it failed: x.c:1:2: error: no such thing; ")
    assert str(tmp_path / "logs" / "log") in message
    assert "\n" not in message


def test_progress_moves_on_a_terminal_only(tmp_path: Path) -> None:
    command = ["printf", r"[1/2] a\n[1/2] b\n[2/2] c\n"]
    terminal, pipe = Terminal(), io.StringIO()
    runner(tmp_path, terminal).require("building", command, os.environ)
    runner(tmp_path, pipe).require("building", command, os.environ)
    assert pipe.getvalue() == ""
    shown = terminal.getvalue()
    assert shown.count("50 %") == 1
    assert shown.endswith("edgespec: building: 100 %\n")


LOG = Path("build/bootstrap.log")


@pytest.mark.parametrize(
    "output",
    [
        "fatal error: error writing to /x/y.s: No space left on device",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space",
        "write: Disk quota exceeded",
    ],
)
def test_a_full_disk_is_recognised(output: str) -> None:
    error = failure("building", output, LOG)
    assert isinstance(error, DiskFullError)
    assert "the disk is full; free some space" in str(error)


@pytest.mark.parametrize(
    "output",
    [
        "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: no version",
        "NameResolutionError: Failed to resolve 'example.org'",
        "socket.gaierror: Temporary failure in name resolution",
    ],
)
def test_a_missing_network_is_recognised(output: str) -> None:
    error = failure("building", output, LOG)
    assert isinstance(error, NoNetworkError)
    assert str(error).startswith("building failed: the package index does not answer; check the ")


def test_an_index_that_offers_nothing_is_told_from_one_that_does_not_answer() -> None:
    output = "ERROR: Could not find a version that satisfies x==1 (from versions: none)"
    error = failure("fetching", output, LOG)
    assert isinstance(error, NoNetworkError)
    assert "does not offer what it needs; check the network" in str(error)


def test_without_an_error_line_the_last_line_is_told() -> None:
    assert "building failed: stopped here; " in str(failure("building", "a\n\nstopped here\n", LOG))
    assert str(failure("building", "", LOG)).startswith("building failed; ")


def test_a_long_line_is_cut() -> None:
    assert len(str(failure("building", "error: " + "x" * 5000, LOG))) < 300


def test_file_errors_name_the_file() -> None:
    error = from_os_error(PermissionError(13, "Permission denied", "/x/wheels"))
    assert str(error).startswith("cannot write /x/wheels: Permission denied; ")
    assert isinstance(from_os_error(OSError(28, "No space left on device")), DiskFullError)
