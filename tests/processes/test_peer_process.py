"""llama-server of our own, played by a small program: started, watched and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from server_support import wait_until

from edgespec.bench.chat_client import Limits, PeerError
from edgespec.bench.peer_process import LlamaServer, Served
from edgespec.bench.peers import OpenPeer, open_peer, peer_spec
from edgespec.types import Message, SamplingParams

PROGRAM = """
import http.server, json, os, signal, subprocess, sys, threading, time
def value(name): return sys.argv[sys.argv.index(name) + 1]
print("arguments", *sys.argv[1:], flush=True)
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--family" in sys.argv:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)
if "--refuses" in sys.argv:
    sys.exit("error: no model for you \\x1b[0m\\nusage: none")
if "--burns" in sys.argv:
    threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(503 if "--sleepy" in sys.argv else 200, "application/json",
                   json.dumps({"data": [{"id": "played"}]}).encode())
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["messages"][0]["content"] == "die":
            print("GGML_ASSERT: bad luck", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        timings = {"prompt_ms": 1, "predicted_ms": 2}
        if "draft-simple" in sys.argv:
            timings |= {"draft_n": 3, "draft_n_accepted": 2}
        events = [{"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]},
                  {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2},
                   "timings": timings}]
        body = "".join(f"data: {json.dumps(each)}\\n\\n" for each in events) + "data: [DONE]\\n\\n"
        self.reply(200, "text/event-stream", body.encode())
    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(value("--port"))), Handler).serve_forever()
"""
ASKED = (Message("user", "Say ok."),)
SERVED = Served(Path("/models/some.gguf"), 512, 3, idle_s=0.2)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "llama-server"
    path.write_text(f"#!{sys.executable}\n{PROGRAM}")
    path.chmod(0o755)
    return path


@pytest.fixture
def opened(program: Path) -> Iterator[OpenPeer]:
    peer = open_with(program)
    yield peer
    peer.close()


def open_with(program: Path, flags: str = "", served: Served = SERVED) -> OpenPeer:
    return open_peer(peer_spec(f"played={program} {flags}"), served, Limits())


def process_of(peer: OpenPeer) -> psutil.Process:
    """The only process of this test that listens where the peer is asked."""
    [found] = [
        child
        for child in psutil.Process().children()
        if peer.endpoint.url.partition(":")[2].rpartition(":")[2].removesuffix("/v1")
        in child.cmdline()
    ]
    return found


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_is_started_as_asked_and_stopped(opened: OpenPeer) -> None:
    answer = opened.answer(ASKED, SamplingParams(), 8)
    assert (answer.text, answer.num_tokens, answer.decode_ms) == ("ok", 2, 2.0)
    assert opened.about == "llama-server"
    process = process_of(opened)
    asked = " ".join(process.cmdline())
    for words in ("-m /models/some.gguf", "-c 512", "-t 3", "-np 1", "--host 127.0.0.1"):
        assert words in asked
    assert os.getpgid(process.pid) == process.pid, "a group of its own"
    opened.close()
    assert not process.is_running()
    opened.close()
    with pytest.raises(PeerError, match="was stopped"):
        opened.answer(ASKED, SamplingParams(), 8)


def test_its_death_is_told_with_its_last_words(opened: OpenPeer) -> None:
    with pytest.raises(PeerError, match=r"ended with status -9: .*GGML_ASSERT: bad luck"):
        opened.answer((Message("user", "die"),), SamplingParams(), 8)


def test_one_that_does_not_start_says_why(program: Path) -> None:
    with pytest.raises(PeerError) as raised:
        open_with(program, "--refuses")
    assert str(raised.value) == (
        "played could not start: it ended with status 1: error: no model for you  [0m; "
        "check its flags"
    )
    with pytest.raises(PeerError, match="cannot be started: /nowhere: No such file"):
        open_with(Path("/nowhere"))
    program.chmod(0o644)
    with pytest.raises(PeerError, match="Permission denied"):
        open_with(program)


def test_one_that_is_never_ready_is_ended(program: Path) -> None:
    before = psutil.Process().children()
    with pytest.raises(PeerError, match=r"not ready after 1 s: arguments .*--sleepy"):
        open_with(program, "--sleepy", replace(SERVED, start_s=1.0))
    assert psutil.Process().children() == before


def test_one_that_ignores_sigterm_is_killed(program: Path) -> None:
    peer = open_with(program, "--stubborn", replace(SERVED, grace_s=0.2))
    process = process_of(peer)
    peer.close()
    assert not process.is_running()


def test_what_it_started_goes_with_it(program: Path) -> None:
    peer = open_with(program, "--family")
    [child] = process_of(peer).children()
    peer.close()
    wait_until(lambda: has_ended(child))


def test_it_does_not_outlive_a_benchmark_that_is_killed(program: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from edgespec.bench.peer_process import LlamaServer, Served\n"
        "server = LlamaServer('played', (sys.argv[1], '--family'), Served(Path('m'), 1, 1))\n"
        "server.start(); print(server._process.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        started = psutil.Process(int(benchmark.stdout.readline()))
        family = [started, *started.children()]
        benchmark.kill()
    assert len(family) == 2
    wait_until(lambda: all(map(has_ended, family)), timeout_s=30.0)


def test_a_drafter_that_is_not_used_is_told(program: Path) -> None:
    with pytest.raises(PeerError, match=r"does not draft .*--spec-type draft-simple"):
        open_with(program, "-md small.gguf")
    peer = open_with(program, "-md small.gguf --spec-type draft-simple")
    assert peer.about == "llama-server -md small.gguf --spec-type draft-simple"
    assert peer.answer(ASKED, SamplingParams(), 8).proposed == 3
    peer.close()


def test_one_that_works_while_nobody_asks_is_told(program: Path) -> None:
    peer = open_with(program, "--burns", replace(SERVED, idle_s=1.0))
    peer.close()
    assert "of a core while nobody asks" in peer.about


def test_closing_from_another_thread_ends_a_start(program: Path) -> None:
    """As Ctrl-C does, where a model loads for long."""
    server = LlamaServer("played", (str(program), "--sleepy"), SERVED)
    errors: list[PeerError] = []

    def start() -> None:
        try:
            server.start()
        except PeerError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: bool(psutil.Process().children()))
    time.sleep(0.1)
    server.stop()
    thread.join(20)
    assert not thread.is_alive() and errors
