"""Conversations of the default model that were away, and answers that were cut, go on unharmed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rigs import ask

from edgespec.paths import Paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.types import CompletionRequest, Message, SamplingParams

GREEDY = SamplingParams()
WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=20)
TEXT = """\
The harbour of the town was built for sailing ships. When steam came, the ships grew too long for
it, and the trade went to the city at the mouth of the river. Today small boats lie there in summer,
the warehouses are flats and workshops, and on Saturdays a market sells fish, bread and old books.
"""
FIRST = (Message("user", f"Repeat this text word for word, and then sum it up:\n\n{TEXT * 3}"),)
LAST = Message("user", "Now repeat its first two sentences.")


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_a_conversation_restored_by_another_process_says_what_it_would_have_said(
    real: Running,
    real_paths: Paths,
    target_path: Path,
    tmp_path: Path,
    sampling: SamplingParams,
) -> None:
    paths = dataclasses.replace(real_paths, cache=tmp_path)
    request = CompletionRequest(FIRST, sampling, max_tokens=32, conversation="a", record=False)
    real.completer.forget()
    first = ask(real.completer, request)
    second_request = dataclasses.replace(
        request, prompt=(*FIRST, Message("assistant", first.text), LAST)
    )
    undisturbed = ask(real.completer, second_request)
    options = LoadRequest(idle=False)
    with load(options, target_path, paths, lambda _line: None) as running:
        recorded = dataclasses.replace(request, record=True)
        assert ask(running.completer, recorded).token_ids == first.token_ids
    assert len(list(paths.prompts.iterdir())) == 1
    with load(options, target_path, paths, lambda _line: None) as running:
        restored = ask(running.completer, second_request)
    assert restored.token_ids == undisturbed.token_ids
    assert restored.timings.num_cached_tokens == undisturbed.timings.num_cached_tokens > 200


def test_the_rest_of_a_cut_answer_is_that_of_one_that_was_not(real: Running) -> None:
    question = (Message("user", "Erkläre in drei Sätzen, was „Größe“ bei einem Leuchtturm heißt."),)
    request = CompletionRequest(question, max_tokens=40)
    whole = ask(real.completer, request)
    for count in (5, 18):
        cut = ask(real.completer, dataclasses.replace(request, max_tokens=count))
        assert whole.text.startswith(cut.text)
        said = (*question, Message("assistant", cut.text))
        rest = ask(
            real.completer,
            CompletionRequest(said, max_tokens=40 - count, continue_final_message=True),
        )
        assert cut.text + rest.text == whole.text
