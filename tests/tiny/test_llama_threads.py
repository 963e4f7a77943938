"""Contexts over a pool of waiting threads compute what they compute without one."""

from __future__ import annotations

import ctypes
import dataclasses
import threading

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from rigs import SMALL, OpenModel, corpus_tokens

from edgespec.llama import threads
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.threads import ThreadPool

TWO = ContextOptions(num_context=256, num_threads=2)
Logits = NDArray[np.float32]


def said(open_model: OpenModel, options: ContextOptions = TWO) -> Logits:
    model = open_model(SMALL)
    with Context(model, options) as context:
        context.decode(corpus_tokens(model, 40), 0, num_outputs=40)
        return np.array([context.logits(row) for row in range(40)])


def num_native_threads() -> int:
    return int(psutil.Process().num_threads())


def test_this_build_has_pools() -> None:
    pool = ThreadPool(2)
    states = [pool.is_open]
    for _ in range(2):
        pool.close()
        states.append(pool.is_open)
    assert states == [True, False, False]


def test_one_thread_needs_no_pool() -> None:
    assert not ThreadPool(1).is_open


def test_logits_are_those_without_a_pool(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled = said(open_model)
    monkeypatch.setattr(threads, "_functions", lambda: None)
    np.testing.assert_array_equal(pooled, said(open_model))


def test_a_library_with_another_structure_gets_no_pool(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longer(ctypes.Structure):
        _fields_ = (("something", ctypes.c_int), *threads._PoolParams._fields_)

    pooled = said(open_model)
    monkeypatch.setattr(threads, "_PoolParams", Longer)
    assert not ThreadPool(2).is_open
    np.testing.assert_array_equal(pooled, said(open_model))


def test_threads_end_with_their_context(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    before = num_native_threads()
    for _ in range(20):
        with Context(model, TWO) as context:
            context.decode(corpus_tokens(model, 4), 0)
            with Context(model, TWO, beside=context) as other:
                other.decode(corpus_tokens(model, 4), 0)
                assert num_native_threads() == before + 1, "one thread for both"
    assert num_native_threads() == before


def test_contexts_side_by_side_may_take_turns(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 30)
    alone = []
    with Context(model, TWO) as context:
        for position, token in enumerate(tokens):
            context.decode([token], position)
            alone.append(context.logits(0).copy())
    fewer = dataclasses.replace(TWO, num_threads=1)
    with (
        Context(model, TWO) as first,
        Context(model, TWO, beside=first) as second,
        Context(model, fewer, beside=first) as third,
    ):
        for position, token in enumerate(tokens):
            for context in (first, second, third):
                context.decode([token], position)
                np.testing.assert_array_equal(context.logits(0), alone[position])


def test_passes_may_be_asked_for_from_another_thread(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 20)
    found: list[Logits] = []

    def decode(position: int) -> None:
        context.decode([tokens[position]], position)
        found.append(context.logits(0).copy())

    with Context(model, TWO) as context:
        for position in range(20):
            thread = threading.Thread(target=decode, args=(position,))
            thread.start()
            thread.join()
    np.testing.assert_allclose(np.array(found), said_one_by_one(open_model, tokens))


def said_one_by_one(open_model: OpenModel, tokens: list[int]) -> Logits:
    with Context(open_model(SMALL), dataclasses.replace(TWO, num_threads=1)) as context:
        rows = []
        for position, token in enumerate(tokens):
            context.decode([token], position)
            rows.append(context.logits(0).copy())
    return np.array(rows)
