"""Who may ask: keys, pages that were named, connections that never ask."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_support import EchoCompleter, Reply, Running, running_server, send, wait_until

from edgespec.errors import UsageError
from edgespec.server.access import read_keys
from edgespec.server.settings import ServerSettings, parse_origin

TEXT = "/v1/completions"
BODY = b'{"prompt": "hi"}'
KEYS = ("first-key", "second-key")


@pytest.fixture(scope="module")
def server(completer: EchoCompleter) -> Iterator[Running]:
    pages = ("https://app.example", "http://Other.example:3000/")
    settings = ServerSettings(port=0, api_keys=KEYS, cors_origins=pages)
    with running_server(completer, settings) as it:
        yield it


def asked(server: Running, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return send(server, "POST", TEXT, BODY, named)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", "Bearer second-key"),
        ("Authorization", "bearer  first-key"),
        ("x_api_key", "first-key"),
    ],
)
def test_a_key_opens_the_door(server: Running, header: str, value: str) -> None:
    assert asked(server, **{header: value}).status == 200


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Accept", "*/*"),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer first-key2"),
        ("Authorization", "Basic first-key"),
        ("Authorization", "Bearer \xff"),
        ("x_api_key", "third-key"),
    ],
)
@pytest.mark.parametrize("path", [TEXT, "/v1/models", "/nothing"])
def test_without_a_key_nothing_is_answered(
    server: Running, path: str, header: str, value: str
) -> None:
    reply = send(server, "GET", path, None, {header.replace("_", "-"): value})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_whether_it_is_alive_anybody_may_know(server: Running) -> None:
    assert send(server, "GET", "/health").status == 200


def test_keys_have_names_of_their_own(server: Running, completer: EchoCompleter) -> None:
    completer.requests.clear()
    for key in (*KEYS, KEYS[0]):
        asked(server, x_api_key=key)
    first, second, again = (request.owner for request in completer.requests)
    assert first == again and len({"", first, second}) == 3
    assert not any(key in owner for key in KEYS for owner in (first, second))


def test_without_keys_all_is_the_user_s(completer: EchoCompleter) -> None:
    with running_server(completer) as server:
        completer.requests.clear()
        asked(server, x_api_key="whatever")
    assert completer.requests[0].owner == ""


def test_keys_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# for the editor\nfirst\n\n  second  \n")
    assert read_keys(path) == ("first", "second")


@pytest.mark.parametrize("content", [None, b"", b"# none\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="keys"):
        read_keys(path)


@pytest.mark.parametrize(
    "origin", ["https://app.example", "HTTPS://APP.example:443", "http://other.example:3000"]
)
def test_a_named_page_may_ask_and_read(server: Running, origin: str) -> None:
    wanted = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = send(server, "OPTIONS", TEXT, None, wanted)
    assert preflight.status == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = asked(server, Origin=origin, x_api_key=KEYS[0])
    refused = asked(server, Origin=origin)
    assert (answer.status, refused.status) == (200, 401)
    for reply in (preflight, answer, refused):
        assert reply.headers["access-control-allow-origin"] == origin
        assert "origin" in reply.headers["vary"].lower()


@pytest.mark.parametrize(
    "origin",
    [
        *("http://app.example", "https://app.example:8443", "https://app.example.evil.example"),
        *("https://evil-app.example", "https://app.example@evil.example", "null"),
    ],
)
def test_pages_that_look_like_it_may_not(server: Running, origin: str) -> None:
    reply = asked(server, Origin=origin, x_api_key=KEYS[0])
    assert (reply.status, reply.error["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("text", ["*", "app.example", "null", "https://a.example/path", "ftp://a"])
def test_only_pages_can_be_named(text: str) -> None:
    assert parse_origin(text) is None
    with pytest.raises(UsageError, match="no origin"):
        ServerSettings(cors_origins=(text,))


def test_on_all_addresses_any_of_them_may_be_named() -> None:
    settings = ServerSettings(host="0.0.0.0", port=0, api_keys=KEYS)
    with running_server(EchoCompleter(), settings) as server:
        for host, status in (("192.168.7.7:80", 200), ("[::1]", 200), ("evil.example", 403)):
            assert send(server, "GET", "/health", None, {"Host": host}).status == status


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end hangs up, sooner or later."""
    with connection:
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    return True


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    completer = EchoCompleter()
    with running_server(completer, ServerSettings(port=0, receive_s=0.2)) as server:
        connection = server.connect()
        connection.sendall(begun)
        assert is_closed(connection)
    assert not completer.requests


def test_an_answer_may_take_longer_than_its_request() -> None:
    completer = EchoCompleter(prefill_s=0.6)
    with running_server(completer, ServerSettings(port=0, receive_s=0.2)) as server:
        assert asked(server).status == 200


def test_connections_are_bounded_and_free_again() -> None:
    settings = ServerSettings(port=0, receive_s=0.5, max_connections=20)
    with running_server(EchoCompleter(), settings) as server:
        half_open = [server.connect() for _ in range(60)]
        for connection in half_open[25:]:
            assert is_closed(connection)
        for connection in half_open[:25]:
            assert is_closed(connection)
        wait_until(lambda: send(server, "GET", "/health").status == 200)
