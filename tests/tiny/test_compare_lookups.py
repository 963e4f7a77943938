"""The script that compares ways to look drafts up: same answers, each drafting as it says."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import compare_lookups
import pytest
from cli_support import QUICK, remember
from hypothesis import given
from hypothesis import strategies as st

from edgespec.drafters.none import NoDrafter
from edgespec.llama.tiny import write_tiny_model
from edgespec.machine.identity import this_machine

TEXTS = st.lists(st.integers(0, 3), max_size=40)


def test_all_methods_give_the_same_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    model = tmp_path / "quick.gguf"
    write_tiny_model(model, QUICK)
    remember(model, tmp_path, replace(this_machine()))
    compare_lookups.main([str(model), "rewritten", "1", "24"])
    told = capsys.readouterr().out
    for name in ("plain", "edgespec", "hierarchy", "prompt-lookup", "ngram-simple"):
        assert re.search(rf"^{name} +\d+\.\d\d tokens/s +\d+\.\d{{3}}$", told, re.MULTILINE), told
    assert re.search(r"^plain .* 1\.000$", told, re.MULTILINE)


@given(TEXTS, st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=5), st.booleans())
def test_prompt_lookup_finds_what_a_scan_finds(
    prompt: list[int], answers: list[list[int]], latest: bool
) -> None:
    lookup = compare_lookups.Lookup("l", (3, 2, 1), 4, latest=latest)
    lookup.begin(prompt)
    text = list(prompt)
    for answer in answers:
        lookup.extend(answer)
        text += answer
    expected: list[int] = []
    for size in (3, 2, 1):
        places = [
            place
            for place in range(size, len(text))
            if len(text) >= size and text[place - size : place] == text[len(text) - size :]
        ]
        if places:
            place = places[-1] if latest else places[0]
            expected = text[place : place + 4]
            break
    assert [guess.token for guess in lookup.propose()] == expected
    assert list(lookup.propose([1])) == []


def test_the_first_in_order_that_knows_anything_drafts() -> None:
    lookup = compare_lookups.Lookup("l", (2,), 50, latest=True)
    fixed = compare_lookups.FixedOrder([NoDrafter(), lookup])
    fixed.begin(list(range(20)))
    assert list(fixed.propose()) == []
    fixed.extend([0, 1])
    guesses = list(itertools.islice(fixed.propose(), 50))
    assert [guess.token for guess in guesses] == list(range(2, 12))
    assert {guess.acceptance for guess in guesses} == {1.0}


def test_a_gate_is_silent_while_another_method_is_measured() -> None:
    chosen = ["mine"]
    lookup = compare_lookups.Lookup("l", (1,), 5, latest=True)
    gate = compare_lookups.Gate("mine", lookup, chosen)
    gate.begin([1, 2, 1])
    assert [guess.token for guess in gate.propose()] == [2, 1]
    chosen[:] = ["other"]
    gate.extend([9])
    assert list(gate.propose()) == []
