"""The installed `edgespec` command in child processes, on tiny models, in homes of the tests' own.

What was measured of a model is put into the shared home once, with one change: passes over several
rows are said to cost hardly more than one row. So drafting always pays, and the answers below are
really drafted and verified, whatever the machine does meanwhile.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pytest

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.engine.cost import CostTable
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.tiny import TinySpec, write_tiny_model
from edgespec.measure.facts import MODEL, known_soundness, measure_model, model_key
from edgespec.measure.machine import this_machine

COMMAND = Path(sys.executable).with_name("edgespec")
PATIENCE_S = 120.0
"""For whatever must happen in the end, on a machine as busy as may be."""

PROMPTLY_S = 5.0
"""Within this an interrupted command has ended."""

QUICK = TinySpec(repetitive=True)
SLOW = TinySpec(
    width=1024, ffn_width=4096, num_layers=8, num_heads=8, quantization="Q8_0", num_context=8192
)
"""130 MB: milliseconds a token, a second and more for a long prompt."""

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
        folder.mkdir(exist_ok=True)

    @staticmethod
    def of(factory: pytest.TempPathFactory) -> Cli:
        return Cli(factory.getbasetemp() / "cli")

    @property
    def quick(self) -> Path:
        """A model of a millisecond a token, whose answers repeat themselves."""
        return self._model("quick.gguf", QUICK, known=True)

    @property
    def on_quick(self) -> tuple[str | Path, ...]:
        """Options for a command on the quick model; one thread is fastest on a busy machine."""
        return ("--model", self.quick, "--threads", "1")

    @property
    def slow(self) -> Path:
        """A model that takes long enough to be interrupted anywhere; not measured yet."""
        return self._model("slow.gguf", SLOW, known=False)

    def run(
        self,
        *arguments: str | Path,
        stdin: bytes | None = None,
        home: Path | None = None,
        folder: Path | None = None,
        **environment: str,
    ) -> Ended:
        """Run to the end; without `stdin` there is none to read."""
        done = subprocess.run(
            [COMMAND, *arguments],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=self.environment(home, **environment),
            cwd=folder,
            timeout=PATIENCE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def answer(self, *arguments: str | Path, stdin: bytes | None = None) -> dict[str, Any]:
        """The object that `run --json` prints."""
        return self.run("run", *self.on_quick, "--json", *arguments, stdin=stdin).json()

    @contextmanager
    def started(
        self, *arguments: str | Path, home: Path | None = None, **environment: str
    ) -> Iterator[Running]:
        """Start in a process group of its own; killed in the end if it still runs."""
        process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(home, **environment),
            start_new_session=True,
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.communicate()

    def environment(self, home: Path | None = None, **more: str) -> dict[str, str]:
        """Ours without settings that would change what is tested; no network is asked."""
        foreign = ("EDGESPEC_", "HF_", "PIP_", "PYTHON", "LC_", "LANG")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        own = {"EDGESPEC_HOME": str(home or self.home), "PYTHONWARNINGS": WARNINGS}
        return kept | own | more

    def _model(self, name: str, spec: TinySpec, *, known: bool) -> Path:
        path = self.folder / name
        if not path.exists():
            write_tiny_model(path, spec)
            if known:
                _remember(path, self.home)
        return path


class Running:
    """A command under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._read = {"stdout": b"", "stderr": b""}

    def wait_for(self, text: str, stream: str = "stdout") -> None:
        """Return once `text` was printed on `stream`."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._read[stream]:
            assert time.monotonic() < deadline, f"{text!r} never came: {self._read}"
            more = self._more(stream, 0.2)
            assert more or self.process.poll() is None, f"ended without {text!r}: {self._read}"

    def is_silent_for(self, seconds: float) -> bool:
        """True if nothing is printed for so long, and the command still runs."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._more("stdout", left):
                return False
        return self.process.poll() is None

    def signal(self, number: signal.Signals, *, group: bool = False) -> Ended:
        """Send a signal, to all of its process group as a terminal does, and see how it ends."""
        started = time.monotonic()
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.end(within=PROMPTLY_S, since=started)

    def end(self, within: float = PATIENCE_S, since: float | None = None) -> Ended:
        """Wait until it has ended."""
        since = time.monotonic() if since is None else since
        stdout, stderr = self.process.communicate(timeout=PATIENCE_S)
        assert time.monotonic() - since < within
        return Ended(
            self.process.returncode,
            (self._read["stdout"] + stdout).decode("utf-8"),
            (self._read["stderr"] + stderr).decode("utf-8"),
        )

    def _more(self, stream: str, seconds: float) -> bytes:
        file: IO[bytes] | None = getattr(self.process, stream)
        assert file is not None
        ready, _, _ = select.select([file], [], [], seconds)
        data = os.read(file.fileno(), 65536) if ready else b""
        self._read[stream] += data
        return data


def assert_refused(ended: Ended, exit_code: int, *words: str) -> None:
    """Nothing on stdout, one line on stderr that has all of `words`, and the exit status."""
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("edgespec: ")
    assert ended.returncode == exit_code, ended.stderr
    for word in words:
        assert word in ended.stderr


def assert_stopped(ended: Ended, number: signal.Signals, before: Sequence[str] = ()) -> None:
    """Ended by a signal: its exit status, and one line on stderr after the lines `before`."""
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stderr.splitlines() == [*before, "edgespec: stopped"]


def _remember(path: Path, home: Path) -> None:
    machine = replace(this_machine(), num_threads=1)
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
