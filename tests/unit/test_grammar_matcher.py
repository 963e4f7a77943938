"""What a constraint allows, and that looking ahead changes none of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from grammar_support import CONSTRAINTS, PERSON, compiler, draw
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.drafters.grammar import GrammarDrafter
from edgespec.errors import GrammarError
from edgespec.types import Constraint, EncodedPrompt

toys = st.sampled_from(sorted(TOYS))
kinds = st.sampled_from(sorted(CONSTRAINTS))
seeds = st.integers(0, 10_000)


@given(toys, kinds, seeds, seeds)
def test_looking_ahead_changes_nothing(toy: str, kind: str, seed: int, other: int) -> None:
    """Step by step: `takes` and `forced` agree with `allowed`, whatever was looked at before."""
    vocab = TOYS[toy]()
    plain, busy, strayed = (compiler(toy).compile(CONSTRAINTS[kind]) for _ in range(3))
    tokens = draw(plain, seed, vocab.end_tokens)
    elsewhere = [token for token in draw(strayed, other, vocab.end_tokens) if token > 3]
    fresh = compiler(toy).compile(CONSTRAINTS[kind])
    for place, token in enumerate(tokens):
        busy.takes(tokens[place : place + 3], tokens[-1])
        busy.forced(elsewhere)
        allowed = fresh.allowed()
        assert np.array_equal(busy.allowed(), allowed)
        going_on = [each for each in allowed.tolist() if each not in vocab.end_tokens]
        only = busy.forced()
        if only is not None:
            assert going_on == allowed.tolist() == [only]
        taken = [each for each in range(vocab.num_tokens) if busy.takes((), each)]
        assert taken == going_on
        fresh.accept(token)
        busy.accept(token)


@given(toys, kinds, seeds)
def test_what_is_forced_is_said(toy: str, kind: str, seed: int) -> None:
    vocab = TOYS[toy]()
    drawing, drafting = (compiler(toy).compile(CONSTRAINTS[kind]) for _ in range(2))
    tokens = draw(drawing, seed, vocab.end_tokens)
    session = GrammarDrafter().open(EncodedPrompt(()), (), drafting)
    for place, token in enumerate(tokens):
        guesses = [guess.token for guess in session.propose()]
        said = tokens[place : place + len(guesses)]  # what was drawn may be cut
        assert guesses[: len(said)] == said
        assert [guess.token for guess in session.propose(guesses[:2])] == guesses[2:]
        drafting.accept(token)


@pytest.mark.parametrize("toy", sorted(TOYS))
def test_an_answer_ends_when_its_grammar_does(toy: str) -> None:
    vocab = TOYS[toy]()
    matcher = compiler(toy).compile(Constraint("regex", "the"))
    tokens: list[int] = []
    while (token := matcher.forced()) is not None:
        tokens.append(token)
        matcher.accept(token)
    assert b"".join(map(vocab.piece, tokens)) == b"the"
    assert set(matcher.allowed().tolist()) == vocab.end_tokens
    assert not matcher.takes((), 0)
    matcher.accept(0)


@pytest.mark.parametrize("toy", sorted(TOYS))
def test_json_is_json(toy: str) -> None:
    vocab = TOYS[toy]()
    whole = 0
    for seed in range(30):
        matcher = compiler(toy).compile(Constraint("json_schema", json.dumps(PERSON)))
        tokens = draw(matcher, seed, vocab.end_tokens, most=200)
        if tokens[-1] in vocab.end_tokens:
            value = json.loads(b"".join(map(vocab.piece, tokens)))
            assert value["lower"] in ("token", "tokenizer", "über")
            assert list(value)[:2] == ["name", "lower"]
            whole += 1
    assert whole > 5


def test_control_tokens_are_named_in_lark() -> None:
    matcher = compiler("bpe").compile(Constraint("lark", 'start: "a" <|im_start|> "b"'))
    seen = []
    while (token := matcher.forced()) is not None:
        seen.append(token)
        matcher.accept(token)
    assert seen == [4 + ord("a"), 1, 4 + ord("b")]


def test_what_a_constraint_refuses_is_an_error() -> None:
    matcher = compiler("bpe").compile(Constraint("regex", "ab"))
    with pytest.raises(GrammarError, match="no token continues the grammar"):
        matcher.accept(4 + ord("b"))
    with pytest.raises(GrammarError, match="no token continues the grammar"):
        matcher.allowed()
