"""A corpus is read as it was written, and what is damaged is asked for anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from rigs import file_size_limit
from scipy.special import log_softmax

from edgespec.errors import StorageError
from edgespec.learning.corpus import (
    NO_TOKEN,
    NUM_TOP,
    Corpus,
    Said,
    States,
    Top,
    corpus_sizes,
    delete_corpora,
    packed,
    top_of,
)
from edgespec.types import Message

TARGET = "0123456789abcdef" * 2
WIDTH = 6


def said(number: int, count: int, turn: int = 0, *, with_states: bool = True) -> Said:
    random = np.random.default_rng(number)
    states = States(
        random.integers(-127, 127, (count, WIDTH), np.int8),
        random.random(count).astype(np.float16),
    )
    return Said(
        str(number),
        turn,
        "chat",
        0.8,
        (Message("system", "Be brief."), Message("user", f"Wie geht's, {number}?\n")),
        f"Gut – {number}",
        random.integers(0, 150_000, count, np.int32),
        Top(
            random.integers(0, 150_000, (count, NUM_TOP), np.int32),
            -random.random((count, NUM_TOP)).astype(np.float16),
        ),
        states if with_states else None,
    )


def same(one: Said, other: Said) -> bool:
    told = [
        (each.place, each.kind, each.temperature, each.messages, each.text) for each in (one, other)
    ]
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (one.tokens, other.tokens),
        (one.top.tokens, other.top.tokens),
    ]
    pairs.append((one.top.logprobs, other.top.logprobs))
    if one.states is not None and other.states is not None:
        pairs += [
            (one.states.values, other.states.values),
            (one.states.scales, other.states.scales),
        ]
    has_states = {one.states is None, other.states is None}
    return told[0] == told[1] and len(has_states) == 1 and all(_equal(*pair) for pair in pairs)


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def unexpected(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("with_states", [True, False])
def test_answers_are_read_as_they_were_kept(tmp_path: Path, with_states: bool) -> None:
    files = [
        [said(1, 5, with_states=with_states), said(2, 1, 1, with_states=with_states)],
        [said(9, 30, with_states=with_states)],
    ]
    corpus = Corpus(tmp_path, TARGET)
    assert (corpus.known(unexpected), corpus.num_bytes) == ({}, 0)
    for answers in files:
        corpus.append(answers)
    again = Corpus(tmp_path, TARGET)
    assert again.known(unexpected) == {("1", 0): 5, ("2", 1): 1, ("9", 0): 30}
    found = list(again.read(unexpected))
    assert all(map(same, found, [*files[0], *files[1]]))
    assert len(found) == 3
    assert [(each.num_answers, each.num_tokens) for each in corpus_sizes(tmp_path)] == [(3, 36)]
    delete_corpora(tmp_path)
    delete_corpora(tmp_path)
    assert (Corpus(tmp_path, TARGET).known(unexpected), corpus_sizes(tmp_path)) == ({}, [])


@given(st.data())
def test_what_is_cut_off_is_asked_for_anew_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    corpus = Corpus(tmp_path_factory.mktemp("corpora"), TARGET)
    for number in range(3):
        corpus.append([said(number, 4)])
    path = sorted(corpus.folder.iterdir())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    told: list[str] = []
    assert [each.key for each in corpus.read(told.append)] == ["0", "2"]
    assert corpus.known(told.append) == {("0", 0): 4, ("2", 0): 4}
    assert len(told) == 2
    assert all("learn corpus" in line for line in told)
    corpus.append([said(7, 2)])
    assert [each.key for each in corpus.read(unexpected)] == ["0", "2", "7"]


def test_changed_bytes_are_left_out_when_they_are_read(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, TARGET)
    corpus.append([said(1, 4)])
    (path,) = corpus.folder.iterdir()
    whole = bytearray(path.read_bytes())
    whole[-20] ^= 1
    path.write_bytes(whole)
    told: list[str] = []
    assert list(corpus.read(told.append)) == []
    assert len(told) == 1


def test_answers_of_another_target_file_are_no_use(tmp_path: Path) -> None:
    other = Corpus(tmp_path, TARGET[:16] + "f" * 16)
    other.append([said(1, 4)])
    told: list[str] = []
    assert Corpus(tmp_path, TARGET).known(told.append) == {}
    assert "another target" in told[0]


def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, TARGET)
    corpus.append([said(1, 4)])
    with file_size_limit(2000), pytest.raises(StorageError, match="free space"):
        corpus.append([said(2, 400)])
    assert corpus.known(unexpected) == {("1", 0): 4}


LOGITS = arrays.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-60, 60, width=32), unique=True
)


@given(LOGITS)
def test_the_likeliest_tokens_are_those_of_the_distribution(logits: NDArray[np.float32]) -> None:
    tokens, logprobs = top_of(logits)
    wanted = log_softmax(logits.astype(np.float64))
    known = tokens != NO_TOKEN
    best = np.argsort(-logits, kind="stable")[: known.sum()]
    assert np.array_equal(tokens[known], best)
    assert np.allclose(logprobs[known], wanted[best], atol=0.02)
    assert np.all(logprobs[~known] == -np.inf)
    left_out = np.setdiff1d(np.arange(len(logits)), best)
    if known.sum() < NUM_TOP:
        assert np.all(wanted[left_out] < wanted.max() - 19)


@given(arrays.arrays(np.float32, WIDTH, elements=st.floats(-500, 500, width=32)))
def test_a_state_in_eight_bits_is_off_by_half_a_step_at_most(state: NDArray[np.float32]) -> None:
    values, scale = packed(state)
    found = States(values[None], np.array([scale])).as_floats()[0]
    assert np.all(np.abs(found - state) <= 0.51 * np.abs(state).max() / 127 + 127 * 6e-8)
