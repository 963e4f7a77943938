"""The whole command as a process: no network, interruptions, an old Python, nothing to do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bootstrap.environment import INCOMPLETE

SCRIPTS = Path(__file__).parents[2] / "scripts"

PYPROJECT = """
[project]
name = "edgespec"
dependencies = ["llama-cpp-python==0.3.36"]
"""


@pytest.fixture
def root(clone: Path) -> Path:
    shutil.copytree(SCRIPTS / "bootstrap", clone / "scripts" / "bootstrap")
    (clone / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    tools = clone / "tools"
    tools.mkdir()
    for name in ("gcc", "g++"):
        (tools / name).write_text("#!/bin/sh\necho 13.2.0\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    return clone


def environment(root: Path, port: int) -> dict[str, str]:
    """Variables of a machine whose only compiler is a GCC 13 and whose index is at `port`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return env | {
        "PATH": str(root / "tools"),
        "EDGESPEC_HOME": str(root / "home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
    }


def start(root: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(root / "scripts" / "bootstrap")]
    return subprocess.Popen(command, env=environment(root, port), stderr=subprocess.PIPE, text=True)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def wheels(root: Path) -> list[Path]:
    folder = root / "home" / "cache" / "wheels"
    return list(folder.iterdir()) if folder.exists() else []


def test_without_a_network_one_line_says_so(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with start(root, port) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith("edgespec: error: ")
    assert "failed: the package index does not" in last
    assert "Traceback" not in said
    assert wheels(root) == []
    assert not (root / ".venv" / INCOMPLETE).exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_the_build_and_leaves_nothing_half_made(
    root: Path, listener: socket.socket, number: signal.Signals, status: int
) -> None:
    with start(root, listener.getsockname()[1]) as process:
        connection, _ = listener.accept()
        with connection:
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            connection.settimeout(20)
            while connection.recv(4096):  # the request; then nothing, for pip is dead
                continue
    assert process.returncode == status
    assert "Traceback" not in said
    assert wheels(root) == []
    assert (root / ".venv" / INCOMPLETE).exists(), "the next run starts afresh"


def test_an_old_python_is_told_what_to_do() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 1); sys.version = '3.10.1 (x)';"
        f"runpy.run_path({str(SCRIPTS / 'bootstrap')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("edgespec: error: Python 3.11 or newer is needed, this is 3.10.1")
    assert done.stderr.count("\n") == 1


def test_entry_point_parses_on_any_python_3() -> None:
    text = (SCRIPTS / "bootstrap" / "__main__.py").read_text(encoding="utf-8")
    compile(text, "__main__.py", "exec", dont_inherit=True)
    assert 'f"' not in text
    assert "from __future__" not in text


def test_a_finished_clone_is_left_alone_within_a_second(root: Path) -> None:
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from bootstrap.command import stderr_console\n"
        "from bootstrap.environment import Environment\n"
        "from bootstrap.command import Runner\n"
        "import bootstrap.main as main\n"
        "root = Path(sys.argv[2])\n"
        "project = main.read_project(root)\n"
        "inputs = main.digest_of_inputs(project, main.describe_machine(), ())\n"
        "runner = Runner(root / 'log', stderr_console())\n"
        "environment = Environment(root / '.venv', runner, os.environ)\n"
        "environment.begin(); environment.finish(inputs, False)\n"
    )
    arguments = [sys.executable, "-c", program, str(root / "scripts"), str(root)]
    subprocess.run(arguments, check=True)
    started = time.monotonic()
    with start(root, 9) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert time.monotonic() - started < 1.0
    assert not (root / "build").exists()
    (root / "pyproject.toml").write_text(PYPROJECT.replace("0.3.36", "0.3.37"), encoding="utf-8")
    with start(root, 9) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, "a changed pin is not passed over"
