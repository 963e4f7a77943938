"""Model, context and target over real llama.cpp: caches, states, rows, hidden states, stopping."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from numpy.typing import NDArray
from rigs import (
    EXACT,
    SMALL,
    OpenModel,
    WriteModel,
    corpus_tokens,
    prefill,
    rows_in_one_pass,
    score,
)
from tiny_models import Architecture, TinySpec

from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.llama import library
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.target import LlamaTarget

OPTIONS = ContextOptions(num_context=256, num_threads=1)
FULL = dataclasses.replace(SMALL, quantization="F32")
ATTENTION: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gemma3")
RECURRENT: tuple[Architecture, ...] = ("mamba", "lfm2")
Logits = NDArray[np.float32]


def spec_of(architecture: Architecture, spec: TinySpec = SMALL) -> TinySpec:
    return dataclasses.replace(spec, architecture=architecture)


def last_logits(context: Context, tokens: Sequence[int] | Logits, position: int) -> Logits:
    context.decode(tokens, position)
    return context.logits(0).copy()


@pytest.mark.parametrize("architecture", ATTENTION)
def test_what_is_removed_from_the_cache_leaves_no_trace(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(spec_of(architecture))
    start, wrong, right = np.array_split(corpus_tokens(model, 60), 3)
    with Context(model, OPTIONS) as context:
        context.decode(start.tolist(), 0)
        wrong_logits = last_logits(context, wrong.tolist(), 20)
        context.remove(20)
        assert context.last_position() == 19
        again = last_logits(context, right.tolist(), 20)
        context.clear()
        assert context.last_position() == -1
        context.decode(start.tolist(), 0)
        fresh = last_logits(context, right.tolist(), 20)
    assert not np.array_equal(fresh, wrong_logits)
    np.testing.assert_array_equal(again, fresh)


def test_a_range_in_the_middle_can_be_removed(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 20)
    with Context(model, OPTIONS) as context:
        whole = last_logits(context, tokens, 0)
        context.remove(5, 10)
        context.remove(19)
        assert context.last_position() == 18
        assert np.abs(last_logits(context, tokens[-1:], 19) - whole).max() > 0.1


@pytest.mark.parametrize("architecture", [*ATTENTION, *RECURRENT])
def test_a_saved_state_goes_on_bit_by_bit(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(spec_of(architecture))
    tokens = corpus_tokens(model, 40)
    with Context(model, OPTIONS) as context:
        context.decode(tokens[:30], 0)
        state = context.save_state()
        expected = [last_logits(context, [token], 30 + i) for i, token in enumerate(tokens[30:])]
    with Context(model, OPTIONS) as context:
        context.load_state(state)
        assert context.last_position() == 29
        restored = [last_logits(context, [token], 30 + i) for i, token in enumerate(tokens[30:])]
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize("damage", ["empty", "cut", "another model"])
def test_a_state_that_does_not_fit_is_refused(open_model: OpenModel, damage: str) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 30)
    other = open_model(dataclasses.replace(SMALL, num_layers=3))
    with Context(other if damage == "another model" else model, OPTIONS) as context:
        context.decode(tokens, 0)
        state = context.save_state()
    broken = {"empty": b"", "cut": state[: len(state) // 2], "another model": state}[damage]
    with Context(model, OPTIONS) as context:
        with pytest.raises(NativeLibraryError, match="does not fit"):
            context.load_state(broken)
        context.clear()
        fresh = last_logits(context, tokens, 0)
        context.clear()
        np.testing.assert_array_equal(last_logits(context, tokens, 0), fresh)


def tensor(path: Path, name: str) -> Logits:
    """A float32 tensor of a GGUF file."""
    found = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    return np.array(found.data, dtype=np.float32)


@pytest.mark.parametrize("architecture", ATTENTION)
def test_embeddings_in_are_tokens_in(
    open_model: OpenModel, write_model: WriteModel, architecture: Architecture
) -> None:
    spec = spec_of(architecture, FULL)
    model = open_model(spec)
    tokens = corpus_tokens(model, 24)
    rows = tensor(write_model(spec), "token_embd.weight")[tokens]
    if architecture == "gemma3":  # scales the embeddings of tokens, and those only
        rows = rows * np.float32(spec.width**0.5)
    with Context(model, OPTIONS) as context:
        context.decode(tokens, 0, num_outputs=24)
        expected = [context.logits(row).copy() for row in range(24)]
        context.clear()
        context.decode(rows, 0, num_outputs=24)
        given = [context.logits(row).copy() for row in range(24)]
        np.testing.assert_allclose(given, expected, atol=1e-4)
        # Both kinds may follow each other in one cache.
        following = last_logits(context, tokens[:3], 24)
        context.remove(24)
        np.testing.assert_allclose(last_logits(context, rows[:3], 24), following, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ATTENTION)
def test_head_times_hidden_state_is_the_logits(
    open_model: OpenModel, write_model: WriteModel, architecture: Architecture, tied: bool
) -> None:
    spec = dataclasses.replace(spec_of(architecture, FULL), tied=tied)
    model = open_model(spec)
    head = tensor(write_model(spec), "token_embd.weight" if tied else "output.weight")
    tokens = corpus_tokens(model, 16)
    with Context(model, dataclasses.replace(OPTIONS, hidden_states=True)) as context:
        context.decode(tokens, 0, num_outputs=4)
        for row in range(4):
            state = context.hidden_state(row)
            assert state.shape == (model.num_embedding,) == (spec.width,)
            np.testing.assert_allclose(head @ state, context.logits(row), atol=2e-3)


def test_rows_are_views_that_cannot_be_written(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    with Context(model, OPTIONS) as context:
        context.decode(corpus_tokens(model, 4), 0, num_outputs=2)
        logits = context.logits(1)
        assert logits.shape == (512,)
        assert logits.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            logits[0] = 1.0
        with pytest.raises(NativeLibraryError, match="no output for that row"):
            context.hidden_state(0)


def test_only_the_last_tokens_get_rows(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 12)
    with Context(model, OPTIONS) as context:
        context.decode(tokens, 0, num_outputs=12)
        every = [context.logits(row).copy() for row in range(12)]
        context.clear()
        context.decode(tokens, 0, num_outputs=3)
        assert [context.batch_index(row) for row in range(3)] == [9, 10, 11]
        few = [context.logits(row).copy() for row in range(3)]
    np.testing.assert_allclose(few, every[9:], atol=1e-4)


def test_sequences_do_not_see_each_other(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 40)
    with Context(model, OPTIONS) as alone:
        alone.decode(tokens[:20], 0)
        expected = []
        for token in tokens[30:33]:
            expected.append(last_logits(alone, [token], 20))
            alone.remove(20)
    with Context(model, dataclasses.replace(OPTIONS, num_sequences=3)) as context:
        context.decode(tokens[:20], 0)
        for sequence in (1, 2):
            context.copy_sequence(0, sequence)
            assert context.last_position(sequence) == 19
        for sequence, token in enumerate(tokens[30:33]):
            context.decode([token], 20, sequence=sequence)
            same = [context.logits(0).copy()]
            context.decode(tokens[25:28], 21, sequence=sequence)
            np.testing.assert_allclose(same, expected[sequence : sequence + 1], atol=0.05)
        context.remove(0, sequence=1)
        assert [context.last_position(sequence) for sequence in range(3)] == [23, -1, 23]
        other = context.save_state(2)
        context.load_state(other, 1)
        assert context.last_position(1) == 23


@pytest.mark.parametrize("count", [0, 513])
def test_a_pass_of_no_or_too_many_tokens_is_refused(open_model: OpenModel, count: int) -> None:
    with (
        Context(open_model(SMALL), OPTIONS) as context,
        pytest.raises(ValueError, match=f"1 to 512 rows, not {count}"),
    ):
        context.decode([65] * count, 0)


def test_a_full_cache_is_told_in_one_line_and_can_be_used_after(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 300)
    with Context(model, OPTIONS) as context:
        target = LlamaTarget(context, 8)
        prefill(target, tokens[:250])
        with pytest.raises(NativeLibraryError, match="no place in the KV cache") as caught:
            score(target, tokens[250:258])
        assert "\n" not in str(caught.value)
        assert target.num_cached(0) == 250
        score(target, tokens[250:256])
        assert target.num_cached(0) == target.num_context == 256


def test_a_context_that_llama_cpp_refuses_is_told_with_its_reason(open_model: OpenModel) -> None:
    options = dataclasses.replace(OPTIONS, type_v="q8_0", flash_attention=False)
    with pytest.raises(NativeLibraryError, match="context of 256 tokens") as caught:
        Context(open_model(SMALL), options)
    assert "V cache requires flash_attn" in str(caught.value)


def test_a_pass_that_llama_cpp_refuses_is_told_on_one_line(open_model: OpenModel) -> None:
    with Context(open_model(SMALL), OPTIONS) as context:
        context.decode([65, 66], 0)
        for tokens, position in (([65], 1), ([65], 7), ([512], 2), ([-1], 2)):
            with pytest.raises(NativeLibraryError, match="llama_decode returned -1: ") as caught:
                context.decode(tokens, position)
            assert "\n" not in str(caught.value)
            assert "edgespec doctor" in str(caught.value)
        context.decode([65], 2)


def test_a_long_prompt_goes_in_batches(open_model: OpenModel) -> None:
    model = open_model(FULL)
    tokens = corpus_tokens(model, 200)
    with (
        Context(model, dataclasses.replace(OPTIONS, num_batch=64)) as small,
        Context(model, OPTIONS) as large,
    ):
        in_batches, at_once = LlamaTarget(small, 100), LlamaTarget(large, 8)
        assert in_batches.max_rows == 64
        prefill(in_batches, tokens)
        prefill(at_once, tokens)
        assert in_batches.num_cached(0) == at_once.num_cached(0) == 200
        np.testing.assert_allclose(in_batches.logits(0), at_once.logits(0), atol=0.05)


def test_truncating_forgets_the_end_only(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 40)
    with Context(model, EXACT) as context:
        target = LlamaTarget(context, 8)
        prefill(target, tokens[:30])
        expected = rows_in_one_pass(target, tokens[30:34])
        target.truncate(0, 100)
        assert target.num_cached(0) == 34
        target.truncate(0, 30)
        assert (target.num_cached(0), context.last_position()) == (30, 29)
        np.testing.assert_array_equal(rows_in_one_pass(target, tokens[30:34]), expected)
        target.truncate(0, 0)
        assert (target.num_cached(0), context.last_position()) == (0, -1)


@pytest.mark.parametrize("architecture", RECURRENT)
def test_a_recurrent_model_forgets_all_or_nothing(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(spec_of(architecture))
    tokens = corpus_tokens(model, 40)
    with Context(model, OPTIONS) as context:
        target = LlamaTarget(context, 8)
        assert not target.can_roll_back
        prefill(target, tokens[:30])
        first = target.logits(0).copy()
        with pytest.raises(NativeLibraryError, match=f"{architecture} models cannot forget"):
            context.remove(20)
        target.truncate(0, 30)
        assert target.num_cached(0) == 30, "there is nothing to forget"
        target.truncate(0, 29)
        assert (target.num_cached(0), context.last_position()) == (0, -1)
        prefill(target, tokens[:30])
        np.testing.assert_array_equal(target.logits(0), first)


LARGER = dataclasses.replace(SMALL, width=256, ffn_width=512, num_layers=6, num_context=8192)
"""A prompt of 3000 tokens takes it long enough to be stopped."""


def stop_after(target: LlamaTarget, seconds: float, tokens: list[int]) -> float:
    """Prefill and abort from another thread; the seconds from there to Cancelled."""
    stopped_at: list[float] = []

    def stop() -> None:
        time.sleep(seconds)
        stopped_at.append(time.perf_counter())
        target.abort()

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            prefill(target, tokens)
        return time.perf_counter() - stopped_at[0]
    finally:
        thread.join()
        target.resume()


def test_abort_stops_a_prefill_at_once_and_the_target_goes_on(open_model: OpenModel) -> None:
    model = open_model(LARGER)
    tokens = corpus_tokens(model, 3000)
    with Context(model, dataclasses.replace(OPTIONS, num_context=3072)) as context:
        target = LlamaTarget(context, 8)
        delays = []
        for _ in range(3):
            target.truncate(0, 0)
            delays.append(stop_after(target, 0.05, tokens))
            assert target.num_cached(0) % 512 == 0
            assert context.last_position() == target.num_cached(0) - 1
        assert min(delays) < 0.1
        assert target.num_cached(0) < len(tokens)

        done = target.num_cached(0)
        prefill(target, tokens[done:1000])
        logits = target.logits(0).copy()
        target.truncate(0, 0)
        prefill(target, tokens[:1000])
        np.testing.assert_array_equal(target.logits(0), logits)


def test_an_abort_before_a_pass_stops_it_until_taken_back(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    tokens = corpus_tokens(model, 20)
    with Context(model, OPTIONS) as context:
        target = LlamaTarget(context, 8)
        prefill(target, tokens[:10])
        target.abort()
        for _ in range(2):
            with pytest.raises(Cancelled):
                score(target, tokens[10:12])
            assert (target.num_cached(0), context.last_position()) == (10, 9)
        target.resume()
        score(target, tokens[10:12])
        assert target.num_cached(0) == 12


@pytest.mark.parametrize("architecture", RECURRENT)
def test_an_aborted_recurrent_model_starts_again(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(spec_of(architecture))
    tokens = corpus_tokens(model, 20)
    with Context(model, OPTIONS) as context:
        target = LlamaTarget(context, 1)
        prefill(target, tokens)
        expected = target.logits(0).copy()
        target.abort()
        with pytest.raises(Cancelled):
            score(target, [65])
        assert target.num_cached(0) == 0
        target.resume()
        prefill(target, tokens)
        np.testing.assert_array_equal(target.logits(0), expected)


def test_a_model_tells_what_it_is(write_model: WriteModel) -> None:
    shares: list[float] = []
    with Model(write_model(SMALL), on_progress=shares.append) as model:
        assert model.architecture == "llama"
        assert model.num_embedding == 64
        assert model.num_context_train == SMALL.num_context
        assert model.can_generate
        assert model.can_roll_back
        assert model.description.startswith("llama")
        assert model.metadata("general.name") == "tiny llama bpe"
        assert model.metadata("no.such.key") is None
        assert 0 < model.num_bytes < write_model(SMALL).stat().st_size
        assert model.num_parameters > 64 * 512
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    with pytest.raises(ValueError, match="is closed"):
        _ = model.handle


def test_loading_can_be_interrupted(write_model: WriteModel) -> None:
    def interrupt(_share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(write_model(SMALL), on_progress=interrupt)


def test_the_vocabulary_alone_can_be_opened(write_model: WriteModel) -> None:
    with Model(write_model(SMALL), ModelOptions(vocabulary_only=True)) as model:
        assert model.vocab.num_tokens == 512


def test_the_library_names_its_build() -> None:
    features = library.build_features()
    assert features
    assert all(name and "=" not in name for name in features)
    version, _, digest = library.build_id().partition("/")
    assert version in library.binding_version()
    assert len(digest) == 16
    assert any(library.library_folder().iterdir())


def test_logs_are_silent_unless_asked_for(
    write_model: WriteModel, capfd: pytest.CaptureFixture[str]
) -> None:
    Model(write_model(SMALL)).close()
    assert capfd.readouterr() == ("", "")
    library.set_verbose(True)
    Model(write_model(SMALL)).close()
    library.set_verbose(False)
    output = capfd.readouterr()
    assert output.out == ""
    assert "general.architecture" in output.err
