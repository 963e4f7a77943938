"""Hosts as processes of their own, over a model that crashes on command (`crashing_host`)."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import server_support
from crashing_host import sitecustomize
from terminal_support import Terminal, assert_restored

from edgespec.errors import EdgeSpecError, HostDied, ModelFileError
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest

OPTIONS = LoadRequest(drafter="none")
SHIM = Path(sitecustomize.__file__).parent
SUPPORT = Path(server_support.__file__).parent
CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "exit")


@pytest.fixture(autouse=True)
def model_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (SHIM, SUPPORT))))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "cache")


@pytest.fixture
def host(paths: Paths) -> Iterator[Host]:
    with Host(paths) as it:
        yield it


def model(folder: Path, name: str = "good") -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(b"GGUF")
    return path


def load(host: Host, path: Path) -> None:
    host.load(OPTIONS, path, lambda _line: None)


def say(host: Host, text: str) -> str:
    return "".join(chunk.text for chunk in host.answer(CompletionRequest(text)))


def child_of(pid: int) -> int:
    """The process id of the one child."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    found = [line.split() for line in listed.stdout.splitlines() if " Z" not in line]
    return int(found[0][0])  # the last one is the `ps` itself, where it is a child, too


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def assert_ends(pid: int, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while lives(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


@pytest.mark.parametrize("crash", CRASHES)
def test_after_a_crash_the_next_answer_comes(host: Host, tmp_path: Path, crash: str) -> None:
    load(host, model(tmp_path))
    for _ in range(2):
        assert say(host, "hello") == "hello"
        with pytest.raises(HostDied) as caught:
            say(host, f"die {crash}")
        if crash == "SIGABRT":
            assert "GGML_ASSERT(tokens > 0) failed" in str(caught.value)
        if crash == "exit":
            assert "exit status 3: ImportError: a part is missing" in str(caught.value)
    assert say(host, "again") == "again"


def test_what_the_library_prints_stays_out_of_the_terminal(
    host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(host, model(tmp_path))
    with pytest.raises(HostDied):
        say(host, "die SIGABRT")
    assert capfd.readouterr() == ("", "")
    with Host(Paths(tmp_path, tmp_path), verbose=True) as loud:
        load(loud, model(tmp_path))
        with pytest.raises(HostDied, match="it gave up;"):
            say(loud, "die SIGABRT")
    assert "GGML_ASSERT" in capfd.readouterr().err


def test_memory_that_runs_out_in_python_is_no_death(host: Host, tmp_path: Path) -> None:
    load(host, model(tmp_path))
    with pytest.raises(EdgeSpecError, match="not enough memory") as caught:
        say(host, "die MemoryError")
    assert not isinstance(caught.value, HostDied)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_kill_in_an_answer(
    paths: Paths, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_S", "0.01")
    with Host(paths) as host:
        load(host, model(tmp_path))
        answer = host.answer(CompletionRequest("x" * 1000))
        next(answer)
        os.kill(child_of(os.getpid()), number)
        if number == signal.SIGTERM:  # it ends in order
            *_, last = answer
            assert last.completion is not None and last.completion.finish_reason == "cancelled"
            time.sleep(0.5)
        else:
            with pytest.raises(HostDied):
                list(answer)
        assert say(host, "again") == "again"


# -- marks ------------------------------------------------------------------------------------


def test_a_file_that_crashes_is_tried_once_and_refused_ever_after(
    paths: Paths, tmp_path: Path
) -> None:
    bad, good = model(tmp_path, "die SIGSEGV"), model(tmp_path)
    with Host(paths) as host:
        load(host, good)
        with pytest.raises(HostDied):
            load(host, bad)
        assert say(host, "still here") == "still here"
    with Host(paths) as another:
        with pytest.raises(ModelFileError, match="edgespec doctor --model"):
            load(another, bad)
        load(another, good)
    bad.write_bytes(b"GGUF, another one")
    with Host(paths) as host, pytest.raises(HostDied):
        load(host, bad)


def test_a_good_file_stays_good_whatever_kills_the_process(paths: Paths, tmp_path: Path) -> None:
    path = model(tmp_path)
    with Host(paths) as host:
        load(host, path)
        with pytest.raises(HostDied):
            say(host, "die SIGSEGV")
        assert say(host, "a") == "a"
    assert not Trials(paths.trials).is_marked(path)


def test_who_is_killed_while_it_loads_leaves_no_mark(paths: Paths, tmp_path: Path) -> None:
    path = model(tmp_path, "die SIGKILL")
    with Host(paths) as host, pytest.raises(HostDied, match="killed by SIGKILL"):
        load(host, path)
    assert not Trials(paths.trials).is_marked(path)
    assert list(paths.trials.iterdir()) == []


# -- the parent -------------------------------------------------------------------------------

PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from edgespec.paths import Paths
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest

folder = Path(sys.argv[1])
host = Host(Paths(folder, folder))
host.load(LoadRequest(drafter="none"), folder / "good.gguf", lambda line: None)
answer = host.answer(CompletionRequest("x" * 2000))
next(answer)
listed = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
print(listed.stdout.split()[0], flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit()", "raise ValueError"])
def test_the_child_ends_with_its_parent_however_that_ends(
    tmp_path: Path, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_S", "0.01")
    model(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(then=then), tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert lives(child) or then != "time.sleep(60)"
        if then == "time.sleep(60)":
            parent.kill()
    assert_ends(child)


def test_a_terminals_ctrl_c_does_not_reach_the_child(host: Host, tmp_path: Path) -> None:
    load(host, model(tmp_path))
    child = child_of(os.getpid())
    assert os.getsid(child) != os.getsid(0)
    os.kill(child, signal.SIGINT)
    assert say(host, "still here") == "still here"


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_where_memory_runs_out_the_child_goes_first(host: Host, tmp_path: Path) -> None:
    load(host, model(tmp_path))
    assert Path(f"/proc/{child_of(os.getpid())}/oom_score_adj").read_text() == "1000\n"


HEAVY = (
    "llama_cpp",
    "numpy",
    "sqlite3",
    "gguf",
    "edgespec.llama",
    "edgespec.engine",
    "edgespec.vocab",
)
FACES = {
    "run": ("edgespec.cli.run", "edgespec.cli.loading"),
    "serve": ("edgespec.cli.serve", "edgespec.server"),
    "chat": ("edgespec.cli.chat", "edgespec.runtime.catalog", "edgespec.tui.models_screen"),
}


LATER = (
    *("sqlite3", "markdown_it", "pygments", "edgespec.cache", "edgespec.passes"),
    *("edgespec.tui.library", "edgespec.tui.models_screen", "edgespec.tui.help"),
)
"""What the chat shows first does without."""


def loaded_by(*modules: str) -> list[str]:
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("face", FACES)
def test_a_parent_loads_nothing_heavy(face: str) -> None:
    loaded = loaded_by(*FACES[face])
    assert [name for name in HEAVY if name in loaded] == []


def test_the_first_frame_of_the_chat_waits_for_nothing_that_it_does_not_show() -> None:
    loaded = loaded_by("edgespec.cli.chat", "edgespec.tui")
    assert [name for name in LATER if name in loaded] == []


# -- the faces --------------------------------------------------------------------------------

COMMAND = Path(sys.executable).with_name("edgespec")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.usefixtures("home")
def test_run_says_in_one_line_that_the_engine_died(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "run", "--model", model(tmp_path), "die SIGSEGV"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("edgespec: the engine died: it crashed")
    assert done.stderr.count("\n") == 1


def post(port: int, text: str, *, stream: bool = False) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {"messages": [{"role": "user", "content": text}], "stream": stream}
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    data = response.read().decode()
    connection.close()
    return response.status, data


@pytest.mark.usefixtures("home")
def test_a_server_outlives_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_S", "0.01")
    server = subprocess.Popen(
        [COMMAND, "serve", "--model", model(tmp_path), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "listens at" in line)
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        try:
            for _ in range(3):
                status, data = post(port, "die SIGABRT")
                assert status == 503
                error = json.loads(data)["error"]
                assert (error["code"], error["type"]) == ("engine_died", "server_error")
                assert "gave up" in error["message"]
                assert post(port, "hello")[0] == 200
            # In the middle of a stream, with another one waiting.
            with ThreadPoolExecutor() as clients:
                streamed = clients.submit(post, port, "x" * 500, stream=True)
                waiting = clients.submit(post, port, "hello")
                time.sleep(0.5)
                os.kill(child_of(server.pid), signal.SIGKILL)
                status, data = streamed.result()
                assert status == 200
                assert '"code":"engine_died"' in data and "[DONE]" not in data
                assert waiting.result()[0] == 200
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130


@pytest.mark.usefixtures("home")
def test_a_chat_outlives_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_S", "0.02")
    arguments = ["chat", "--model", str(model(tmp_path))]
    program = f"import sys; from edgespec.cli.main import main; main({arguments!r})"
    question = "long " * 12 + "question"
    shown = Terminal(program, PYTHONPATH=os.environ["PYTHONPATH"])
    try:
        shown.until_shown("ready")
        shown.press("die SIGSEGV\r")
        shown.until_shown("wrong memory address")
        shown.press(f"{question}\r")
        shown.until_shown("    long long")
        os.kill(child_of(shown.process.pid), signal.SIGKILL)
        shown.until_shown("SIGKILL; ask again, and it starts anew · Ctrl+R asks again")
        shown.press("\x12")
        shown.until_shown(f"    {question}", 30)
        shown.press("\x11")
        assert shown.wait() == 0
        assert_restored(shown)
        assert "Traceback" not in shown.shown
    finally:
        shown.close()
