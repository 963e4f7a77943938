"""The server over the default model, as the `openai` package sees it.

`real_completer` is the engine with the default target, loaded once for all tests.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI
from server_support import wait_until

from edgespec.protocols import TextCompleter
from edgespec.server.answers import AnswerQueue
from edgespec.server.app import assemble
from edgespec.server.models import Models, Ready
from edgespec.server.run import Server, base_url, bind
from edgespec.server.settings import ServerSettings

pytestmark = pytest.mark.real

PRIMES = "Write a Python function that tells whether a number is prime."
CANCELLED_S = 1.0
"""Ten times the promise of 100 ms: the machine may be busy with other tests."""


@contextmanager
def running(completer: TextCompleter) -> Iterator[tuple[str, AnswerQueue]]:
    settings = ServerSettings(port=0)
    listener = bind(settings)
    url = base_url(listener)
    models = Models([Ready(completer)], settings)
    server = Server(assemble(models, settings), models, settings)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        wait_until(lambda: not models.is_loading)
        yield url, models.default.answers
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def served(real_completer: TextCompleter) -> Iterator[tuple[str, AnswerQueue]]:
    with running(real_completer) as it:
        yield it


@pytest.fixture(scope="module")
def client(served: tuple[str, AnswerQueue]) -> Iterator[OpenAI]:
    with OpenAI(base_url=served[0], api_key="none", max_retries=0, timeout=120) as it:
        yield it


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s
        time.sleep(0.005)
    return time.monotonic() - started


def test_the_served_model_is_the_loaded_one(client: OpenAI, real_completer: TextCompleter) -> None:
    (model,) = client.models.list()
    assert model.id == real_completer.model.name


def test_an_answer_is_right_and_fully_accounted_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any",
        messages=say("What is the capital of France? Answer with one word."),
        temperature=0,
        max_tokens=16,
    )
    (choice,) = answer.choices
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 1 < answer.usage.completion_tokens <= 16
    assert answer.model_extra is not None
    timings, speculation = answer.model_extra["timings"], answer.model_extra["speculation"]
    assert timings["prompt_ms"] > 0
    assert timings["predicted_per_second"] > 0
    assert timings["predicted_n"] == answer.usage.completion_tokens
    assert timings["draft_n_accepted"] == speculation["accepted"]
    assert 0 < speculation["target_passes"] <= answer.usage.completion_tokens
    assert speculation["accepted"] <= speculation["proposed"]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_streamed_whole_and_plain_answers_are_the_same_bytes(
    client: OpenAI, temperature: float
) -> None:
    def ask(max_tokens: int = 64, **extra: object) -> str:
        answer = client.chat.completions.create(
            model="any",
            messages=say(PRIMES),
            temperature=temperature,
            seed=11,
            max_tokens=max_tokens,
            extra_body=extra,
        )
        return answer.choices[0].message.content or ""

    # The prompt is in the KV cache from here on, so that all three start from the same state.
    ask(max_tokens=1)
    stream = client.chat.completions.create(
        model="any",
        messages=say(PRIMES),
        temperature=temperature,
        seed=11,
        max_tokens=64,
        stream=True,
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert len(streamed) > 50
    assert streamed == ask(speculate=True) == ask(speculate=False)


def test_a_second_turn_reuses_the_first(client: OpenAI) -> None:
    turns = say("Name three rivers.")
    first = client.chat.completions.create(
        model="any", messages=turns, temperature=0, max_tokens=40
    )
    turns += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "Name one more."},
    ]
    second = client.chat.completions.create(
        model="any", messages=turns, temperature=0, max_tokens=8
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert first.usage.prompt_tokens <= cached < second.usage.prompt_tokens


def test_logprobs_spell_the_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any",
        messages=say("Say: naïve café 🙂"),
        temperature=0,
        max_tokens=24,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    spelled = b"".join(bytes(entry.bytes or []) for entry in entries)
    assert spelled.startswith((choice.message.content or "").encode())
    for entry in entries:
        assert entry.logprob <= 0
        ranks = [top.logprob for top in entry.top_logprobs]
        assert len(ranks) == 3
        assert ranks == sorted(ranks, reverse=True)
        # Greedy: the chosen token is the likeliest one.
        assert entry.logprob == ranks[0]


def test_a_json_schema_is_obeyed(client: OpenAI) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "river": {"type": "string"}},
        "required": ["city", "river"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="any",
        messages=say("Name a European capital and its river, as JSON."),
        temperature=0,
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "river"}


def test_any_json_object_parses(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any",
        messages=say('Answer with this JSON and nothing else: {"ok": true}'),
        temperature=0,
        max_tokens=100,
        response_format={"type": "json_object"},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_grammar_is_obeyed(client: OpenAI) -> None:
    answer = client.completions.create(
        model="any",
        prompt="Is the sky blue? ",
        max_tokens=10,
        extra_body={"grammar": 'root ::= "yes" | "no"'},
    )
    assert answer.choices[0].text in ("yes", "no")


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    stream = client.completions.create(
        model="any",
        prompt="1, 2, 3, 4, 5, 6,",
        temperature=0,
        max_tokens=40,
        stop=[" 9"],
        stream=True,
    )
    parts = list(stream)
    assert "".join(part.choices[0].text for part in parts) == " 7, 8,"
    assert parts[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_a_bad_request(
    client: OpenAI, real_completer: TextCompleter, stream: bool
) -> None:
    def ask(prompt: str, **extra: object) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(
                model="any", prompt=prompt, stream=stream, max_tokens=4, extra_body=extra
            )
        assert "\n" not in caught.value.message
        return caught.value

    too_long = ask("word " * (real_completer.model.num_context + 10))
    assert too_long.code == "context_length_exceeded"
    assert ask("x", grammar="root ::= (").code == "invalid_grammar"
    assert ask("x", logit_bias={"999999999": 1}).type == "invalid_request_error"
    answer = client.completions.create(model="any", prompt="x", max_tokens=4)
    assert answer.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_client_that_leaves_frees_the_model(
    served: tuple[str, AnswerQueue], real_completer: TextCompleter, stream: bool, phase: str
) -> None:
    url, answers = served
    until(lambda: not answers.is_answering)
    # A prompt that no earlier answer began with, long for the one phase and short for the other.
    num_words = real_completer.model.num_context // 3 if phase == "prefill" else 3
    prompt = f"{phase} {stream}: count to a thousand. " + "word " * num_words
    body = json.dumps({"prompt": prompt, "stream": stream, "max_tokens": 1500}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    port = int(url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: answers.is_answering)
        time.sleep(0.2 if phase == "prefill" else 1.0)
        assert answers.is_answering
    assert until(lambda: not answers.is_answering) < CANCELLED_S


def test_clients_at_once_all_get_their_own_answer(client: OpenAI) -> None:
    cities = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid"}
    answers: dict[str, str] = {}

    def ask(country: str) -> None:
        question = f"What is the capital of {country}? Answer with one word."
        answer = client.chat.completions.create(
            model="any", messages=say(question), temperature=0, max_tokens=8
        )
        answers[country] = answer.choices[0].message.content or ""

    threads = [threading.Thread(target=ask, args=(country,)) for country in cities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert answers.keys() == cities.keys()
    assert all(city in answers[country] for country, city in cities.items())
