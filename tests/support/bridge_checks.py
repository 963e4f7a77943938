"""What must hold of the bridge between any two vocabularies: one check an invariant."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from hypothesis import strategies as st

from edgespec.vocab.aligner import learn
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer, num_unfinished
from edgespec.vocab.translator import BridgedToken, DraftTranslator

NEVER, ALWAYS = 2.0, 0.0
"""Least estimates with which the n-gram cache is never, or always, believed."""

SPECIMENS = (
    *(" the lowest", "tokenizers", " is", "über", "it's", "();", "...", "123 456", "def f(x):\n"),
    *("龍河", "水。", "🙂", "🏳️\u200d🌈", "e\u0301", "\r\n\t ", "    ", "\n\n", "\0"),
    *("<|im_end|>", "</s>", "▁", " ▁"),
)
TEXTS = st.lists(st.sampled_from(SPECIMENS) | st.text(max_size=5), max_size=8).map("".join)
DATA = st.lists(TEXTS.map(str.encode) | st.binary(max_size=4), max_size=4).map(b"".join)


def spelled(tokenizer: ByteTokenizer, tokens: Sequence[int]) -> bytes:
    """The bytes of `tokens`."""
    return b"".join(map(tokenizer.piece, tokens))


def can_spell(tokenizer: ByteTokenizer, data: bytes) -> bytes:
    """`data` without the bytes for which the vocabulary has no token."""
    return spelled(tokenizer, tokenizer.encode(data).tokens)


def without_ends(tokenizer: ByteTokenizer, tokens: Sequence[int]) -> list[int]:
    """`tokens` without those that end an answer, which cut the text in two."""
    return [token for token in tokens if token not in tokenizer.specials.ends]


def check_any_bytes_come_back(tokenizer: ByteTokenizer, data: bytes) -> None:
    """Every byte that has a token comes back, and the ends are those of the pieces."""
    encoded = tokenizer.encode(data)
    position = 0
    for token, end in zip(encoded.tokens, encoded.ends, strict=True):
        piece = tokenizer.piece(token)
        assert piece
        assert data[end - len(piece) : end] == piece
        skipped = data[position : end - len(piece)]
        assert not any(byte in tokenizer.table.byte_tokens for byte in skipped)
        position = end
    assert not any(byte in tokenizer.table.byte_tokens for byte in data[position:])


def check_cut_is_safe(tokenizer: ByteTokenizer, data: bytes, following: bytes) -> None:
    """What is before the last safe cut is tokenized as before, whatever follows."""
    cut = tokenizer.boundaries.last(data)
    whole = tokenizer.encode(data + following).tokens
    parts = tokenizer.encode(data[:cut]).tokens + tokenizer.encode(data[cut:] + following).tokens
    assert whole == parts


def check_reader_equals_scratch(
    target: ByteTokenizer, drafter: ByteTokenizer, steps: Sequence[Sequence[int]]
) -> None:
    """After every step the tokens are those of the whole text so far, and of the fed KV cache."""
    reader = DrafterReader(target, drafter)
    prefix = [1, 2, 3]
    reader.begin(prefix)
    cells, said = list(prefix), b""
    for tokens in steps:
        preview = reader.preview(tokens)
        feed = reader.extend(tokens)
        assert feed.num_keep >= len(prefix)
        assert preview == (feed if all(map(target.piece, tokens)) and reader.can_draft else None)
        assert cells[feed.num_keep : feed.num_keep + 1] != list(feed.tokens[:1]) or not feed.tokens
        cells = cells[: feed.num_keep] + list(feed.tokens)
        said += spelled(target, tokens)
        whole = len(said) - num_unfinished(said)
        assert reader.can_draft == (whole == len(said))
        assert cells == list(reader.tokens) == prefix + drafter.encode(said[:whole]).tokens


def check_aligned_is_the_text(
    target: ByteTokenizer, drafter: ByteTokenizer, tokens: Sequence[int]
) -> None:
    """Aligned stretches are both sides' tokens in order, each ending at the same byte."""
    reader = DrafterReader(target, drafter)
    for token in tokens:
        reader.extend([token])
    stretches = reader.take_aligned()
    assert [t for s in stretches for t in s.target] == list(tokens)[
        : sum(len(s.target) for s in stretches)
    ]
    said = [t for s in stretches for t in s.drafter]
    assert said == list(reader.tokens)[: len(said)]
    for stretch in stretches:
        assert stretch.target_ends[-1] == stretch.drafter_ends[-1]
        assert can_spell(drafter, spelled(target, stretch.target)) == spelled(
            drafter, stretch.drafter
        )
        assert not set(stretch.target_ends[:-1]) & set(stretch.drafter_ends[:-1])
    assert reader.take_aligned() == []


