"""Sampler chains over real logits: each does what its name says, draw by draw."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from rigs import EXACT, SMALL, OpenModel, corpus_tokens, open_sampler, prefill, score

from edgespec.errors import GrammarError, UsageError
from edgespec.llama.context import Context
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.types import Constraint, SamplingParams

GREEDY = SamplingParams()
WARM = SamplingParams(temperature=1.0)
NUM_DRAWS = 2000


def gbnf(text: str) -> Constraint:
    return Constraint("gbnf", text)


@pytest.fixture(name="target")
def fixture_target(open_model: OpenModel) -> Iterator[LlamaTarget]:
    """A target after a prompt, so that row 0 has logits to draw from, again and again."""
    model = open_model(SMALL)
    with Context(model, dataclasses.replace(EXACT, num_context=256)) as context:
        target = LlamaTarget(context, 2)
        prefill(target, corpus_tokens(model, 40))
        yield target


def drawn(target: LlamaTarget, params: SamplingParams, count: int) -> list[int]:
    with open_sampler(params, target.context.model) as sampler:
        return [sampler.sample(target, 0) for _ in range(count)]


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    shares: np.ndarray = weights / weights.sum()
    return shares


def check_frequencies(tokens: list[int], probs: np.ndarray) -> None:
    """Every token's frequency is within five standard deviations of its probability."""
    counts = np.bincount(tokens, minlength=len(probs))
    expected = probs * len(tokens)
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 2).all()


def generated(target: LlamaTarget, params: SamplingParams, count: int, start: int = 40) -> str:
    """Plain decoding up to an end token, as text."""
    vocab = target.context.model.vocab
    prompt = corpus_tokens(target.context.model, start)
    target.truncate(0, 0)
    prefill(target, prompt)
    tokens: list[int] = []
    with open_sampler(params, target.context.model) as sampler:
        sampler.begin(prompt)
        while len(tokens) < count:
            tokens.append(sampler.sample(target, 0))
            if vocab.is_end(tokens[-1]):
                break
            score(target, tokens[-1:])
    return vocab.detokenize(tokens).decode("utf-8", "replace")


def test_greedy_takes_the_largest_logit(target: LlamaTarget) -> None:
    best = int(target.logits(0).argmax())
    assert drawn(target, GREEDY, 3) == [best] * 3
    assert drawn(target, dataclasses.replace(WARM, top_k=1), 3) == [best] * 3
    assert drawn(target, dataclasses.replace(WARM, temperature=0.01), 3) == [best] * 3


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_draws_are_as_frequent_as_probable(target: LlamaTarget, temperature: float) -> None:
    tokens = drawn(target, SamplingParams(temperature=temperature, seed=3), NUM_DRAWS)
    check_frequencies(tokens, softmax(target.logits(0) / temperature))


def test_the_seed_decides_the_draws(target: LlamaTarget) -> None:
    first = drawn(target, dataclasses.replace(WARM, seed=11), 50)
    assert drawn(target, dataclasses.replace(WARM, seed=11), 50) == first
    assert drawn(target, dataclasses.replace(WARM, seed=12), 50) != first


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p"])
def test_narrowing_leaves_the_likely_tokens(target: LlamaTarget, name: str) -> None:
    probs = softmax(target.logits(0))
    order = np.argsort(probs)[::-1]
    reached = np.cumsum(probs[order])
    surprise = np.abs(-np.log(probs) - (-(probs * np.log(probs)).sum()))
    typical = np.argsort(surprise)
    kept, value = {
        "top_k": (order[:5], 5),
        "top_p": (order[: int(np.searchsorted(reached, 0.8)) + 1], 0.8),
        "min_p": (order[probs[order] >= 0.1 * probs.max()], 0.1),
        "typical_p": (typical[: int(np.searchsorted(np.cumsum(probs[typical]), 0.6)) + 1], 0.6),
    }[name]
    assert 1 < len(kept) < 300
    params = dataclasses.replace(WARM, **{name: value})  # type: ignore[arg-type]
    tokens = drawn(target, params, NUM_DRAWS)
    assert set(tokens) <= set(kept.tolist())
    narrowed = np.zeros_like(probs)
    narrowed[kept] = probs[kept] / probs[kept].sum()
    check_frequencies(tokens, narrowed)


def test_bias_forces_and_forbids(target: LlamaTarget) -> None:
    best = int(target.logits(0).argmax())
    forced = dataclasses.replace(GREEDY, logit_bias=((77, 1000.0),))
    assert drawn(target, forced, 2) == [77, 77]
    second = int(np.argsort(target.logits(0))[-2])
    forbidden = dataclasses.replace(GREEDY, logit_bias=((best, -1000.0),))
    assert drawn(target, forbidden, 2) == [second, second]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(repeat_penalty=50.0),
        SamplingParams(presence_penalty=100.0),
        SamplingParams(frequency_penalty=100.0),
    ],
    ids=["repeat", "presence", "frequency"],
)
def test_penalties_keep_tokens_from_coming_again(
    target: LlamaTarget, params: SamplingParams
) -> None:
    assert max(Counter(drawn(target, params, 20)).values()) == 1
    assert max(Counter(drawn(target, GREEDY, 20)).values()) == 20


