"""The first promise, in llama.cpp itself: with and without speculation the bytes are the same.

The models are tiny and random, which makes their texts hard to guess and easy to upset: one bit of
difference in a logit shows at the next near-tie. How many rows a pass may have without such a
difference is measured here as it is on a user's machine.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import (
    EXACT,
    MOST_ROWS,
    SMALL,
    Answered,
    OpenModel,
    Replay,
    answer,
    corpus_tokens,
    eager_completer,
    eager_engine,
    invariant_rows,
    next_answer,
)
from tiny_models import Architecture, Quantization, VocabularyKind

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.grammar import GrammarDrafter
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.llama.target import LlamaTarget
from edgespec.protocols import Drafter
from edgespec.types import Completion, CompletionRequest, Constraint, SamplingParams

ATTENTION: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gemma3")
RECURRENT: tuple[Architecture, ...] = ("mamba", "lfm2")
KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")
WARM = SamplingParams(temperature=0.8, seed=7)
WORDS = Constraint("gbnf", 'root ::= ("yes" | "no" | "maybe" | "perhaps") (" " root)?')
SCHEMA = Constraint(
    "json_schema",
    json.dumps(
        {
            "type": "object",
            "properties": {"sure": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
            "required": ["sure", "size"],
            "additionalProperties": False,
        }
    ),
)
SENTENCE = Constraint("regex", r"(The|A) (river|old mill) is [a-z ]{5,30}(, because .{8,40})?\.")
NESTED = Constraint(
    "lark", 'start: "[" (start | WORD) ("," (start | WORD)){1,3} "]"\nWORD: /[a-z]+/'
)
SAMPLINGS = {
    "greedy": SamplingParams(),
    "warm": WARM,
    "narrowed": dataclasses.replace(WARM, top_k=40, top_p=0.9, min_p=0.02, typical_p=0.95),
    "greedy with penalties": SamplingParams(
        repeat_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.4, penalty_last_n=32
    ),
    "warm with penalties": dataclasses.replace(WARM, repeat_penalty=1.3, presence_penalty=0.5),
    "greedy with dry": SamplingParams(dry_multiplier=0.8, dry_allowed_length=2),
    "warm with dry": dataclasses.replace(WARM, dry_multiplier=0.8, dry_allowed_length=1),
    "bias": dataclasses.replace(WARM, logit_bias=((60, 3.0), (61, -100.0), (300, 2.0))),
    "greedy with grammar": SamplingParams(constraint=WORDS),
    "warm with grammar": dataclasses.replace(WARM, constraint=WORDS),
    "greedy schema": SamplingParams(constraint=SCHEMA),
    "schema": dataclasses.replace(WARM, constraint=SCHEMA),
    "greedy regex": SamplingParams(constraint=SENTENCE),
    "regex": dataclasses.replace(WARM, constraint=SENTENCE),
    "greedy lark": SamplingParams(constraint=NESTED),
    "lark": dataclasses.replace(WARM, constraint=NESTED),
    "everything": dataclasses.replace(
        WARM,
        top_k=100,
        min_p=0.01,
        repeat_penalty=1.1,
        dry_multiplier=0.5,
        logit_bias=((70, 1.0),),
        constraint=WORDS,
    ),
}


@contextmanager
def opened(model: Model, options: ContextOptions = EXACT) -> Iterator[LlamaTarget]:
    """A target with as many rows as are exact on this machine, which must be two at least.

    One that cannot roll back may claim as many as it likes: it is given no drafts.
    """
    lengths = (30, 500, 600) if options.num_context > 700 else (30,)
    with Context(model, options) as context:
        rows = invariant_rows(context, lengths) if model.can_roll_back else MOST_ROWS
        assert rows >= 2
        yield LlamaTarget(context, rows)


def check_same(one: Answered, other: Answered) -> None:
    assert one.tokens == other.tokens
    assert all(map(np.array_equal, one.logits, other.logits))


def check_all_drafters(
    target: LlamaTarget, prompt: list[int], sampling: SamplingParams, num_tokens: int
) -> None:
    """Plain, by what is forced, by look-up and by a replay that errs now and then: all the same."""
    plain = answer(target, None, prompt, sampling, num_tokens, ends=True)
    replay = Replay(plain.tokens, target.context.model.vocab.num_tokens)
    for drafter in (GrammarDrafter(), ContextDrafter(), replay):
        drafted = answer(target, drafter, prompt, sampling, num_tokens, ends=True)
        check_same(drafted, plain)
        if drafter.name == GrammarDrafter.name:
            assert drafted.proposed == drafted.accepted
    if len(plain.tokens) > 4:
        assert drafted.accepted > 0
        assert drafted.proposed > drafted.accepted or sampling.constraint is not None


@pytest.mark.parametrize("repetitive", [False, True], ids=["varied", "repetitive"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ATTENTION)
def test_every_kind_of_model(
    open_model: OpenModel, architecture: Architecture, kind: VocabularyKind, repetitive: bool
) -> None:
    spec = dataclasses.replace(
        SMALL, architecture=architecture, vocabulary=kind, repetitive=repetitive
    )
    model = open_model(spec)
    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        prompt = corpus_tokens(model, 40)
        for sampling in (SamplingParams(), WARM):
            check_all_drafters(target, prompt, sampling, 64)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize(("architecture", "kind"), [("llama", "bpe"), ("gemma3", "spm")])
def test_every_sampler(
    open_model: OpenModel,
    architecture: Architecture,
    kind: VocabularyKind,
    sampling: SamplingParams,
) -> None:
    model = open_model(dataclasses.replace(SMALL, architecture=architecture, vocabulary=kind))
    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        check_all_drafters(target, corpus_tokens(model, 50), sampling, 80)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("num_prompt", [500, 700])
def test_contexts_on_both_sides_of_512_tokens(
    open_model: OpenModel, architecture: Architecture, num_prompt: int
) -> None:
    """From 512 tokens on, a pass over one row may share its work out differently to threads.

    Two threads wait for each other all the time, so on a busy machine these passes are slow.
    """
    spec = dataclasses.replace(
        SMALL, architecture=architecture, sliding_window=128, repetitive=True
    )
    model = open_model(spec)
    with opened(model, dataclasses.replace(EXACT, num_threads=2)) as target:
        prompt = corpus_tokens(model, num_prompt)
        check_all_drafters(target, prompt, WARM, 24)


@pytest.mark.parametrize("quantization", ["Q4_0", "Q4_K"])
def test_other_number_formats(open_model: OpenModel, quantization: Quantization) -> None:
    spec = dataclasses.replace(SMALL, quantization=quantization, width=256, ffn_width=256)
    model = open_model(spec)
    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        check_all_drafters(target, corpus_tokens(model, 40), WARM, 48)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", [*ATTENTION, *RECURRENT])
def test_a_conversation_of_three_turns(
    open_model: OpenModel, architecture: Architecture, kind: VocabularyKind
) -> None:
    """Turn by turn the cache is reused and, in the third, partly thrown away."""
    model = open_model(dataclasses.replace(SMALL, architecture=architecture, vocabulary=kind))
    with (
        opened(model, dataclasses.replace(EXACT, num_context=256)) as target,
        Context(model, dataclasses.replace(EXACT, num_context=256)) as other,
    ):
        drafted = eager_engine(target, ContextDrafter())
        plain = eager_engine(LlamaTarget(other, 1))
        text = corpus_tokens(model, 30)
        for num_taken_back, num_added in ((0, 0), (0, 7), (20, 5)):
            text = text[: len(text) - num_taken_back] + corpus_tokens(model, num_added)
            one = next_answer(drafted, text, WARM, 32)
            check_same(one, next_answer(plain, text, WARM, 32))
            text = text + one.tokens
        assert target.num_cached(0) == len(text) - 1


@pytest.mark.parametrize("architecture", RECURRENT)
def test_models_that_cannot_forget_decode_plainly(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(dataclasses.replace(SMALL, architecture=architecture))
    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        prompt = corpus_tokens(model, 40)
        plain = answer(target, None, prompt, WARM, 48)
        drafted = answer(target, Replay(plain.tokens, 512), prompt, WARM, 48)
        check_same(drafted, plain)
        assert drafted.proposed == 0


def complete(
    target: LlamaTarget, drafter: Drafter | None, request: CompletionRequest
) -> tuple[Completion, str]:
    """A completion and the text that was streamed."""
    target.truncate(0, 0)
    drafters = [] if drafter is None else [drafter]
    chunks = list(eager_completer(target, *drafters).answer(request))
    completion = chunks[-1].completion
    assert completion is not None
    return completion, "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_text_with_stop_strings(open_model: OpenModel, kind: VocabularyKind) -> None:
    model = open_model(dataclasses.replace(SMALL, vocabulary=kind))
    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        request = CompletionRequest("The river runs past the old mill", WARM, max_tokens=60)
        whole, streamed = complete(target, None, request)
        assert streamed == whole.text
        assert len(whole.text) > 20
        for start in (5, 11, len(whole.text) - 3):
            stop = whole.text[start : start + 3]
            stopping = dataclasses.replace(request, stop=("never said", stop))
            plain, _ = complete(target, None, stopping)
            assert plain.text == whole.text[: whole.text.index(stop)]
            assert plain.finish_reason == "stop"
            for drafter in (ContextDrafter(), Replay(whole.token_ids, 512)):
                drafted, streamed = complete(target, drafter, stopping)
                assert drafted.text == streamed == plain.text
                assert drafted.token_ids == plain.token_ids
                assert drafted.finish_reason == "stop"


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_kept_to(open_model: OpenModel, kind: VocabularyKind) -> None:
    model = open_model(dataclasses.replace(SMALL, vocabulary=kind))
    with opened(model, dataclasses.replace(EXACT, num_context=512)) as target:
        request = CompletionRequest("Is it so?", dataclasses.replace(WARM, constraint=SCHEMA))
        plain, _ = complete(target, None, request)
        drafted, _ = complete(target, Replay(plain.token_ids, 512), request)
        assert drafted.text == plain.text
        assert drafted.stats.accepted > 0
        value = json.loads(plain.text)
        assert isinstance(value["sure"], bool)
        assert value["size"] in ("small", "large")


words = st.lists(st.sampled_from(["old", "mill", "é", "river", " ", ".", "yes"]), min_size=1)
texts = words.map("".join)
schemas = st.recursive(
    st.sampled_from([{"type": "boolean"}, {"type": "integer"}, {"type": "string", "maxLength": 9}])
    | st.lists(texts, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    lambda inner: (
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 3})
        | st.dictionaries(texts, inner, min_size=1, max_size=3).map(
            lambda fields: {"type": "object", "properties": fields, "required": list(fields)}
        )
    ),
    max_leaves=4,
)
regexes = st.recursive(
    texts.map(re.escape) | st.sampled_from(["[a-z]{1,5}", ".", "[^a]{2}"]),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})")
        | inner.map(lambda part: f"({part}){{1,3}}")
    ),
    max_leaves=5,
)
constraints = st.one_of(
    schemas.map(lambda schema: Constraint("json_schema", json.dumps(schema))),
    regexes.map(lambda regex: Constraint("regex", regex)),
    regexes.map(lambda regex: Constraint("lark", f'start: /{regex}/ ("," start)?')),
)


@pytest.mark.parametrize("kind", KINDS)
def test_any_constraint(open_model: OpenModel, kind: VocabularyKind) -> None:
    model = open_model(dataclasses.replace(SMALL, vocabulary=kind))
    prompt = corpus_tokens(model, 20)

    @settings(max_examples=40, deadline=None)
    @given(constraints, st.sampled_from([0.0, 0.8]), st.integers(0, 99))
    def check(constraint: Constraint, temperature: float, seed: int) -> None:
        sampling = SamplingParams(temperature=temperature, seed=seed, constraint=constraint)
        check_all_drafters(target, prompt, sampling, 24)

    with opened(model, dataclasses.replace(EXACT, num_context=256)) as target:
        check()


def test_full_precision_weights_have_an_exact_number_of_rows_too(open_model: OpenModel) -> None:
    """Kernels for F32 may treat two rows unlike one; then one row is what is measured and used."""
    model = open_model(dataclasses.replace(SMALL, quantization="F32"))
    with Context(model, dataclasses.replace(EXACT, num_context=256)) as context:
        rows = invariant_rows(context, (30,))
        target = LlamaTarget(context, rows)
        prompt = corpus_tokens(model, 40)
        plain = answer(target, None, prompt, WARM, 48)
        drafted = answer(target, Replay(plain.tokens, 512), prompt, WARM, 48)
        check_same(drafted, plain)
        assert (drafted.proposed > 0) == (rows > 1)
