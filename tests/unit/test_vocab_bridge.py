"""The bridge between every ordered pair of toy vocabularies, over any text and any bytes."""

from __future__ import annotations

from itertools import product

import bridge_checks as checks
import pytest
from bridge_checks import ALWAYS, DATA, NEVER
from hypothesis import example, given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.vocab.tokenizer import ByteTokenizer

TOKENIZERS = {name: ByteTokenizer(make()) for name, make in TOYS.items()}
PAIRS = [pair for pair in product(TOKENIZERS, repeat=2) if pair[0] != pair[1]]

each_vocabulary = pytest.mark.parametrize("name", TOKENIZERS)
each_pair = pytest.mark.parametrize(("target", "drafter"), PAIRS)
TOKENS = st.lists(st.integers(4, 280), max_size=12)


@each_vocabulary
@given(data=DATA)
@example(data=" ▁ the ▁▁".encode())
@example(data=b"\xe9\xbe\xff\x8d\xf0\x9f\x99")
def test_any_bytes_come_back(name: str, data: bytes) -> None:
    checks.check_any_bytes_come_back(TOKENIZERS[name], data)


@each_vocabulary
@given(data=DATA, following=DATA)
def test_a_safe_cut_stays_one(name: str, data: bytes, following: bytes) -> None:
    checks.check_cut_is_safe(TOKENIZERS[name], data, following)


@each_pair
@given(steps=st.lists(TOKENS, max_size=6))
def test_tokens_in_any_order_are_read_as_a_whole(
    target: str, drafter: str, steps: list[list[int]]
) -> None:
    checks.check_reader_equals_scratch(TOKENIZERS[target], TOKENIZERS[drafter], steps)


@each_pair
@given(data=DATA, sizes=st.lists(st.integers(1, 4), min_size=1))
def test_text_in_any_steps_is_read_as_a_whole(
    target: str, drafter: str, data: bytes, sizes: list[int]
) -> None:
    tokens = TOKENIZERS[target].encode(data).tokens
    steps: list[list[int]] = []
    while tokens:
        size = sizes[len(steps) % len(sizes)]
        steps.append(tokens[:size])
        tokens = tokens[size:]
    checks.check_reader_equals_scratch(TOKENIZERS[target], TOKENIZERS[drafter], steps)


@each_pair
@given(data=DATA)
def test_stretches_are_aligned(target: str, drafter: str, data: bytes) -> None:
    tokens = TOKENIZERS[target].encode(data).tokens
    checks.check_aligned_is_the_text(TOKENIZERS[target], TOKENIZERS[drafter], tokens)


@each_pair
@given(data=DATA, following=DATA)
def test_settled_tokens_are_what_the_target_says(
    target: str, drafter: str, data: bytes, following: bytes
) -> None:
    tokens = TOKENIZERS[drafter].encode(data).tokens
    checks.check_settled_is_what_the_target_says(
        TOKENIZERS[target], TOKENIZERS[drafter], tokens, following
    )


@each_pair
@given(tokens=TOKENS)
def test_believed_tokens_are_what_the_target_says(
    target: str, drafter: str, tokens: list[int]
) -> None:
    checks.check_proposals_are_what_the_target_says(TOKENIZERS[target], TOKENIZERS[drafter], tokens)


@each_pair
@given(tokens=TOKENS, least=st.sampled_from((NEVER, ALWAYS)))
def test_each_drafter_token_counts_once(
    target: str, drafter: str, tokens: list[int], least: float
) -> None:
    checks.check_acceptance_counts_each_drafter_token_once(
        TOKENIZERS[target], TOKENIZERS[drafter], tokens, least
    )


@each_pair
@given(first=TOKENS, second=TOKENS)
def test_a_new_draft_knows_nothing_of_the_last(
    target: str, drafter: str, first: list[int], second: list[int]
) -> None:
    checks.check_start_forgets(TOKENIZERS[target], TOKENIZERS[drafter], first, second)
