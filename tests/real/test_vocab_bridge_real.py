"""The bridge between the real vocabularies: the default pair, and every known model on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import permutations

import bridge_checks as checks
import pytest
from bridge_checks import ALWAYS, DATA, NEVER
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgespec.llama.model import Model, ModelOptions
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET, KNOWN_MODELS
from edgespec.models.store import ModelStore
from edgespec.paths import user_paths
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.tokenizer import ByteTokenizer

SENTENCES = (
    *("The quick brown fox isn't overwhelmed.", " Donaudampfschifffahrtsgesellschaft, über Öl"),
    *(
        "def parse(line: str) -> list[int]:\n    return [int(x) for x in line.split()]\n",
        "\t\t}\n\n",
    ),
    *("长江是亚洲最长的河流，全长约6300公里。", '{"id": 1024, "tags": ["a", null]}', "приве́т 👩‍🚀"),
)
TEXT = st.lists(st.sampled_from(SENTENCES), max_size=3).map("".join).map(str.encode)
WRITTEN = st.one_of(st.tuples(TEXT, DATA).map(b"".join), DATA)
SAID = st.lists(st.integers(0, 2**20), max_size=12)

Tokenizers = dict[str, ByteTokenizer]
Pair = tuple[ByteTokenizer, ByteTokenizer]
# An example takes a pair of its own, so there are more of them.
many_examples = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(name="tokenizers", scope="module")
def fixture_tokenizers(vocabularies: dict[str, Model]) -> Iterator[Tokenizers]:
    """One tokenizer for each different vocabulary, by the name of a model that has it."""
    on_disk = {model.name: model.path for model in ModelStore(user_paths()).list()}
    others = KNOWN_MODELS.keys() & on_disk.keys() - vocabularies.keys()
    with contextlib.ExitStack() as opened:
        models = dict(vocabularies)
        for name in sorted(others):
            options = ModelOptions(vocabulary_only=True)
            models[name] = opened.enter_context(Model(on_disk[name], options))
        different: Tokenizers = {}
        for name, model in models.items():
            tokenizer = ByteTokenizer(model.vocab)
            prints = {known.fingerprint for known in different.values()}
            if tokenizer.fingerprint not in prints:
                different[name] = tokenizer
        yield different


def draw_one(data: st.DataObject, tokenizers: Tokenizers) -> ByteTokenizer:
    return tokenizers[data.draw(st.sampled_from(list(tokenizers)), label="vocabulary")]


def draw_pair(data: st.DataObject, tokenizers: Tokenizers) -> Pair:
    names = list(permutations(tokenizers, 2))
    target, drafter = data.draw(st.sampled_from(names), label="target, drafter")
    return tokenizers[target], tokenizers[drafter]


def ids(tokenizer: ByteTokenizer, numbers: list[int]) -> list[int]:
    """Tokens of this vocabulary, none of which ends the answer."""
    return checks.without_ends(tokenizer, [n % tokenizer.vocab.num_tokens for n in numbers])


def test_the_default_pair_is_among_them(tokenizers: Tokenizers) -> None:
    assert {DEFAULT_TARGET, DEFAULT_DRAFTER} <= tokenizers.keys()


def test_all_pieces_at_once_are_the_pieces_one_by_one(tokenizers: Tokenizers) -> None:
    for tokenizer in tokenizers.values():
        vocab = tokenizer.vocab
        assert vocab.pieces() == [vocab.piece(token) for token in range(vocab.num_tokens)]


@many_examples
@given(data=st.data(), written=WRITTEN, text=TEXT)
def test_any_bytes_come_back(
    tokenizers: Tokenizers, data: st.DataObject, written: bytes, text: bytes
) -> None:
    tokenizer = draw_one(data, tokenizers)
    checks.check_any_bytes_come_back(tokenizer, written)
    # SmolLM2 has no token for some control characters.
    assert checks.can_spell(tokenizer, text) == text


@many_examples
@given(text=st.one_of(TEXT.map(bytes.decode), st.text()))
@example(text=" leading, and\ttabs\r\n   trailing  ")
def test_text_is_tokenized_as_llama_cpp_does(tokenizers: Tokenizers, text: str) -> None:
    written = text.replace("▁", "").encode()
    for tokenizer in tokenizers.values():
        assert tokenizer.encode(written).tokens == tokenizer.vocab.tokenize(written)


@many_examples
@given(data=st.data(), written=WRITTEN, following=WRITTEN)
def test_a_safe_cut_stays_one(
    tokenizers: Tokenizers, data: st.DataObject, written: bytes, following: bytes
) -> None:
    checks.check_cut_is_safe(draw_one(data, tokenizers), written, following)


@many_examples
@given(data=st.data(), steps=st.lists(SAID, max_size=5))
def test_tokens_in_any_order_are_read_as_a_whole(
    tokenizers: Tokenizers, data: st.DataObject, steps: list[list[int]]
) -> None:
    target, drafter = draw_pair(data, tokenizers)
    checks.check_reader_equals_scratch(target, drafter, [ids(target, step) for step in steps])


@many_examples
@given(data=st.data(), written=WRITTEN, size=st.integers(1, 5))
def test_text_in_any_steps_is_read_as_a_whole(
    tokenizers: Tokenizers, data: st.DataObject, written: bytes, size: int
) -> None:
    target, drafter = draw_pair(data, tokenizers)
    tokens = target.encode(written).tokens
    steps = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    checks.check_reader_equals_scratch(target, drafter, steps)


@many_examples
@given(data=st.data(), written=WRITTEN, following=WRITTEN, least=st.sampled_from((NEVER, ALWAYS)))
def test_drafts_are_what_the_target_says(
    tokenizers: Tokenizers, data: st.DataObject, written: bytes, following: bytes, least: float
) -> None:
    pair = draw_pair(data, tokenizers)
    tokens = pair[1].encode(written).tokens
    checks.check_settled_is_what_the_target_says(*pair, tokens, following)
    checks.check_proposals_are_what_the_target_says(*pair, tokens)
    checks.check_acceptance_counts_each_drafter_token_once(*pair, tokens, least)
    checks.check_start_forgets(*pair, tokens[::-1], tokens)


@many_examples
@given(data=st.data(), said=SAID, least=st.sampled_from((NEVER, ALWAYS)))
def test_drafts_of_any_tokens_are_what_the_target_says(
    tokenizers: Tokenizers, data: st.DataObject, said: list[int], least: float
) -> None:
    pair = draw_pair(data, tokenizers)
    tokens = ids(pair[1], said)
    checks.check_proposals_are_what_the_target_says(*pair, tokens)
    checks.check_acceptance_counts_each_drafter_token_once(*pair, tokens, least)


@many_examples
@given(data=st.data(), written=WRITTEN)
def test_stretches_are_aligned_and_what_they_teach_is_kept(
    tokenizers: Tokenizers, data: st.DataObject, written: bytes
) -> None:
    pair = draw_pair(data, tokenizers)
    tokens = pair[0].encode(written).tokens
    checks.check_aligned_is_the_text(*pair, tokens)
    learned, again = checks.learned(*pair, tokens), NgramCache()
    assert again.restore(learned.export())
    assert again.export() == learned.export()
