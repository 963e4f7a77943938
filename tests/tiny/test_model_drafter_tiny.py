"""A model of any vocabulary drafts for another, through real llama.cpp: the same bytes always."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from rigs import (
    EXACT,
    SMALL,
    Answered,
    OpenModel,
    WriteModel,
    answer,
    corpus_tokens,
    eager_engine,
    invariant_rows,
)
from tiny_models import TinySpec

from edgespec.drafters.model import ModelDrafter
from edgespec.engine.decoding import Decoding, Limits
from edgespec.errors import Cancelled, NativeLibraryError, UsageError
from edgespec.estimates.guess_costs import GuessCosts
from edgespec.gguf.embeddings import HeadTable
from edgespec.gguf.trim import write_trimmed
from edgespec.llama.context import Context
from edgespec.llama.draft_model import LlamaDraftModel
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget, num_sequences
from edgespec.planning.guarded import GuardedDrafter
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import open_model_drafter
from edgespec.types import EncodedPrompt, SamplingParams

WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=7)
TARGETS = {
    "llama bpe": SMALL,
    "llama spm": dataclasses.replace(SMALL, vocabulary="spm"),
}
DRAFTERS = {
    "the target itself": None,
    "another bpe": dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384),
    "gemma3 spm": dataclasses.replace(SMALL, architecture="gemma3", vocabulary="spm", num_layers=1),
    "qwen3 spm": dataclasses.replace(SMALL, architecture="qwen3", vocabulary="spm", num_layers=1),
}
SPARE_SPECS = {
    "llama tied": SMALL,
    "qwen2 untied": dataclasses.replace(SMALL, architecture="qwen2", tied=False),
    "gemma3": dataclasses.replace(SMALL, architecture="gemma3", vocabulary="spm"),
}
OPTIONS = dataclasses.replace(EXACT, num_context=256)


@contextlib.contextmanager
def opened(
    open_model: OpenModel, target: TinySpec, files: Form, *, of_any_size: bool = True
) -> Iterator[tuple[LlamaTarget, ModelDrafter]]:
    with contextlib.ExitStack() as cleanup:
        context = cleanup.enter_context(Context(open_model(target), OPTIONS))
        rows = invariant_rows(context, (30,))
        assert rows >= 2
        bound = open_model_drafter(files, context, cleanup, of_any_size=of_any_size)
        yield LlamaTarget(context, rows), bound.drafter


def check_same(one: Answered, other: Answered) -> None:
    assert one.tokens == other.tokens
    assert all(map(np.array_equal, one.logits, other.logits))


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("target", TARGETS)
def test_same_bytes_with_any_drafter(
    open_model: OpenModel, write_model: WriteModel, target: str, drafter: str
) -> None:
    spec = TARGETS[target]
    files = Form(write_model(DRAFTERS[drafter] or spec))
    with opened(open_model, spec, files) as (verifier, guesser):
        guesser.costs = GuessCosts(0.01)  # as if guesses cost nothing: ask at every chance
        for sampling in (SamplingParams(), WARM):
            prompt = corpus_tokens(open_model(spec), 40)
            plain = answer(verifier, None, prompt, sampling, 48, ends=True)
            drafted = answer(verifier, guesser, prompt, sampling, 48, ends=True)
            check_same(drafted, plain)
            assert drafted.proposed > 0
            if drafter == "the target itself" and sampling.temperature == 0:
                assert drafted.accepted > len(plain.tokens) // 2


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_one_drafter_follows_two_answers_in_turns(
    open_model: OpenModel, write_model: WriteModel, temperature: float
) -> None:
    """Each has a sequence of the drafter's context; the bytes are those of each answer alone."""
    model, files = open_model(SMALL), Form(write_model(SMALL))
    text = corpus_tokens(model, 80)
    prompts = text[:40], text[40:]
    sampling = dataclasses.replace(WARM, temperature=temperature)
    with Context(model, OPTIONS) as context:
        rows = invariant_rows(context, (30,))
        single = LlamaTarget(context, rows)
        alone = [answer(single, None, prompt, sampling, 48).tokens for prompt in prompts]
    options = dataclasses.replace(OPTIONS, num_context=512, num_sequences=num_sequences(2))
    with contextlib.ExitStack() as cleanup:
        context = cleanup.enter_context(Context(model, options))
        drafter = open_model_drafter(files, context, cleanup, of_any_size=True).drafter
        drafter.costs = GuessCosts(0.01)
        engine = eager_engine(LlamaTarget(context, rows, num_slots=2), drafter)
        said: dict[Decoding, list[int]] = {}
        counts: Counter[Decoding] = Counter()
        for prompt in prompts:
            sampler = cleanup.enter_context(SamplerChain(sampling, model.vocab))
            said[engine.open(EncodedPrompt(tuple(prompt)), sampler, Limits(48))] = []
        while running := [each for each in said if not each.is_over]:
            for decoding, kept in engine.step(running):
                said[decoding] += kept.tokens
                counts[decoding] += kept.sources.count(drafter.name)
        assert list(said.values()) == alone
        assert len(counts) == 2
        assert min(counts.values()) > 0


