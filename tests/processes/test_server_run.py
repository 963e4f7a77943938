"""Listening, settings that make no sense, and leaving on a signal."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import server_support
from server_support import EchoCompleter, Serving, post, running_server, send
from starlette.applications import Starlette
from starlette.types import Message

from edgespec.errors import BusyError, UsageError
from edgespec.server import Models, Ready, ServerSettings, bind, build_app, serve
from edgespec.server.run import base_url

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from server_support import EchoCompleter
from edgespec.errors import EdgeSpecError
from edgespec.server import Models, Ready, ServerSettings, serve
completer = EchoCompleter(prefill_s=float(sys.argv[2]), token_s=0.05)
settings = ServerSettings(port=0, verbose=sys.argv[3] == "verbose", grace_s=float(sys.argv[4]))
try:
    serve(Models([Ready(completer)], settings), settings)
except KeyboardInterrupt:
    assert completer.num_open == 0
    sys.exit(130)
"""


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "8.8.8.8", "127.0.0.1:80", "[::1]"]
)
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(UsageError, match="does not listen"):
        ServerSettings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_allowed(host: str) -> None:
    assert ServerSettings(host=host).allowed_hosts >= {"localhost", "127.0.0.1", "[::1]"}


def test_the_own_address_is_an_allowed_host() -> None:
    assert "127.0.0.2" in ServerSettings(host="127.0.0.2").allowed_hosts
    assert len(ServerSettings(host="localhost").allowed_hosts) == 3


def test_beyond_loopback_there_must_be_keys() -> None:
    settings = ServerSettings(host="192.168.0.1", api_keys=("secret",))
    assert "192.168.0.1" in settings.allowed_hosts and not settings.is_everywhere
    assert ServerSettings(host="0.0.0.0", api_keys=("secret",)).is_everywhere


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("port", -1), ("port", 65536), ("max_queue", -1), ("max_body_bytes", 0)),
        *(("slots", 0), ("slots", 65), ("grace_s", -1)),
    ],
)
def test_numbers_that_make_no_sense(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=str(value)):
        ServerSettings(**{field: value})  # type: ignore[arg-type]


def test_the_real_port_of_port_zero() -> None:
    with closing(bind(ServerSettings(port=0))) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert base_url(listener) == f"http://127.0.0.1:{port}/v1"


def test_ipv6_loopback_where_the_machine_has_it() -> None:
    settings = ServerSettings(host="::1", port=0)
    try:
        probe = socket.socket(socket.AF_INET6)
        with closing(probe):
            probe.bind(("::1", 0))
    except OSError:
        with pytest.raises(UsageError, match="cannot listen on ::1"):
            bind(settings)
        return
    with running_server(EchoCompleter(), settings) as server:
        assert send(server, "GET", "/health").status == 200


def test_a_taken_port_is_known_before_anything_is_served() -> None:
    with closing(bind(ServerSettings(port=0))) as listener:
        taken = ServerSettings(port=listener.getsockname()[1])
        models = Models([Ready(EchoCompleter())], taken)
        for attempt in (lambda: bind(taken), lambda: serve(models, taken)):
            with pytest.raises(BusyError, match=f"port {taken.port} is taken"):
                attempt()


def test_a_port_is_free_again_after_the_server() -> None:
    with running_server(EchoCompleter()) as server:
        assert post(server, "/v1/completions", {"prompt": "x"}).status == 200
        port = server.port
    bind(ServerSettings(port=port)).close()


def test_other_reasons_not_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UsageError, match="port 80: Permission denied"):
        bind(ServerSettings(port=80))


async def test_the_application_runs_without_our_server_too() -> None:
    """Its lifespan alone starts and ends the worker thread."""
    completer = EchoCompleter()
    app = build_app(completer, ServerSettings())
    assert isinstance(app, Starlette)
    sent: list[Message] = []
    arriving = [{"type": "http.request", "body": b'{"prompt": "hi"}', "more_body": False}]

    async def receive() -> Message:
        if not arriving:
            await asyncio.Event().wait()
        return arriving.pop()

    async def collect(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
    }
    async with app.router.lifespan_context(app):
        await app(scope, receive, collect)
    assert sent[0]["status"] == 200
    assert len(completer.requests) == 1
    assert not [each for each in threading.enumerate() if each.name.startswith("edgespec-answers")]


@contextmanager
def server_process(
    prefill_s: float = 0.0, verbose: str = "quiet", grace_s: float = 0.0
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program above in a process of its own, and its port."""
    support = str(Path(server_support.__file__).parent)
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", PROGRAM),
            *(support, str(prefill_s), verbose, str(grace_s)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "listens at" in line:
                break
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        yield process, port
    finally:
        process.kill()
        process.communicate()


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str, float]:
    """What it still wrote and how long it took to end, in seconds."""
    started = time.monotonic()
    out, err = process.communicate(timeout=10)
    return out, err, time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
@pytest.mark.parametrize("busy", ["idle", "prefill", "decode"])
def test_a_signal_ends_it_quickly_and_quietly(number: int, code: int, busy: str) -> None:
    with server_process(prefill_s=60.0 if busy == "prefill" else 0.0) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with closing(connection):
            if busy != "idle":
                body = b'{"prompt": "%s", "stream": true}' % (b"x" * 2000)
                connection.request("POST", "/v1/completions", body)
                time.sleep(0.3)
            os.kill(process.pid, number)
            if busy == "decode":
                assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
            elif busy == "prefill":
                assert connection.getresponse().status == 503
            out, err, seconds = rest_of(process)
    assert process.returncode == code
    assert (out, err) == ("", "")
    assert seconds < 2


@pytest.mark.parametrize("times", [1, 2])
def test_answers_may_end_by_themselves_unless_it_is_told_twice(times: int) -> None:
    """Who asks meanwhile is sent away."""
    with server_process(grace_s=60.0) as (process, port):
        server = Serving("127.0.0.1", port)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            body = b'{"prompt": "%s", "stream": true}' % (b"x" * 20)
            connection.request("POST", "/v1/completions", body)
            response = connection.getresponse()
            response.readline()
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.3)
            reply = post(server, "/v1/completions", {"prompt": "late"})
            assert (reply.status, reply.error["code"]) == (503, "server_stopping")
            if times == 2:
                os.kill(process.pid, signal.SIGINT)
            said = response.read()
        rest_of(process)
    assert (b'"finish_reason":"stop"' in said) is (times == 1)
    assert (b'"finish_reason":"length"' in said) is (times == 2)


def test_half_a_request_does_not_hold_up_the_end() -> None:
    with server_process() as (process, port):
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head)
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGINT)
            out, err, seconds = rest_of(process)
    assert process.returncode == 130
    assert (out, err) == ("", "")
    assert seconds < 5


@pytest.mark.parametrize("verbose", ["quiet", "verbose"])
def test_the_access_log_is_for_the_verbose_and_on_stderr(verbose: str) -> None:
    with server_process(verbose=verbose) as (process, port):
        server = Serving("127.0.0.1", port)
        assert send(server, "GET", "/health").status in (200, 503)  # the model is there, or not yet
        os.kill(process.pid, signal.SIGINT)
        out, err, _ = rest_of(process)
    assert out == ""
    assert ("GET /health" in err) is (verbose == "verbose")
    assert "Traceback" not in err
