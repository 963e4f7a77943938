"""What a target held likely, in a drafter's tokens: told where both begin a token, nowhere else."""

from __future__ import annotations

import numpy as np
from toy_vocabularies import TOYS

from edgespec.learning.corpus import NO_TOKEN, NUM_TOP, Said, Top
from edgespec.learning.soft import Soft, Softener
from edgespec.vocab.tokenizer import ByteTokenizer

NAMES = sorted(TOYS)
TARGET, DRAFTER = (ByteTokenizer(TOYS[name]()) for name in NAMES[:2])
END = min(TARGET.specials.ends)


def answer(tokens: list[int], others: dict[int, dict[int, float]]) -> Said:
    """An answer of `tokens`; `others` has, by place, other tokens and their probabilities."""
    top = np.full((len(tokens), NUM_TOP), NO_TOKEN, np.int32)
    logprobs = np.full((len(tokens), NUM_TOP), -np.inf, np.float16)
    for place, token in enumerate(tokens):
        likely = {token: 1 - sum(others.get(place, {}).values()), **others.get(place, {})}
        top[place, : len(likely)] = list(likely)
        logprobs[place, : len(likely)] = np.log(list(likely.values()))
    said = np.array(tokens, np.int32)
    return Said("0", 0, "chat", 0.0, (), "", said, Top(top, logprobs), None)


def told(soft: Soft, place: int) -> dict[int, float]:
    pairs = zip(soft.tokens[place].tolist(), soft.probabilities[place].tolist(), strict=True)
    return {token: round(chance, 2) for token, chance in pairs if chance}


def first(vocabulary: ByteTokenizer, text: bytes) -> int:
    return vocabulary.encode(text).tokens[0]


def test_where_both_begin_a_token_the_drafter_is_told_what_was_likely() -> None:
    tokens = TARGET.encode(b"the token").tokens
    (other,) = TARGET.encode(b"x").tokens
    own = DRAFTER.encode(b"the token").tokens
    soft = Softener(TARGET, DRAFTER).soften(answer(tokens, {0: {other: 0.25}}), own)
    assert told(soft, 0) == {own[0]: 0.75, first(DRAFTER, b"x"): 0.25}


def test_inside_of_the_targets_tokens_nothing_is_told() -> None:
    tokens = TARGET.encode(b"the token version").tokens
    own = [first(DRAFTER, bytes([byte])) for byte in b"the token version"]
    soft = Softener(TARGET, DRAFTER).soften(answer(tokens, {}), own)
    starts, place = set(), 0
    for token in tokens:
        starts.add(place)
        place += len(TARGET.piece(token))
    assert len(starts) < len(own), "the target's tokens are longer than the drafter's here"
    for number, token in enumerate(own):
        assert told(soft, number) == ({token: 1.0} if number in starts else {})


def test_the_end_of_an_answer_is_the_drafters_own() -> None:
    tokens = [*TARGET.encode(b"the").tokens, END]
    own_end = TARGET.specials.counterpart(END, DRAFTER.specials)
    assert own_end is not None
    own = [*DRAFTER.encode(b"the").tokens, own_end]
    soft = Softener(TARGET, DRAFTER).soften(answer(tokens, {0: {END: 0.25}}), own)
    assert told(soft, len(own) - 1) == {own_end: 1.0}
    assert told(soft, 0) == {own[0]: 0.75, own_end: 0.25}


def test_between_equal_vocabularies_every_token_is_told_as_it_is() -> None:
    tokens = [*TARGET.encode(b"the token").tokens, END]
    likely = {place: {7: 0.25} for place in range(len(tokens))}
    soft = Softener(TARGET, TARGET).soften(answer(tokens, likely), tokens)
    assert [told(soft, place) for place in range(len(tokens))] == [
        {token: 0.75, 7: 0.25} for token in tokens
    ]
