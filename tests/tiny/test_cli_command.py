"""The `edgespec` command itself: help, version, what it imports, and how it leaves."""

from __future__ import annotations

import itertools
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_support import PATIENCE_S, Cli

COMMANDS = (
    "bench",
    "chat",
    "db",
    "doctor",
    "learn",
    "models",
    "pull",
    "run",
    "serve",
    "trim",
    "worker",
)
HEAVY = (
    "httpx2",
    "huggingface_hub",
    "llama_cpp",
    "numpy",
    "pydantic",
    "sqlite_utils",
    "starlette",
    "textual",
    "uvicorn",
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


def python(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=cli.environment(),
        timeout=PATIENCE_S,
        check=False,
    )


def test_version(cli: Cli) -> None:
    ended = cli.run("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"edgespec, version {version('edgespec')}\n"


def test_help_names_every_command(cli: Cli) -> None:
    for option in ("--help", "-h"):
        ended = cli.run(option)
        assert (ended.returncode, ended.stderr) == (0, "")
        listed = ended.stdout[ended.stdout.index("Commands:") :].split("\n")[1:]
        assert tuple(line.split()[0] for line in listed if line) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_explained(cli: Cli, command: str) -> None:
    ended = cli.run(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"Usage: edgespec {command}")
    lines = [line.strip() for line in ended.stdout.splitlines()]
    for line, following in itertools.pairwise(lines):
        if line.startswith("-") and "  " not in line:  # an option with its words on the next line
            assert not following.startswith("-"), line


def test_as_a_module(cli: Cli) -> None:
    done = python(cli, "-m", "edgespec", "--version")
    assert (done.returncode, done.stdout) == (0, cli.run("--version").stdout)
    done = python(cli, "-m", "edgespec", "run", "--model", "nonsense", "hello")
    assert done.returncode == 10
    assert done.stderr.count("\n") == 1


def test_no_command_at_all_shows_help(cli: Cli) -> None:
    ended = cli.run()
    assert ended.returncode == 2
    assert "Commands:" in ended.stdout + ended.stderr


@pytest.mark.parametrize("module", ["edgespec.cli.main", "edgespec.cli.group"])
def test_importing_the_command_line_loads_nothing_heavy(cli: Cli, module: str) -> None:
    script = f"import sys, {module}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    done = python(cli, "-c", script)
    assert done.returncode == 0, done.stderr
    assert set(HEAVY) & set(done.stdout.split()) == set()


def test_an_answer_loads_nothing_that_it_does_not_need(cli: Cli) -> None:
    """Time to the first token, from the start of the process, is what a user feels."""
    modules = "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    wired = python(cli, "-c", f"import sys, edgespec.cli.run, edgespec.runtime.running; {modules}")
    command = f"import atexit, sys; atexit.register(lambda: {modules})\n"
    command += "from edgespec.cli.main import main; main(sys.argv[1:])"
    options = ("run", *map(str, cli.on_quick), "--max-tokens", "1", "hi")
    answered = python(cli, "-c", command, *options)
    for done, allowed in ((wired, {"llama_cpp", "numpy"}), (answered, set[str]())):
        assert done.returncode == 0, done.stderr
        loaded = set(done.stderr.split())
        assert allowed <= loaded
        assert {"filelock", "gguf", "rich", *HEAVY} & loaded == allowed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_no_other(cli: Cli, command: str) -> None:
    script = f"from edgespec.cli.group import cli; cli.main(['{command}', '--help'], 'x')"
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    done = python(cli, "-c", report + script)
    assert done.returncode == 0, done.stderr
    commands = {f"edgespec.cli.{name}" for name in COMMANDS if name != "pull"}
    own = f"edgespec.cli.{'models' if command == 'pull' else command}"
    assert commands & set(done.stdout.splitlines()[-1].split()) == {own}


def test_signals_are_handled_before_anything_large_is_imported(cli: Cli) -> None:
    script = "import sys, edgespec.cli.main; print('click' in sys.modules)"
    assert python(cli, "-c", script).stdout == "False\n"


def test_verbose_shows_logs_and_tracebacks(cli: Cli, tmp_path: Path) -> None:
    loud = cli.run("--verbose", "run", *cli.on_quick, "--max-tokens", "2", "hello")
    quiet = cli.run("run", *cli.on_quick, "--max-tokens", "2", "hello")
    assert loud.returncode == quiet.returncode == 0
    assert loud.stdout == quiet.stdout
    assert "llama" in loud.stderr
    assert quiet.stderr == ""
    missing = tmp_path / "missing.gguf"
    failed = cli.run("--verbose", "run", "--model", missing, "hello")
    assert failed.returncode == 3
    assert "Traceback" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("edgespec: ")


def test_models_and_pull_without_network(cli: Cli, tmp_path: Path) -> None:
    """HF_ENDPOINT and the index point at a port where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    environment = {
        "HF_ENDPOINT": nowhere,
        "PIP_INDEX_URL": f"{nowhere}/simple",
        "PIP_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
    }
    home = tmp_path / "home"
    for command in (("pull", "smollm2-135m"), ("run", "--model", "smollm2-135m", "hello")):
        ended = cli.run(*command, home=home, environment=environment)
        assert ended.returncode == 7, ended.stderr
        assert ended.stdout == ""
        assert ended.stderr.splitlines()[-1].startswith("edgespec: ")
        assert "Traceback" not in ended.stderr
    listed = cli.run("models", home=home)
    assert listed.returncode == 0
    assert "not pulled" in listed.stdout