def test_a_trimmed_drafter_is_as_good_as_the_whole_within_its_words(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path
) -> None:
    whole = write_model(SMALL)
    plain_tokens: list[int] = []
    with opened(open_model, SMALL, Form(whole)) as (verifier, _):
        prompt = corpus_tokens(open_model(SMALL), 40)
        plain_tokens = answer(verifier, None, prompt, SamplingParams(), 48).tokens
    kept = np.array(sorted({*range(3, 60), *plain_tokens}), dtype=np.int32)
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(whole, trimmed, kept, "a test")
    with opened(open_model, SMALL, Form(whole, trimmed)) as (verifier, guesser):
        guesser.costs = GuessCosts(0.01)
        drafted = answer(verifier, guesser, prompt, SamplingParams(), 48)
        assert drafted.tokens == plain_tokens
        assert drafted.accepted > 24


@pytest.mark.parametrize("spec", SPARE_SPECS.values(), ids=SPARE_SPECS)
def test_what_was_read_can_be_said_by_a_trimmed_head(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, spec: TinySpec
) -> None:
    """It guesses what the whole model would, of the tokens that were kept or read."""
    whole, trimmed = open_model(spec), tmp_path / "trimmed.gguf"
    tokens = corpus_tokens(whole, 60)
    kept = np.array([*range(3, 259), 300, 301], dtype=np.int32)
    write_trimmed(write_model(spec), trimmed, kept, "a test")
    with contextlib.ExitStack() as cleanup:
        target = cleanup.enter_context(Context(open_model(SMALL), OPTIONS))
        beside = cleanup.enter_context(Context(whole, OPTIONS, beside=target))
        files = Form(write_model(spec), trimmed)
        bound = open_model_drafter(files, target, cleanup, of_any_size=True)
        model, expected = bound.weights.draft_model, LlamaDraftModel(beside)
        assert model.spare is not None
        num_spared = 0
        for place, token in enumerate(tokens):
            for each in (model, expected):
                each.read([token])
            known = np.union1d(kept, [0, *tokens[: place + 1]])  # 0 was read to measure costs
            logits = expected.context.logits(0)[known]
            order = np.argsort(-logits)[:2]
            found, probability = model.guess()
            assert found == known[order[0]] or float(-np.diff(logits[order])[0]) < 0.2
            share = 1.0 / float(np.exp(logits - logits.max()).sum())
            assert np.isclose(probability, share, rtol=0.2)
            num_spared += found not in kept
        assert num_spared > 0


