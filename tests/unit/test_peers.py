"""Other programs as ways to answer: what is asked, what is counted, how each failure is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_peer import DONE, WHOLE, FakePeer, event, fake_peer, last, piece
from server_support import EchoCompleter, running_server

from edgespec.bench.chat_client import Limits, PeerError, endpoint
from edgespec.bench.peer_process import Served
from edgespec.bench.peers import OpenPeer, PeerSpec, body_of, open_peer, peer_spec, url_spec
from edgespec.errors import UsageError
from edgespec.types import Constraint, Message, SamplingParams

ASKED = (Message("user", "Say hello."),)
SERVED = Served(Path("none.gguf"), 512, 1)
BOUNDED = Limits(num_bytes=2000)
IMPATIENT = Limits(answer_s=0.2)
TIMINGS = {"prompt_ms": 11.0, "predicted_ms": 30.0, "draft_n": 6, "draft_n_accepted": 5}


def opened(peer: FakePeer, limits: Limits = BOUNDED) -> OpenPeer:
    return open_peer(PeerSpec("fake", url=peer.url), SERVED, limits)


def at(peer: FakePeer, limits: Limits) -> OpenPeer:
    """One that was not asked yet."""
    return OpenPeer(endpoint("fake", peer.url), None, limits)


def test_an_answer_is_counted_and_timed() -> None:
    with fake_peer(FakePeer()) as peer:
        open_ = opened(peer)
        answer = open_.answer(ASKED, SamplingParams(), 16)
    assert (open_.name, open_.about) == ("fake", f"{peer.url}/v1, model fake")
    assert (answer.text, answer.num_tokens, answer.num_prompt_tokens) == ("Hello.", 4, 7)
    assert 0 < answer.first_token_ms <= answer.request_ms
    assert answer.decode_ms == pytest.approx(answer.request_ms - answer.first_token_ms)
    assert (answer.prompt_ms, answer.proposed, answer.accepted) == (None, None, None)
    assert peer.keys == [None, None]


def test_its_own_clock_and_drafts_are_preferred() -> None:
    sends = (*WHOLE[:3], last(timings=TIMINGS, system_fingerprint="b7"), DONE)
    with fake_peer(FakePeer(sends)) as peer:
        open_ = opened(peer)
        answer = open_.answer(ASKED, SamplingParams(), 16)
    assert (answer.prompt_ms, answer.decode_ms) == (11.0, 30.0)
    assert (answer.proposed, answer.accepted) == (6, 5)
    assert open_.about.endswith("build b7")


def test_pieces_are_counted_where_no_usage_comes() -> None:
    thinking = event({"choices": [{"delta": {"reasoning_content": "Hm"}}]})
    with fake_peer(FakePeer((thinking, *WHOLE[:3]))) as peer:
        open_ = opened(peer)
        answer = open_.answer(ASKED, SamplingParams(), 16)
    assert (answer.text, answer.num_tokens, answer.num_prompt_tokens) == ("Hello.", 3, 0)
    assert "pieces of text are counted" in open_.about


def test_an_answer_without_text_took_its_time_before_the_first_token() -> None:
    with fake_peer(FakePeer((piece("", "stop"), last(num_said=1), DONE))) as peer:
        answer = opened(peer).answer(ASKED, SamplingParams(), 16)
    assert (answer.text, answer.num_tokens, answer.decode_ms) == ("", 1, 0.0)


FAILURES = {
    "dies": (FakePeer(WHOLE[:1]), "broken", "broke off"),
    "hangs": (FakePeer(WHOLE[:1], hangs=True), "late", "after 0.2 s"),
    "says nothing": (FakePeer((), hangs=True), "late", "after 0.2 s"),
    "is no JSON": (FakePeer((b"data: {]\n\n",)), "garbage", "no answer: {]"),
    "is another object": (FakePeer((event({"choices": "none"}),)), "garbage", "no answer"),
    "counts below nothing": (FakePeer((last(num_said=-1),)), "garbage", "no answer"),
    "never ends": (FakePeer((piece("x" * 500),) * 9), "garbage", "more than an answer"),
    "has no lines": (FakePeer((b"x" * 9000,)), "garbage", "more than an answer"),
    "does not stream": (FakePeer((b"{}",), kind="application/json"), "garbage", "does not stream"),
    "fails midway": (
        FakePeer((*WHOLE[:1], event({"error": {"message": "no\nmemory"}}))),
        *("broken", "failed: no memory"),
    ),
    "wants a key": (FakePeer((b'{"error": "who?"}',), 401), "key", "EDGESPEC_PEER_KEY"),
    "is busy": (FakePeer((b"\x1b[31mlater",), 429), "busy", "status 429: [31mlater"),
    "is loading": (FakePeer((b"",), 503), "busy", "status 503"),
    "is elsewhere": (FakePeer((b"",), 301), "refused", "status 301"),
    "breaks": (FakePeer((b"<html>" * 20_000,), 500), "refused", "status 500: <html>"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_is_no_answer_is_told_in_one_line(what: str) -> None:
    peer, kind, words = FAILURES[what]
    with fake_peer(peer):
        limits = IMPATIENT if peer.hangs else BOUNDED
        with pytest.raises(PeerError) as raised:
            at(peer, limits).answer(ASKED, SamplingParams(), 16)
        assert raised.value.kind == kind
        assert words in str(raised.value)
        assert str(raised.value).startswith(("fake ", "the connection to fake "))
        assert str(raised.value).isprintable() and len(str(raised.value)) < 400
        with pytest.raises(PeerError):  # at its opening, too
            opened(peer, limits)


def test_who_is_not_there_and_who_breaks_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(PeerError, match="connection to fake broke"):
            open_peer(PeerSpec("fake", url=f"http://127.0.0.1:{port}"), SERVED, BOUNDED)
        thread.join()
    with pytest.raises(PeerError, match="cannot be reached") as raised:
        open_peer(PeerSpec("fake", url=f"http://127.0.0.1:{port}"), SERVED, BOUNDED)
    assert raised.value.exit_code == 7


def test_closing_ends_the_answer_under_way() -> None:
    with fake_peer(FakePeer(WHOLE[:1], hangs=True)) as peer:
        open_ = at(peer, BOUNDED)

        def close_once_it_speaks() -> None:
            peer.began.wait(10)
            open_.close()

        closing = threading.Thread(target=close_once_it_speaks)
        closing.start()
        with pytest.raises(PeerError, match="was stopped"):
            open_.answer(ASKED, SamplingParams(), 16)
        closing.join()
        open_.close()
        with pytest.raises(PeerError, match="was stopped"):
            open_.answer(ASKED, SamplingParams(), 16)


def test_the_model_is_asked_for_or_named() -> None:
    many = {"data": [{"id": "one"}, {"id": "two"}]}
    with fake_peer(FakePeer(models=many)) as peer:
        with pytest.raises(PeerError, match="several models; add one: #one, two"):
            opened(peer)
        open_peer(url_spec(f"fake={peer.url}#two"), SERVED, BOUNDED)
        assert peer.asked[-1]["model"] == "two"
        for models, words in (({"data": []}, "no model"), (["x"], "lists no models")):
            peer.models = models
            with pytest.raises(PeerError, match=words):
                opened(peer)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPEC_PEER_KEY", "all")
    monkeypatch.setenv("EDGESPEC_PEER_KEY_MY_OWN", "mine\n")
    with fake_peer(FakePeer()) as peer:
        for name in ("other", "my-own"):
            opened_ = open_peer(PeerSpec(name, url=peer.url), SERVED, BOUNDED)
            assert "mine" not in repr(opened_.endpoint)
    assert peer.keys == ["Bearer all", "Bearer mine"]


def test_the_request_says_what_the_run_says() -> None:
    server = endpoint("fake", "http://127.0.0.1:1#m")
    body = body_of(server, ASKED, SamplingParams(seed=5), 16)
    assert body == {
        "messages": [{"role": "user", "content": "Say hello."}],
        "model": "m",
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 5,
    }
    drawn = SamplingParams(temperature=0.8, top_k=0, repeat_penalty=1.1, penalty_last_n=32)
    more = body_of(server, ASKED, drawn, 16)
    assert (more["top_k"], more["min_p"], more["repeat_penalty"]) == (0, 0.0, 1.1)
    assert (more["repeat_last_n"], "typical_p" in more) == (32, False)
    schema = Constraint("json_schema", '{"type": "object"}')
    held = body_of(server, ASKED, SamplingParams(constraint=schema), 16)
    assert held["response_format"]["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(UsageError, match="takes no regex"):
        body_of(server, ASKED, SamplingParams(constraint=Constraint("regex", "a")), 16)


def test_our_own_server_understands_every_field() -> None:
    sampling = SamplingParams(
        temperature=0.7,
        top_k=5,
        typical_p=0.9,
        repeat_penalty=1.1,
        frequency_penalty=0.2,
        presence_penalty=0.1,
        penalty_last_n=32,
        dry_multiplier=0.5,
        seed=9,
        constraint=Constraint("json_schema", '{"type": "object"}'),
    )
    completer = EchoCompleter()
    with running_server(completer) as server:
        open_ = open_peer(PeerSpec("ours", url=f"http://127.0.0.1:{server.port}"), SERVED)
        answer = open_.answer(ASKED, sampling, 64)
    assert completer.requests[-1].sampling == sampling
    assert (answer.text, answer.num_tokens) == ("Say hello.", 11)
    assert (answer.proposed, answer.accepted) == (8, 6)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((peer_spec, text) for text in ("http://127.0.0.1:1", "x", "=y", "a b=/c", "x=", "x='/a")),
        *((url_spec, text) for text in ("x", "x=/opt/llama-server")),
    ],
)
def test_what_names_no_other_program(read: Callable[[str], PeerSpec], text: str) -> None:
    with pytest.raises(UsageError, match="NAME="):
        read(text)


@pytest.mark.parametrize("address", ["http://", "ftp://host", "http://me:pw@host", "http://h:p/"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="give http://HOST:PORT"):
        endpoint("x", address)
