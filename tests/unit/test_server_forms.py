"""Answers in OpenAI's forms, the corners that a well-behaved completer does not show."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from openai.types import Completion as OpenAIText
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from server_support import EchoCompleter

from edgespec.server.forms import ChatForm, TextForm, token_text, usage_of
from edgespec.types import Chunk, Completion, SpeculationStats, Timings, TokenLogprob

TIMINGS = Timings(10.0, 20.0, 11.0, 5, 2, 3)
COMPLETION = Completion("aé", (97, 0xC3, 0xA9, 256), "stop", TIMINGS, SpeculationStats(4, 2))
DECODE = EchoCompleter().decode_token


def test_whole_answers_are_what_the_client_library_declares() -> None:
    chat = ChatForm("m", DECODE, stream=False).whole([], COMPLETION)
    assert ChatCompletion.model_validate(chat, strict=True).choices[0].message.content == "aé"
    text = TextForm("m", DECODE).whole([], COMPLETION)
    assert OpenAIText.model_validate(text, strict=True).choices[0].text == "aé"
    assert text["object"] == "text_completion"


def test_streamed_parts_share_one_id_and_time() -> None:
    form = ChatForm("m", DECODE, stream=True, include_usage=True)
    parts = [form.opening(), form.piece(Chunk("a")), *form.closing(COMPLETION)]
    chunks = [ChatCompletionChunk.model_validate(part, strict=True) for part in parts]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [part["usage"] is None for part in parts if part] == [True, True, True, False]
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 0]
    other = ChatForm("m", DECODE, stream=True).opening()
    assert other is not None
    assert other["id"] != chunks[0].id
    assert "usage" not in other


def test_usage_counts_every_emitted_token() -> None:
    assert usage_of(COMPLETION) == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_extensions_tell_times_and_speculation() -> None:
    whole = TextForm("m", DECODE).whole([], COMPLETION)
    assert whole["timings"] == {
        "prompt_ms": 10.0,
        "decode_ms": 20.0,
        "time_to_first_token_ms": 11.0,
        "decode_tokens_per_second": 100.0,
        "speedup": None,
    }
    assert whole["speculation"] == {
        "target_passes": 2,
        "proposed": 0,
        "accepted": 0,
        "acceptance_rate": 0.0,
        "block_efficiency": 2.0,
    }
    faster = replace(COMPLETION, timings=replace(TIMINGS, plain_token_ms=20.0))
    assert TextForm("m", DECODE).closing(faster)[0]["timings"]["speedup"] == 2.0


def test_a_chunk_without_anything_is_not_sent_but_log_probabilities_are() -> None:
    silent = Chunk("", (TokenLogprob(97, -1.0),))
    for form in (ChatForm("m", DECODE, stream=True), TextForm("m", DECODE)):
        assert form.piece(Chunk("")) is None
        part = form.piece(silent)
        assert part is not None
        assert part["choices"][0]["logprobs"]


def test_impossible_tokens_stay_within_json() -> None:
    top = ((98, -math.inf), (99, math.nan), (100, -1e30))
    chunk = Chunk("a", (TokenLogprob(97, -math.inf, top),))
    for form in (ChatForm("m", DECODE, stream=True), TextForm("m", DECODE)):
        written = json.dumps(form.piece(chunk), allow_nan=False)
        assert written.count("-9999.0") >= 4


def test_offsets_count_characters_over_all_pieces() -> None:
    form = TextForm("m", DECODE)
    offsets = []
    for token in "aé€b".encode():
        part = form.piece(Chunk("", (TokenLogprob(token, -1.0),)))
        assert part is not None
        offsets += part["choices"][0]["logprobs"]["text_offset"]
    assert offsets == [0, 1, 1, 2, 2, 2, 3]


def test_the_chosen_token_is_always_among_the_top_ones() -> None:
    entry = TokenLogprob(97, -3.0, ((98, -0.1), (99, -0.2)))
    part = TextForm("m", DECODE).piece(Chunk("a", (entry,)))
    assert part is not None
    assert part["choices"][0]["logprobs"]["top_logprobs"] == [{"b": -0.1, "c": -0.2, "a": -3.0}]


def test_tokens_that_are_no_whole_characters() -> None:
    assert token_text("é".encode()) == "é"
    assert token_text(b"") == ""
    assert token_text(b"\xc3") == "bytes:\\xc3"
    assert token_text(b"a\xff") == "bytes:\\x61\\xff"