def test_a_model_that_bends_its_logits_gets_no_spare_rows(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(write_model(SMALL), trimmed, np.arange(3, 300, dtype=np.int32), "a test")
    rows = HeadTable.rows
    monkeypatch.setattr(HeadTable, "rows", lambda self, tokens: rows(self, tokens) * 1.5)
    with contextlib.ExitStack() as cleanup:
        target = cleanup.enter_context(Context(open_model(SMALL), OPTIONS))
        files = Form(write_model(SMALL), trimmed)
        bound = open_model_drafter(files, target, cleanup, of_any_size=True)
        assert bound.weights.draft_model.spare is None


@pytest.mark.parametrize(
    ("num_read", "is_trimmed", "passes"),
    [
        (1, True, [(1, True)]),
        (48, True, [(48, True)]),
        (49, True, [(48, False), (1, True)]),
        (60, False, [(60, True)]),  # there are no hidden states anyway
    ],
)
def test_only_the_last_token_of_a_long_text_gets_a_hidden_state(
    open_model: OpenModel,
    write_model: WriteModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_read: int,
    is_trimmed: bool,
    passes: list[tuple[int, bool]],
) -> None:
    """With hidden states, which spare rows need, llama.cpp computes logits of a whole pass."""
    seen: list[tuple[int, bool]] = []
    decode = Context.decode

    def noted(
        self: Context,
        rows: Sequence[int],
        position: int,
        *,
        sequence: int = 0,
        hidden_states: bool = True,
    ) -> None:
        seen.append((len(rows), hidden_states))
        decode(self, rows, position, sequence=sequence, hidden_states=hidden_states)

    form = Form(write_model(SMALL))
    if is_trimmed:
        form = Form(form.whole, tmp_path / "trimmed.gguf")
        write_trimmed(form.whole, form.running, np.arange(3, 300, dtype=np.int32), "a test")
    with contextlib.ExitStack() as cleanup:
        target = cleanup.enter_context(Context(open_model(SMALL), OPTIONS))
        bound = open_model_drafter(form, target, cleanup, of_any_size=True)
        model, tokens = bound.weights.draft_model, corpus_tokens(open_model(SMALL), 60)
        model.read(tokens[:num_read])
        expected = model.guess()
        model.truncate(0)
        monkeypatch.setattr(Context, "decode", noted)
        model.read(tokens[:num_read])
        assert seen == passes
        assert model.guess() == expected


def test_a_drafter_that_fails_is_dropped_within_the_answer(
    open_model: OpenModel, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with opened(open_model, SMALL, Form(write_model(SMALL))) as (verifier, guesser):
        prompt = corpus_tokens(open_model(SMALL), 40)
        plain = answer(verifier, None, prompt, WARM, 48)
        guesser.costs = GuessCosts(0.01)
        context = guesser._caches[0].model.context  # type: ignore[attr-defined]
        decode, calls = context.decode, itertools.count()

        def failing(*args: object, **options: object) -> None:
            if next(calls) > 6:
                raise NativeLibraryError("llama.cpp cannot compute", "")
            decode(*args, **options)

        monkeypatch.setattr(context, "decode", failing)
        drafted = answer(verifier, GuardedDrafter(guesser, lines.append), prompt, WARM, 48)
    check_same(drafted, plain)
    assert len(lines) == 1
    assert "cannot compute" in lines[0]


def test_stopping_the_target_stops_the_drafter(
    open_model: OpenModel, write_model: WriteModel
) -> None:
    with opened(open_model, SMALL, Form(write_model(SMALL))) as (verifier, guesser):
        session = guesser.open(EncodedPrompt((5,), "one two three " * 10))
        verifier.abort()
        with pytest.raises(Cancelled):
            next(session.propose())
        verifier.resume()
        assert next(session.propose(), None) is not None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (dataclasses.replace(SMALL, architecture="mamba"), "cannot take back"),
        (dataclasses.replace(SMALL, architecture="lfm2"), "cannot take back"),
        (dataclasses.replace(SMALL, num_layers=4), "or larger"),
        (SMALL, "as large as"),
    ],
)
def test_what_cannot_serve_is_refused(
    open_model: OpenModel, write_model: WriteModel, spec: TinySpec, words: str
) -> None:
    with (
        pytest.raises(UsageError, match=words),
        opened(open_model, SMALL, Form(write_model(spec)), of_any_size=False),
    ):
        pass


def test_a_file_that_was_not_trimmed_is_no_trimmed_drafter(
    open_model: OpenModel, write_model: WriteModel
) -> None:
    path = write_model(SMALL)
    with (
        pytest.raises(UsageError, match="not a trimmed model"),
        opened(open_model, SMALL, Form(path, path)),
    ):
        pass
