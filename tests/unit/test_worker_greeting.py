"""Workers as a client finds them: addresses, the greeting, and what is told where none is there."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgespec.errors import NetworkError, UsageError
from edgespec.workers import (
    PROTOCOL,
    check_worker,
    is_open_to_others,
    parse_workers,
    unreachable,
)


def reply(major: int, minor: int) -> bytes:
    return struct.pack("<Q4B24x", 28, major, minor, 9, 0)


@contextmanager
def listening(said: bytes | None) -> Iterator[str]:
    """Says `said` to one client once it has greeted, and leaves; with None says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                greeting = connection.recv(100)
                assert greeting == b"\x0e" + struct.pack("<Q", 24) + bytes(24)
                if said is None:
                    connection.recv(1)  # until the client has left
                else:
                    connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_addresses_are_read_in_their_order() -> None:
    assert parse_workers("b:2, a.b-c:65535,10.0.0.7:1") == ("b:2", "a.b-c:65535", "10.0.0.7:1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no address"),
        ("a", "'a' is no address"),
        ("a:", "no address"),
        (":1", "no address"),
        ("a:0", "no address"),
        ("a:65536", "no address"),
        ("a:1,,b:2", "'' is no address"),
        ("[::1]:5", "no address"),
        ("http://a:1", "no address"),
        ("a:1,b:2,a:1", "twice"),
        (",".join(f"a:{port}" for port in range(1, 18)), "17 workers are too many"),
    ],
)
def test_what_is_no_address_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_workers(text)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("127.0.0.1", False), ("127.1.2.3", False), ("0.0.0.0", True), ("192.168.0.1", True)],
)
def test_only_loopback_is_closed_to_others(address: str, is_open: bool) -> None:
    assert is_open_to_others(address) == is_open


@pytest.mark.parametrize("minor", [0, PROTOCOL[1]])
def test_a_worker_that_greets_back_is_taken(minor: int) -> None:
    with listening(reply(PROTOCOL[0], minor)) as address:
        check_worker(address)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (reply(PROTOCOL[0] + 1, 0), r"speaks version 8\.0 of the protocol, not 7\.0"),
        (reply(PROTOCOL[0], PROTOCOL[1] + 1), r"version 7\.1"),
        (reply(PROTOCOL[0] - 1, 0), r"version 6\.0"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "is no worker of this version"),
        (b"", "is no worker"),
        (reply(*PROTOCOL)[:9], "is no worker"),
    ],
)
def test_others_are_refused_in_one_line(said: bytes, words: str) -> None:
    with listening(said) as address, pytest.raises(NetworkError, match=words) as caught:
        check_worker(address)
    assert address in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_is_waited_for_without_end() -> None:
    with listening(None) as address, pytest.raises(NetworkError, match="does not answer") as caught:
        check_worker(address, patience_s=0.1)
    assert "one client at a time" in caught.value.remedy


def test_nobody_there_is_told() -> None:
    with pytest.raises(NetworkError, match="cannot be reached: Connection refused"):
        check_worker(unused_address())
    with pytest.raises(NetworkError, match="cannot be reached"):
        check_worker("no-such-machine.invalid:1")


def test_of_several_workers_those_that_are_gone_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:  # never accepts
        here, gone = f"127.0.0.1:{busy.getsockname()[1]}", unused_address()
        assert unreachable([here, gone]) == [gone]
        assert unreachable([here]) == []