def draft(translator: DraftTranslator, tokens: Sequence[int]) -> list[BridgedToken]:
    """Push all with probability one half and take what is left."""
    proposed = [bridged for token in tokens for bridged in translator.push(token, 0.5)]
    return proposed + list(translator.finish())


def check_settled_is_what_the_target_says(
    target: ByteTokenizer, drafter: ByteTokenizer, tokens: Sequence[int], following: bytes
) -> None:
    """Settled proposals begin the target's tokenization of the draft, whatever follows it."""
    translator = DraftTranslator(target, drafter, NgramCache(), NEVER)
    settled = [bridged for token in tokens for bridged in translator.push(token, 0.5)]
    said = [bridged.token for bridged in settled]
    drafted = spelled(drafter, tokens)
    assert target.encode(drafted + following).tokens[: len(said)] == said
    # With what is left it is the whole draft, half a character at its end excepted.
    rest = [bridged.token for bridged in translator.finish()]
    whole = drafted[: len(drafted) - num_unfinished(drafted)]
    assert said + rest == target.encode(whole).tokens


def check_proposals_are_what_the_target_says(
    target: ByteTokenizer, drafter: ByteTokenizer, tokens: Sequence[int]
) -> None:
    """With every end believed, all drafted bytes are proposed as the target's tokenizer says.

    Where the tokens that follow show that a believed end was none, the draft is over.
    """
    translator = DraftTranslator(target, drafter, NgramCache(), ALWAYS)
    drafted, said = b"", list[int]()
    for token in without_ends(drafter, list(filter(drafter.piece, tokens))):
        drafted += drafter.piece(token)
        proposed = translator.push(token, 0.5)
        expected = target.encode(drafted[: len(drafted) - num_unfinished(drafted)]).tokens
        if translator.is_over:
            assert proposed == ()
            assert said != expected[: len(said)]
            return
        said += [bridged.token for bridged in proposed]
        assert said == expected[: len(said)]
        can_end = not num_unfinished(drafted) and can_spell(target, drafted) == drafted
        assert len(said) == len(expected) or not can_end


def check_acceptance_counts_each_drafter_token_once(
    target: ByteTokenizer, drafter: ByteTokenizer, tokens: Sequence[int], least: float
) -> None:
    """The product over all proposals is that over the drafter tokens they span, or less."""
    tokens = without_ends(drafter, list(filter(drafter.piece, tokens)))
    translator = DraftTranslator(target, drafter, NgramCache(), least)
    proposed = [bridged for token in tokens for bridged in translator.push(token, 0.5)]
    num_bytes = len(spelled(target, [bridged.token for bridged in proposed]))
    spanned = 0
    while len(can_spell(target, spelled(drafter, tokens[:spanned]))) < num_bytes:
        spanned += 1
    product = prod(bridged.acceptance for bridged in proposed)
    assert product == 0.5**spanned if least == NEVER else 0.0 < product <= 0.5**spanned


def check_start_forgets(
    target: ByteTokenizer, drafter: ByteTokenizer, first: Sequence[int], second: Sequence[int]
) -> None:
    """A draft after another is as the first of a new translator."""
    ngrams = NgramCache()
    used = DraftTranslator(target, drafter, ngrams)
    draft(used, first)
    used.start()
    assert draft(used, second) == draft(DraftTranslator(target, drafter, ngrams), second)


def learned(target: ByteTokenizer, drafter: ByteTokenizer, tokens: Sequence[int]) -> NgramCache:
    """A cache filled from an answer of `tokens`."""
    reader, ngrams = DrafterReader(target, drafter), NgramCache()
    for token in tokens:
        reader.extend([token])
        for stretch in reader.take_aligned():
            learn(ngrams, target, stretch)
    return ngrams
