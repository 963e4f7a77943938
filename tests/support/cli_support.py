"""The installed `edgespec` command in child processes, on tiny models, in homes of the tests' own.

What was measured of a model is put into the shared home once, with one change: passes over several
rows are said to cost hardly more than one row. So drafting always pays, and the answers below are
really drafted and verified, whatever the machine does meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import TinySpec, write_tiny_model

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.facts import MODEL, known_soundness, measure_model, model_key
from edgespec.machine.identity import Machine, this_machine
from edgespec.paths import Paths
from edgespec.planning.cost import CostTable

COMMAND = Path(sys.executable).with_name("edgespec")
PATIENCE_S = 120.0
"""For whatever must happen in the end, on a machine as busy as may be."""

PROMPTLY_S = 5.0
"""Within this an interrupted command has ended."""

QUICK = TinySpec(repetitive=True)
SLOW = TinySpec(
    width=1024,
    ffn_width=4096,
    num_layers=8,
    num_heads=8,
    quantization="Q8_0",
    num_context=8192,
    repetitive=True,
)
"""130 MB: milliseconds a token, seconds for a long prompt; it never ends by itself."""

WARNINGS = "error,ignore:unclosed file <_io.TextIOWrapper name='/dev/null':ResourceWarning"
"""Every warning is an error, but for a file that llama-cpp-python leaves open."""

FLAT_COSTS = {1: 10.0, 16: 10.1}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        assert self.returncode == 0, self.stderr
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


class Cli:
    """Runs commands; one home for all tests of a session, so each model is measured once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._measured = folder / "measured.db"
        folder.mkdir(exist_ok=True)

    @staticmethod
    def of(factory: pytest.TempPathFactory) -> Cli:
        return Cli(factory.getbasetemp() / "cli")

    @property
    def quick(self) -> Path:
        """A model of a millisecond a token, whose answers repeat themselves."""
        path = self._model("quick.gguf", QUICK)
        if not self._measured.exists():
            copy_database(self.home / "edgespec.db", self._measured)
        return path

    @property
    def on_quick(self) -> tuple[str | Path, ...]:
        """Options for a command on the quick model; one thread is fastest on a busy machine."""
        return ("--model", self.quick, "--threads", "1")

    def remembered_in(self, folder: Path) -> Paths:
        """A home of a test's own, in which the quick model was measured and never used.

        In use T(r) is learned, and a model of a millisecond a token needs no drafter.
        """
        assert self.quick.exists()
        folder.mkdir(exist_ok=True)
        copy_database(self._measured, folder / "edgespec.db")
        return Paths(data=folder, cache=folder / "cache")

    @property
    def slow(self) -> Path:
        """A model that takes long enough to be interrupted anywhere."""
        return self._model("slow.gguf", SLOW)

    def run(
        self,
        *arguments: str | Path,
        stdin: bytes | None = None,
        home: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run to the end; without `stdin` there is none to read."""
        done = subprocess.run(
            [COMMAND, *arguments],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=self.environment(home, environment),
            timeout=PATIENCE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def answer(self, *arguments: str | Path, stdin: bytes | None = None) -> dict[str, Any]:
        """The object that `run --json` prints."""
        return self.run("run", *self.on_quick, "--json", *arguments, stdin=stdin).json()

    def redirected(self, redirection: str, *arguments: str | Path) -> Ended:
        """Run with a shell's redirection behind the command."""
        done = subprocess.run(
            ["bash", "-c", f'"$0" "$@" {redirection}', COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment(),
            timeout=PATIENCE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    @contextmanager
    def started(
        self,
        *arguments: str | Path,
        home: Path | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (COMMAND,),
        stdin: int = subprocess.DEVNULL,
    ) -> Iterator[Running]:
        """Start in a process group of its own; killed in the end if it still runs.

        stderr is a terminal, so the command tells how far it is.
        """
        stderr, terminal = pty.openpty()
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=terminal,
            env=self.environment(home, environment),
            start_new_session=True,
        )
        os.close(terminal)
        try:
            yield Running(process, stderr)
        finally:
            process.kill()
            process.communicate()
            os.close(stderr)

    def environment(
        self, home: Path | None = None, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Ours without settings that would change what is tested."""
        foreign = ("EDGESPEC_", "HF_", "PIP_", "PYTHON", "LC_", "LANG")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        own = {"EDGESPEC_HOME": str(home or self.home), "PYTHONWARNINGS": WARNINGS}
        return kept | own | dict(more or {})

    def _model(self, name: str, spec: TinySpec) -> Path:
        path = self.folder / name
        if not path.exists():
            write_tiny_model(path, spec)
            remember(path, self.home, replace(this_machine(), num_threads=1))
        return path


class Running:
    """A command under way, its output read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: int) -> None:
        assert process.stdout is not None
        self.process = process
        self._files = {process.stdout.fileno(): "stdout", stderr: "stderr"}
        self._read = {"stdout": b"", "stderr": b""}

    def wait_for(self, text: str, stream: str = "stdout") -> None:
        """Return once `text` was printed on `stream`."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._read[stream]:
            assert time.monotonic() < deadline, f"{text!r} never came: {self._read}"
            assert self._read_more(), f"ended without {text!r}: {self._read}"

    def wait_for_output(self) -> None:
        """Return once something was printed on stdout."""
        while not self._read["stdout"]:
            assert self._read_more(), f"ended without output: {self._read}"

    def said(self, stream: str) -> str:
        """What was printed on `stream` so far."""
        return self._read[stream].decode("utf-8")

    def wait_for_child(self) -> int:
        """Return the process id of the command's child once it has one."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for pid, parent in processes():
                if parent == self.process.pid:
                    return pid
        raise AssertionError(f"no child process came: {self._read}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command and its process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def stop(self, number: signal.Signals) -> Ended:
        """Send a signal and see the command end promptly."""
        started = time.monotonic()
        self.send(number)
        ended = self.end()
        assert time.monotonic() - started < PROMPTLY_S
        return ended

    def end(self) -> Ended:
        """Wait until it has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read_more():
            assert time.monotonic() < deadline, f"never ended: {self._read}"
        status = self.process.wait(PATIENCE_S)
        stderr = self._read["stderr"].decode("utf-8").replace("\r\n", "\n")
        return Ended(status, self._read["stdout"].decode("utf-8"), stderr)

    def _read_more(self) -> bool:
        """Read what there is, waiting a little for it; False once there can be nothing more."""
        ready, _, _ = select.select(list(self._files), [], [], 0.1)
        for descriptor in ready:
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # Linux ends a terminal so
                data = b""
            self._read[self._files[descriptor]] += data
            if not data:
                del self._files[descriptor]
        return bool(self._files)


def processes() -> Iterator[tuple[int, int]]:
    """Every process of this machine that has not ended: its id and its parent's."""
    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, parent, state = line.split()
        if not state.startswith("Z"):
            yield int(pid), int(parent)


def assert_ends(pid: int) -> None:
    """The process ends, in a while."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if pid not in [other for other, _ in processes()]:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} lives on")


def assert_refused(ended: Ended, exit_code: int, *words: str) -> None:
    """Nothing on stdout, one line on stderr that has all of `words`, and the exit status."""
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("edgespec: ")
    assert ended.returncode == exit_code, ended.stderr
    for word in words:
        assert word in ended.stderr


def assert_stopped(ended: Ended, number: signal.Signals, *progress: str) -> None:
    """The exit status of a signal, and one line on stderr after lines that begin as `progress`."""
    assert ended.returncode == 128 + number, ended.stderr
    *before, last = ended.stderr.splitlines()
    assert last == "edgespec: stopped"
    assert all(line.startswith(progress) for line in before), ended.stderr


def copy_database(source: Path, copy: Path) -> None:
    """All that is committed in one database, in another file."""
    read, written = sqlite3.connect(source), sqlite3.connect(copy)
    with contextlib.closing(read), contextlib.closing(written):
        read.backup(written)


def remember(path: Path, home: Path, machine: Machine) -> None:
    """Measure the model and put it into the home's database, drafting made worth it."""
    with open_database(home / "edgespec.db") as database:
        store = Facts(database)
        options = ModelOptions(use_extra_buffers=known_soundness(store, machine).use_extra_buffers)
        with Model(path, options) as model:
            facts = measure_model(model, machine, lambda _line: None)
            table = CostTable(
                facts.table.short_context, facts.table.long_context, FLAT_COSTS, FLAT_COSTS
            )
            known = replace(facts, table=table, spread=1.0)
            assert store.put(MODEL, model_key(model, machine), known.to_json())
