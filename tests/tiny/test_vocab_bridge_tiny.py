"""The bridge between generated vocabularies, tokenized by llama.cpp itself."""

from __future__ import annotations

import dataclasses
from itertools import product

import bridge_checks as checks
import pytest
from bridge_checks import ALWAYS, DATA, NEVER
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rigs import SMALL, OpenModel
from tiny_models import TinySpec

from edgespec.vocab.tokenizer import ByteTokenizer

SPECS: dict[str, TinySpec] = {
    "bpe": SMALL,
    "bpe-large": dataclasses.replace(SMALL, num_vocab=768),
    "spm": dataclasses.replace(SMALL, vocabulary="spm", space_prefix=True),
    "spm-bare": dataclasses.replace(SMALL, vocabulary="spm", space_prefix=False, num_vocab=640),
}
PAIRS = [pair for pair in product(SPECS, repeat=2) if pair[0] != pair[1]]
WORDS = st.lists(
    st.sampled_from(["The", " river", " and", " old", "\n", ", ", "Kinder", " 2024", "er", "."])
)
TEXT = st.one_of(DATA, WORDS.map("".join).map(str.encode))
TOKENS = st.lists(st.integers(0, 511), max_size=12)

Tokenizers = dict[str, ByteTokenizer]
each_vocabulary = pytest.mark.parametrize("name", SPECS)
each_pair = pytest.mark.parametrize(("target", "drafter"), PAIRS)


@pytest.fixture(name="tokenizers", scope="module")
def fixture_tokenizers(open_model: OpenModel) -> Tokenizers:
    return {name: ByteTokenizer(open_model(spec).vocab) for name, spec in SPECS.items()}


@each_vocabulary
def test_all_pieces_at_once_are_the_pieces_one_by_one(tokenizers: Tokenizers, name: str) -> None:
    vocab = tokenizers[name].vocab
    assert vocab.pieces() == [vocab.piece(token) for token in range(vocab.num_tokens)]


def test_fingerprints_tell_vocabularies_not_models(
    tokenizers: Tokenizers, open_model: OpenModel
) -> None:
    prints = {name: tokenizer.fingerprint for name, tokenizer in tokenizers.items()}
    assert len(set(prints.values())) == len(SPECS)
    other = dataclasses.replace(SMALL, architecture="qwen2", seed=7, quantization="F16")
    assert ByteTokenizer(open_model(other).vocab).fingerprint == prints["bpe"]


@each_vocabulary
@given(data=TEXT)
@example(data=" ▁ the ▁▁".encode())
@example(data=b"\xe9\xbe\xff\x8d\xf0\x9f\x99")
def test_any_bytes_come_back(tokenizers: Tokenizers, name: str, data: bytes) -> None:
    checks.check_any_bytes_come_back(tokenizers[name], data)
    # A generated vocabulary has a token for every byte.
    assert checks.can_spell(tokenizers[name], data) == data


@each_vocabulary
@given(text=st.text())
def test_text_is_tokenized_as_llama_cpp_does(tokenizers: Tokenizers, name: str, text: str) -> None:
    text = text.replace("▁", "")
    tokenizer = tokenizers[name]
    if name == "spm":
        # Without the letter before it, the text would get a space.
        lead = len(tokenizer.vocab.tokenize("龍".encode()))
        expected = tokenizer.vocab.tokenize(("龍" + text).encode())[lead:]
    else:
        expected = tokenizer.vocab.tokenize(text.encode())
    assert tokenizer.encode(text.encode()).tokens == expected


@each_vocabulary
@given(data=TEXT, following=TEXT)
def test_a_safe_cut_stays_one(
    tokenizers: Tokenizers, name: str, data: bytes, following: bytes
) -> None:
    checks.check_cut_is_safe(tokenizers[name], data, following)


@each_pair
@settings(max_examples=50)
@given(steps=st.lists(TOKENS, max_size=6))
def test_tokens_in_any_order_are_read_as_a_whole(
    tokenizers: Tokenizers, target: str, drafter: str, steps: list[list[int]]
) -> None:
    steps = [checks.without_ends(tokenizers[target], tokens) for tokens in steps]
    checks.check_reader_equals_scratch(tokenizers[target], tokenizers[drafter], steps)


@each_pair
@settings(max_examples=50)
@given(data=TEXT, following=TEXT, least=st.sampled_from((NEVER, ALWAYS)))
def test_drafts_are_what_the_target_says(
    tokenizers: Tokenizers, target: str, drafter: str, data: bytes, following: bytes, least: float
) -> None:
    pair = tokenizers[target], tokenizers[drafter]
    tokens = tokenizers[drafter].encode(data).tokens
    checks.check_settled_is_what_the_target_says(*pair, tokens, following)
    checks.check_proposals_are_what_the_target_says(*pair, tokens)
    checks.check_acceptance_counts_each_drafter_token_once(*pair, tokens, least)
    checks.check_start_forgets(*pair, tokens[::-1], tokens)


@each_pair
@settings(max_examples=50)
@given(data=TEXT)
def test_stretches_are_aligned(
    tokenizers: Tokenizers, target: str, drafter: str, data: bytes
) -> None:
    tokens = tokenizers[target].encode(data).tokens
    checks.check_aligned_is_the_text(tokenizers[target], tokenizers[drafter], tokens)
    learned = checks.learned(tokenizers[target], tokenizers[drafter], tokens)
    assert len(learned) <= len(tokens) + len(tokenizers[drafter].encode(data).tokens)
