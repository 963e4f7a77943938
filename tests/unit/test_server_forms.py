"""Answers in OpenAI's forms, the corners that a well-behaved completer does not show."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from openai.types import Completion as OpenAIText
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from server_support import EchoCompleter, served_by

from edgespec.server.figures import timings_of, token_text, usage_of
from edgespec.server.forms import Told
from edgespec.server.openai.chat import ChatForm
from edgespec.server.openai.completions import TextForm
from edgespec.server.openai.fields import Wishes
from edgespec.types import (
    Chunk,
    Completion,
    DrafterCounts,
    SpeculationStats,
    Timings,
    TokenLogprob,
)

TIMINGS = Timings(10.0, 20.0, 11.0, 5, 2, 3)
COMPLETION = Completion("aé", (97, 0xC3, 0xA9, 256), "stop", TIMINGS, SpeculationStats(4, 2))
TOLD = [Told((), COMPLETION)]
SERVED = served_by(EchoCompleter())


def chat_form(*, include_usage: bool = False, stream: bool = True) -> ChatForm:
    return ChatForm(SERVED, None, Wishes(include_usage=include_usage), stream=stream)


def text_form() -> TextForm:
    return TextForm(SERVED, Wishes())


def test_whole_answers_are_what_the_client_library_declares() -> None:
    chat = chat_form(stream=False).whole(TOLD)
    assert ChatCompletion.model_validate(chat, strict=True).choices[0].message.content == "aé"
    text = text_form().whole(TOLD)
    assert OpenAIText.model_validate(text, strict=True).choices[0].text == "aé"
    assert text["object"] == "text_completion"


def test_streamed_parts_share_one_id_and_time() -> None:
    form = chat_form(include_usage=True)
    parts = [*form.piece(0, Chunk("a")), *form.ended(0, COMPLETION), *form.closing([COMPLETION])]
    chunks = [ChatCompletionChunk.model_validate(part, strict=True) for part in parts]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [part["usage"] is None for part in parts] == [True, True, True, False]
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 0]
    [other, _] = chat_form().piece(0, Chunk("a"))
    assert other["id"] != chunks[0].id
    assert "usage" not in other


def test_usage_counts_every_emitted_token() -> None:
    assert usage_of([COMPLETION]) == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_extensions_tell_times_and_speculation() -> None:
    whole = text_form().whole(TOLD)
    assert whole["timings"] == {
        "cache_n": 2,
        "prompt_n": 3,
        "prompt_ms": 10.0,
        "prompt_per_token_ms": pytest.approx(10 / 3),
        "prompt_per_second": 300.0,
        "predicted_n": 3,
        "predicted_ms": 20.0,
        "predicted_per_token_ms": 10.0,
        "predicted_per_second": 100.0,
        "draft_n": 0,
        "draft_n_accepted": 0,
    }
    assert whole["speculation"] == {
        "target_passes": 2,
        "proposed": 0,
        "accepted": 0,
        "acceptance_rate": 0.0,
        "block_efficiency": 2.0,
        "exactness": "identical",
        "mbsu": 2.0,
    }
    counts = {"context": DrafterCounts(4, 2), "small": DrafterCounts(2, 1)}
    drafted = SpeculationStats(4, 2, counts)
    timings = replace(TIMINGS, plain_token_ms=20.0)
    [last] = text_form().ended(0, replace(COMPLETION, timings=timings, stats=drafted))
    assert last["speculation"]["speedup"] == 2.0
    assert "mbsu" not in last["speculation"]
    assert (last["timings"]["draft_n"], last["timings"]["draft_n_accepted"]) == (6, 3)


def test_times_are_finite_numbers_whatever_was_measured() -> None:
    nothing = Timings(0.0, 0.0, 0.0, 0, 0, 0)
    figures = timings_of(nothing, SpeculationStats())
    assert all(value == 0 for value in figures.values())


def test_a_prediction_is_told_by_what_came_of_it() -> None:
    usage = usage_of([COMPLETION], (97, 5, 0xC3, 0xA9))
    assert usage["completion_tokens_details"] == {
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 1,
    }


def test_a_chunk_without_anything_is_not_sent_but_log_probabilities_are() -> None:
    silent = Chunk("", (TokenLogprob(97, -1.0),))
    for form in (chat_form(), text_form()):
        form.piece(0, Chunk("a"))
        assert form.piece(0, Chunk("")) == []
        [part] = form.piece(0, silent)
        assert part["choices"][0]["logprobs"]


def test_impossible_tokens_stay_within_json() -> None:
    top = ((98, -math.inf), (99, math.nan), (100, -1e30))
    chunk = Chunk("a", (TokenLogprob(97, -math.inf, top),))
    for form in (chat_form(), text_form()):
        written = json.dumps(form.piece(0, chunk), allow_nan=False)
        assert written.count("-9999.0") >= 4


def test_offsets_count_characters_over_all_pieces() -> None:
    form = text_form()
    offsets = []
    for token in "aé€b".encode():
        [part] = form.piece(0, Chunk("", (TokenLogprob(token, -1.0),)))
        offsets += part["choices"][0]["logprobs"]["text_offset"]
    assert offsets == [0, 1, 1, 2, 2, 2, 3]


def test_the_chosen_token_is_always_among_the_top_ones() -> None:
    entry = TokenLogprob(97, -3.0, ((98, -0.1), (99, -0.2)))
    [part] = text_form().piece(0, Chunk("a", (entry,)))
    assert part["choices"][0]["logprobs"]["top_logprobs"] == [{"b": -0.1, "c": -0.2, "a": -3.0}]


def test_tokens_that_are_no_whole_characters() -> None:
    assert token_text("é".encode()) == "é"
    assert token_text(b"") == ""
    assert token_text(b"\xc3") == "bytes:\\xc3"
    assert token_text(b"a\xff") == "bytes:\\x61\\xff"
