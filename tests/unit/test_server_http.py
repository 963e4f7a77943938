"""What reaches the server beside well-formed questions."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest
from server_support import EchoCompleter, Reply, Running, post, running_server, send

from edgespec import __version__
from edgespec.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
QUESTION = {"prompt": "hello"}
MAX_BODY = 2000


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_server(EchoCompleter(), ServerSettings(port=0, max_body_bytes=MAX_BODY)) as it:
        yield it


def with_headers(server: Running, **headers: str) -> Reply:
    return send(server, "POST", TEXT, json.dumps(QUESTION).encode(), headers)


def raw(server: Running, request: bytes) -> bytes:
    """Whatever the server answers to these bytes, until it closes the connection."""
    with server.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_health(server: Running) -> None:
    reply = send(server, "GET", "/health")
    assert reply.status == 200
    assert reply.json == {
        "status": "ok",
        "version": __version__,
        "model": "echo/tiny",
        "answering": False,
        "waiting": 0,
        "max_waiting": 8,
    }


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("port", ["", ":1", ":8080", ":"])
def test_loopback_hosts_are_served(server: Running, name: str, port: str) -> None:
    assert with_headers(server, Host=name + port).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "evil-localhost",
        "localhost.",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "192.168.0.1",
        "[::2]",
        "::1",
        "localhost:80:80",
        "localhost:x",
        "user@localhost",
        "localhost, evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/health", "/nothing"])
def test_other_hosts_are_refused_on_every_path(server: Running, host: str, path: str) -> None:
    reply = send(server, "GET", path, None, {"Host": host})
    assert reply.status == 403
    assert reply.error["code"] == "host_not_allowed"


def test_a_request_without_host_is_refused(server: Running) -> None:
    assert raw(server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://evil.example:8080", "null", "http://", "http://[", "x", ""],
)
def test_pages_of_other_sites_are_refused(server: Running, origin: str) -> None:
    reply = with_headers(server, Origin=origin)
    assert reply.status == 403
    assert reply.error["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5", "vscode-webview://abc"],
)
def test_local_pages_and_desktop_shells_are_served(server: Running, origin: str) -> None:
    assert with_headers(server, Origin=origin).status == 200


def test_no_page_is_ever_allowed_to_read_an_answer(server: Running) -> None:
    preflight = send(
        server,
        "OPTIONS",
        TEXT,
        None,
        {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status == 405
    answer = with_headers(server, Origin="http://localhost:3000")
    for reply in (preflight, answer):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1", "/v2/models", "/v1/chat", "/v1/completions/"])
def test_unknown_paths(server: Running, path: str) -> None:
    reply = send(server, "GET", path)
    assert reply.status == 404
    assert path in reply.error["message"]
    assert reply.error["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, {"POST"}),
        ("DELETE", TEXT, {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("PUT", "/health", {"GET", "HEAD"}),
    ],
)
def test_wrong_methods(server: Running, method: str, path: str, allowed: set[str]) -> None:
    reply = send(server, method, path)
    assert reply.status == 405
    assert reply.error["code"] == "method_not_allowed"
    assert set(reply.headers["allow"].split(", ")) == allowed


def test_only_json_is_taken(server: Running) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert with_headers(server, **{"Content-Type": kind}).status == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        reply = with_headers(server, **{"Content-Type": kind})
        assert reply.status == 415
        assert "Content-Type: application/json" in reply.error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"prompt": "\xff"}', b"[" * MAX_BODY],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_bodies_that_are_no_request(server: Running, path: str, body: bytes) -> None:
    reply = send(server, "POST", path, body)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    assert reply.error["code"] in ("invalid_json", "missing_required_parameter")


def test_a_body_may_be_as_large_as_the_limit_and_no_larger(server: Running) -> None:
    question = json.dumps(QUESTION).encode()
    full = question + b" " * (MAX_BODY - len(question))
    assert send(server, "POST", TEXT, full).status == 200
    reply = send(server, "POST", TEXT, full + b" ")
    assert reply.status == 413
    assert reply.error["code"] == "body_too_large"
    assert str(MAX_BODY) in reply.error["message"]


def test_a_body_without_a_length_is_limited_too(server: Running) -> None:
    chunk = b"400\r\n" + b" " * 0x400 + b"\r\n"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    answer = raw(server, head + b"Connection: close\r\n\r\n" + chunk * 2 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_the_connection_survives_a_refused_body(server: Running) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        connection.request("POST", TEXT, b" " * (MAX_BODY + 1))
        refused = connection.getresponse()
        assert (refused.status, b"body_too_large" in refused.read()) == (413, True)
        used = connection.sock
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        assert connection.sock is used
    finally:
        connection.close()


def test_what_is_not_http_does_no_harm(server: Running, capfd: pytest.CaptureFixture[str]) -> None:
    assert raw(server, b"\x16\x03\x01\x02\x00\x01\x00").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET / SPDY/3\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"") == b""
    assert raw(server, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n") == b""
    half = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
    assert raw(server, half) == b""
    assert post(server, TEXT, QUESTION).status == 200
    assert capfd.readouterr().err == ""


def test_events_have_the_form_of_server_sent_events(server: Running) -> None:
    reply = post(server, CHAT, {"messages": [{"role": "user", "content": "é\u2028x"}]})
    assert reply.json["choices"][0]["message"]["content"] == "é\u2028x"
    content = {"messages": [{"role": "user", "content": "é\u2028x"}], "stream": True}
    reply = post(server, CHAT, content)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.body.isascii()
    *events, done, rest = reply.body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") for event in events)
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in parsed) == "é\u2028x"


def test_a_connection_serves_several_questions(server: Running) -> None:
    body = json.dumps(QUESTION | {"stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(head % len(body) + body)
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                part = connection.recv(65536)
                assert part
                received += part
            assert received.count(b"[DONE]") == 1
