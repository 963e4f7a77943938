"""llama-server's own endpoints, and what its own tests ask of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_support import DETAILS, NUM_CONTEXT, EchoCompleter, Running, post, running_server, send

from edgespec.server.settings import ServerSettings


@pytest.fixture(scope="module")
def server(completer: EchoCompleter) -> Iterator[Running]:
    with running_server(completer, ServerSettings(port=0, slots=2)) as it:
        yield it


def chat(*turns: tuple[str, str], **fields: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]} | fields


def test_completion(server: Running, completer: EchoCompleter) -> None:
    completer.requests.clear()
    reply = post(server, "/completion", {"prompt": "ab", "n_predict": 9, "return_tokens": True})
    assert reply.json["content"] == "ab"
    assert (reply.json["stop"], reply.json["stop_type"]) == (True, "eos")
    assert reply.json["tokens"] == [97, 98, 256]
    assert reply.json["tokens_evaluated"] == 2
    assert reply.json["timings"]["predicted_n"] == 3
    assert completer.requests[0].max_tokens == 9
    limited = post(server, "/completion", {"prompt": "abc", "n_predict": 2}).json
    assert (limited["content"], limited["stop_type"]) == ("ab", "limit")
    stopped = post(server, "/completion", {"prompt": "abc", "stop": ["c"]}).json
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", "c")


@pytest.mark.parametrize(
    "prompt", ["hi", [104, 105], ["h", 105], ["hi"], [[104, 105]], [["h", 105]]]
)
def test_prompts_in_all_forms(server: Running, prompt: object) -> None:
    reply = json.loads(post(server, "/completion", {"prompt": prompt}).body)
    [told] = reply if isinstance(reply, list) else [reply]
    assert told["content"] == "hi"
    assert told["prompt"] == "hi"


def test_a_streamed_completion_says_the_same(server: Running) -> None:
    events = post(server, "/completion", {"prompt": "abc", "stream": True, "n_probs": 2}).events
    assert "".join(event["content"] for event in events) == "abc"
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    [entry] = events[0]["completion_probabilities"]
    assert (entry["id"], entry["token"], entry["bytes"]) == (97, "a", [97])
    assert [top["id"] for top in entry["top_logprobs"]] == [97, 98]


def test_infill(server: Running, completer: EchoCompleter) -> None:
    completer.requests.clear()
    asked = {"input_prefix": "a", "input_suffix": "b", "prompt": "c"}
    assert post(server, "/infill", asked).status == 200
    assert completer.requests[0].prompt_tokens == (1, 97, 2, 98, 3, 99)


def test_tokens_there_and_back(server: Running) -> None:
    tokens = post(server, "/tokenize", {"content": "hé"}).json["tokens"]
    assert post(server, "/detokenize", {"tokens": tokens}).json == {"content": "hé"}
    pieces = post(server, "/tokenize", {"content": "hé", "with_pieces": True}).json["tokens"]
    assert [each["piece"] for each in pieces] == ["h", [0xC3], [0xA9]]
    assert post(server, "/detokenize", {"tokens": []}).json == {"content": ""}
    assert post(server, "/detokenize", {"tokens": [5000]}).status == 400


def test_templates_are_applied_and_counted(server: Running, completer: EchoCompleter) -> None:
    completer.requests.clear()
    turns = ("system", "Be brief."), ("user", "Hi.")
    prompt = post(server, "/apply-template", chat(*turns)).json["prompt"]
    assert prompt == "system: Be brief.\nuser: Hi.\nassistant: "
    counted = post(server, "/v1/chat/completions/input_tokens", chat(*turns)).json
    assert counted["input_tokens"] == len(prompt)
    begun = post(server, "/apply-template", chat(*turns, ("assistant", "Hel"))).json["prompt"]
    assert begun.endswith("assistant: Hel")
    assert completer.requests == []


def test_props_and_slots(server: Running) -> None:
    props = send(server, "GET", "/props").json
    assert props["total_slots"] == 2
    assert props["default_generation_settings"]["n_ctx"] == NUM_CONTEXT
    assert props["chat_template"] == DETAILS.chat_template
    slots = send(server, "GET", "/slots").body.decode()
    assert slots.count('"is_processing":false') == 2


@pytest.mark.parametrize(
    "path", ["/v1/models", "/models", "/health", "/v1/health", "/openapi.json"]
)
def test_what_is_told_without_being_asked_for(server: Running, path: str) -> None:
    assert send(server, "GET", path).status == 200


def test_metrics_count_and_tell_no_text(server: Running) -> None:
    def values() -> dict[str, float]:
        text = send(server, "GET", "/metrics").body.decode()
        assert "secret" not in text
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = values()
    post(server, "/v1/chat/completions", chat(("user", "secret")))
    after = values()
    for name, more in (
        ("vllm:generation_tokens_total", 7),
        ("llamacpp:tokens_predicted_total", 7),
        ("vllm:spec_decode_num_draft_tokens_total", 8),
        ("vllm:spec_decode_num_accepted_tokens_total", 6),
        ("llamacpp:prompt_tokens_total", 8),
        ("vllm:time_to_first_token_seconds_count", 1),
    ):
        assert after[name] - before.get(name, 0.0) == more
    assert after["llamacpp:requests_processing"] == after["vllm:num_requests_waiting"] == 0


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_a_prompt_that_does_not_fit_tells_how_long_it_is(server: Running, path: str) -> None:
    reply = post(server, path, chat(("user", "x" * 5000)))
    assert reply.status == 400
    assert (reply.error["n_prompt_tokens"], reply.error["n_ctx"]) == (5002, NUM_CONTEXT)