def test_penalties_look_back_into_the_prompt(target: LlamaTarget) -> None:
    best = int(target.logits(0).argmax())
    for prompt, kept in (([best], False), ([best, *[3] * 70], True)):
        with SamplerChain(
            SamplingParams(presence_penalty=100.0), target.context.model.vocab
        ) as sampler:
            sampler.begin(prompt)
            assert (sampler.sample(target, 0) == best) == kept, "64 tokens are looked at"


def test_dry_keeps_long_repetitions_from_growing(target: LlamaTarget) -> None:
    """It never meets the breakers of its own here: no quotes, colons, stars or new lines."""
    best = int(target.logits(0).argmax())
    params = SamplingParams(dry_multiplier=50.0, dry_allowed_length=2)
    prompt = [300, 301, 302, best, 310, 300, 301, 302]
    with SamplerChain(params, target.context.model.vocab) as sampler:
        sampler.begin(prompt)
        assert sampler.sample(target, 0) != best
    with SamplerChain(params, target.context.model.vocab) as sampler:
        sampler.begin([300, 301, best, 310, 311, 302])
        assert sampler.sample(target, 0) == best


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_is_kept_to(target: LlamaTarget, temperature: float) -> None:
    grammar = gbnf('root ::= ("ab" | "cde"){3} [0-9]')
    params = SamplingParams(temperature=temperature, constraint=grammar)
    for seed in range(5):
        text = generated(target, dataclasses.replace(params, seed=seed), 60)
        assert re.fullmatch(r"(ab|cde){3}[0-9]", text)


def test_a_grammar_that_allows_everything_changes_nothing(target: LlamaTarget) -> None:
    """The draw under a constraint takes another way through the library than a free one."""
    for params in (GREEDY, SamplingParams(repeat_penalty=1.2, logit_bias=((77, 2.0),))):
        free = generated(target, params, 60)
        assert len(free) > 40
        allowed = dataclasses.replace(params, constraint=gbnf("root ::= [^\\x00]*"))
        assert generated(target, allowed, 60) == free


def test_legal_tokens_keep_their_proportions(target: LlamaTarget) -> None:
    vocab = target.context.model.vocab
    probs = softmax(target.logits(0) / 3)
    pieces = [vocab.piece(token) for token in range(512)]
    legal = np.array([len(piece) == 1 and piece.isalpha() for piece in pieces])
    assert 0.02 < probs[legal].sum() < 0.98
    masked = np.where(legal, probs, 0.0) / probs[legal].sum()
    tokens = []
    for seed in range(500):
        letter = gbnf("root ::= [a-zA-Z]")
        params = SamplingParams(temperature=3.0, seed=seed, constraint=letter)
        tokens += drawn(target, params, 1)
    check_frequencies(tokens, masked)
    assert len(set(tokens)) > 10


SCHEMAS = [
    {"type": "boolean"},
    {"enum": ["red", "green", 3, None]},
    {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"const": "x"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_json_schema_gives_json(target: LlamaTarget, schema: dict[str, object]) -> None:
    for seed in range(3):
        constraint = Constraint("json_schema", json.dumps(schema))
        params = dataclasses.replace(WARM, seed=seed, constraint=constraint)
        value = json.loads(generated(target, params, 150))
        if "enum" in schema:
            assert value in ["red", "green", 3, None]
        else:
            kind = {"boolean": bool, "array": list, "object": dict}[str(schema["type"])]
            assert isinstance(value, kind)
        if isinstance(value, dict):
            assert value.keys() == {"a", "b"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_that_no_token_continues_is_an_error(
    target: LlamaTarget, temperature: float
) -> None:
    nothing = Constraint("lark", "start: /[xy]{4}/ NOTHING\nNOTHING: /a/ & /b/")
    params = SamplingParams(temperature=temperature, constraint=nothing)
    with pytest.raises(GrammarError, match="no token continues the grammar"):
        generated(target, params, 5)


def test_nonsense_is_refused_before_anything_is_built(target: LlamaTarget) -> None:
    with pytest.raises(UsageError, match="temperature"):
        SamplerChain(SamplingParams(temperature=-1.0), target.context.model.vocab)


def test_only_real_logits_are_drawn_from(target: LlamaTarget) -> None:
    with (
        SamplerChain(GREEDY, target.context.model.vocab) as sampler,
        pytest.raises(TypeError, match="LlamaTarget"),
    ):
        sampler.sample(object(), 0)  # type: ignore[arg-type]


def test_a_chain_may_be_closed_twice(target: LlamaTarget) -> None:
    params = dataclasses.replace(WARM, constraint=gbnf('root ::= "a"'))
    sampler = open_sampler(params, target.context.model)
    sampler.close()
    sampler.close()
