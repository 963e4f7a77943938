"""Clients that leave, wait their turn, or find the queue full, over real connections."""

from __future__ import annotations

import json
import threading
import time

import pytest
from server_support import (
    EchoCompleter,
    Reply,
    Running,
    post,
    running_server,
    send,
    start_chat,
    wait_until,
)

from edgespec.server.settings import ServerSettings

LONG = "x" * 3000
FREED_S = 0.5
"""Far below what an answer takes here, above what a busy machine may add to 100 ms."""


def finish_quickly(completer: EchoCompleter) -> None:
    """Make the answers that are still to come short, whatever the first one was."""
    completer.token_s = completer.prefill_s = 0.0


def ask(server: Running, text: str) -> Reply:
    return post(server, "/v1/completions", {"prompt": text})


def test_a_client_that_leaves_a_stream_stops_its_answer() -> None:
    completer = EchoCompleter(token_s=0.02)
    with running_server(completer) as server:
        with start_chat(server, LONG, stream=True) as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            assert server.answers.is_answering
        assert wait_until(lambda: not server.answers.is_answering) < FREED_S
        finish_quickly(completer)
        assert ask(server, "next").json["choices"][0]["text"] == "next"
    assert completer.stopped == {1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_during_prefill_stops_it(stream: bool) -> None:
    completer = EchoCompleter(prefill_s=60.0)
    with running_server(completer) as server:
        with start_chat(server, LONG, stream=stream):
            wait_until(lambda: bool(completer.requests))
        assert wait_until(lambda: not server.answers.is_answering) < FREED_S
        finish_quickly(completer)
        assert ask(server, "next").status == 200
    assert len(completer.requests) == 2


def test_a_client_that_leaves_an_answer_that_is_not_streamed_stops_it() -> None:
    completer = EchoCompleter(token_s=0.02)
    with running_server(completer) as server:
        with start_chat(server, LONG, stream=False):
            wait_until(lambda: bool(completer.requests))
            time.sleep(0.1)
        assert wait_until(lambda: not server.answers.is_answering) < FREED_S
    assert completer.stopped == {1}


def test_the_next_in_the_queue_starts_when_a_client_leaves() -> None:
    completer = EchoCompleter(prefill_s=60.0)
    with running_server(completer) as server:
        replies: list[Reply] = []
        waiting = threading.Thread(target=lambda: replies.append(ask(server, "waited")))
        with start_chat(server, LONG, stream=True):
            wait_until(lambda: bool(completer.requests))
            waiting.start()
            wait_until(lambda: server.answers.num_waiting == 1)
            finish_quickly(completer)
        started = time.monotonic()
        waiting.join(5)
        assert time.monotonic() - started < FREED_S
    assert [reply.status for reply in replies] == [200]


def test_a_client_that_leaves_the_queue_gives_up_its_place() -> None:
    completer = EchoCompleter(token_s=0.01)
    with (
        running_server(completer, ServerSettings(port=0, max_queue=1)) as server,
        start_chat(server, LONG, stream=True),
    ):
        wait_until(lambda: server.answers.is_answering)
        with start_chat(server, "impatient", stream=False):
            wait_until(lambda: server.answers.num_waiting == 1)
            assert ask(server, "full").status == 429
        assert wait_until(lambda: server.answers.num_waiting == 0) < FREED_S
        with start_chat(server, "patient", stream=False):
            wait_until(lambda: server.answers.num_waiting == 1)
    prompts = [request.prompt for request in completer.requests]
    assert len(prompts) == 1


def test_a_full_queue_is_said_so() -> None:
    completer = EchoCompleter(prefill_s=60.0)
    with (
        running_server(completer, ServerSettings(port=0, max_queue=2)) as server,
        start_chat(server, "one", stream=True),
        start_chat(server, "two", stream=True),
        start_chat(server, "three", stream=False),
    ):
        wait_until(lambda: server.answers.num_waiting == 2)
        for stream in (False, True):
            content = {"prompt": "four", "stream": stream}
            reply = post(server, "/v1/completions", content)
            assert reply.status == 429
            assert reply.error["code"] == "server_busy"
            assert "all 2 places" in reply.error["message"]
            assert int(reply.headers["retry-after"]) >= 1
        health = send(server, "GET", "/health").json
        assert (health["answering"], health["waiting"], health["max_waiting"]) == (True, 2, 2)


def test_questions_are_answered_in_the_order_they_came() -> None:
    completer = EchoCompleter(token_s=0.005)
    with running_server(completer) as server:
        threads = []
        for number in range(6):
            thread = threading.Thread(target=ask, args=(server, f"question {number}"))
            threads.append(thread)
            thread.start()
            wait_until(lambda: len(completer.requests) + server.answers.num_waiting == len(threads))
        for thread in threads:
            thread.join(10)
    assert [request.prompt for request in completer.requests] == [
        f"question {number}" for number in range(6)
    ]


def test_the_event_loop_serves_others_while_an_answer_runs() -> None:
    completer = EchoCompleter(prefill_s=60.0)
    with running_server(completer) as server, start_chat(server, LONG, stream=True):
        wait_until(lambda: bool(completer.requests))
        started = time.monotonic()
        for _ in range(10):
            assert send(server, "GET", "/health").status == 200
        assert time.monotonic() - started < 1.0


def test_text_arrives_as_it_is_made() -> None:
    completer = EchoCompleter(token_s=0.1)
    with running_server(completer) as server, start_chat(server, "abcdef", stream=True) as client:
        received, times = b"", []
        while b"[DONE]" not in received:
            part = client.recv(65536)
            assert part
            times.append(time.monotonic())
            received += part
    assert len(times) >= 6
    assert times[-1] - times[0] > 0.35


def test_a_client_that_does_not_read_does_not_hold_up_the_next() -> None:
    completer = EchoCompleter()
    with running_server(completer) as server, start_chat(server, LONG, stream=True):
        reply = ask(server, "next")
    assert reply.json["choices"][0]["text"] == "next"


@pytest.mark.parametrize("stream", [False, True])
def test_stopping_the_server_tells_the_clients(stream: bool) -> None:
    completer = EchoCompleter(token_s=0.05)
    received: dict[str, bytes] = {}

    def read(server: Running, text: str, began: threading.Event) -> None:
        with start_chat(server, text, stream=stream) as connection:
            began.set()
            body = b""
            while part := connection.recv(65536):
                body += part
            received[text] = body

    with running_server(completer) as server:
        threads = []
        for text in ("running" + LONG, "waiting"):
            began = threading.Event()
            threads.append(threading.Thread(target=read, args=(server, text, began)))
            threads[-1].start()
            assert began.wait(5)
            wait_until(lambda: len(completer.requests) + server.answers.num_waiting == len(threads))
        time.sleep(0.2)
    for thread in threads:
        thread.join(5)
    running, waiting = received["running" + LONG], received["waiting"]
    assert waiting.startswith(b"HTTP/1.1 503 ")
    assert json.loads(waiting.partition(b"\r\n\r\n")[2])["error"]["code"] == "server_stopping"
    assert running.startswith(b"HTTP/1.1 200 ")
    assert b'"finish_reason":"length"' in running, "what was said stands"
    assert (b"[DONE]" in running) is stream
    assert len(completer.requests) == 1
