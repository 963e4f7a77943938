"""Fingerprints, roles, and how they show in the bridge."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import BPE_WORDS, TOYS, ToyVocabulary

from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer, num_unfinished
from edgespec.vocab.translator import FOLLOWED, BridgedToken, DraftTranslator
from edgespec.vocab.vocabulary import PieceTable, SpecialTokens, Tokenizer

BPE, OTHER, SPM = (ByteTokenizer(TOYS[name]()) for name in ("bpe", "bpe-other", "spm"))
TURN, TEXT = 2, 0


@dataclasses.dataclass(frozen=True)
class Specials:
    """Only what roles are read from."""

    names: dict[int, bytes]
    bos: int | None = None
    eos: int | None = None
    eot: int | None = None

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset(self.names)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self.names[token] if special else b""


@pytest.mark.parametrize(
    ("vocab", "turn", "text"),
    [
        (Specials({0: b"<|endoftext|>", 2: b"<|im_end|>"}, eos=2, eot=0), 2, 0),
        (Specials({1: b"<eos>", 106: b"<end_of_turn>", 212: b"</s>"}, eos=1, eot=106), 106, 1),
        (Specials({128009: b"<|eot_id|>", 128001: b"<|end_of_text|>"}, eos=128009), 128009, 128001),
        (Specials({2: b"</s>"}, eos=2), 2, 2),
        (Specials({5: b"<stop>", 9: b"<over>"}, eos=5, eot=9), 9, 5),
        (Specials({5: b"<stop>"}, eos=5), 5, 5),
        (Specials({7: b"<a>", 8: b"<b>"}), 7, 8),
        (Specials({}), None, None),
    ],
)
def test_roles(vocab: Specials, turn: int | None, text: int | None) -> None:
    specials = SpecialTokens.of(cast(Tokenizer, vocab))
    assert (specials.end_of_turn, specials.end_of_text) == (turn, text)
    assert specials.ends == vocab.end_tokens


def test_counterparts_are_by_role() -> None:
    qwen = SpecialTokens(None, 645, 643, frozenset({643, 645, 662}))
    gemma = SpecialTokens(2, 106, 1, frozenset({1, 106}))
    assert qwen.counterpart(645, gemma) == 106
    assert qwen.counterpart(643, gemma) == qwen.counterpart(662, gemma) == 1
    assert gemma.counterpart(1, qwen) == 643
    assert qwen.counterpart(7, gemma) is None
    assert qwen.counterpart(645, SpecialTokens(None, None, None, frozenset())) is None


def test_equal_vocabularies_have_equal_fingerprints() -> None:
    assert BPE.fingerprint == ByteTokenizer(TOYS["bpe"]()).fingerprint
    assert len(BPE.fingerprint) == 32
    assert len({ByteTokenizer(make()).fingerprint for make in TOYS.values()}) == len(TOYS)


def test_anything_that_matters_changes_the_fingerprint() -> None:
    plain = ToyVocabulary("bpe", BPE_WORDS)
    others = [
        dataclasses.replace(plain, kind="spm"),
        dataclasses.replace(plain, words=(*BPE_WORDS, b"zz")),
        dataclasses.replace(plain, words=(*BPE_WORDS[1:], BPE_WORDS[0])),
        dataclasses.replace(plain, end_names=(b"<a>", b"<b>", b"<c>")),
        # The same bytes in a row, cut elsewhere.
        dataclasses.replace(plain, words=(BPE_WORDS[0] + BPE_WORDS[1], b"", *BPE_WORDS[2:])),
    ]
    prints = {ByteTokenizer(vocab).fingerprint for vocab in (plain, *others)}
    assert len(prints) == 1 + len(others)


def test_filling_at_the_end_does_not_count() -> None:
    padded = ToyVocabulary("bpe", (*BPE_WORDS, b"", b"", b""))
    assert ByteTokenizer(padded).fingerprint == BPE.fingerprint


@given(pieces=st.lists(st.binary(max_size=5), max_size=30))
def test_a_table_gives_back_every_piece(pieces: list[bytes]) -> None:
    table = PieceTable(pieces)
    assert [table[token] for token in range(len(table))] == pieces
    singles = {piece[0]: pieces.index(piece) for piece in pieces if len(piece) == 1}
    assert table.byte_tokens == singles


@given(data=st.binary(max_size=6) | st.text(max_size=3).map(str.encode))
def test_unfinished_bytes_are_those_that_may_become_a_character(data: bytes) -> None:
    num = num_unfinished(data)
    assert 0 <= num <= 3
    tails = [b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x80\x80", b"\x90\x80\x80"]
    completions = [
        data[len(data) - num :] + tail for tail in [*tails, b"\xa0\x80", b"\x8f\xbf\xbf"]
    ]

    def is_text(candidate: bytes) -> bool:
        try:
            return len(candidate.decode()) == 1
        except UnicodeDecodeError:
            return False

    if num:
        assert any(map(is_text, completions))
        assert not is_text(data[len(data) - num :])
    else:
        for size in range(1, min(3, len(data)) + 1):
            start = data[len(data) - size :]
            assert (
                not any(is_text(start + tail) for tail in tails) or is_text(start[:1]) or size > 1
            )


def test_an_end_of_turn_in_the_text_is_the_drafters_own() -> None:
    reader = DrafterReader(BPE, SPM)
    reader.begin([50])
    text = BPE.encode(b"the lowest").tokens
    reader.extend([*text, TURN])
    [*said, end] = reader.tokens[1:]
    assert said == SPM.encode(b"the lowest").tokens
    assert end == SPM.specials.end_of_turn == TURN
    feed = reader.extend(text)
    assert feed.num_keep == len(said) + 2
    assert list(feed.tokens) == said


def test_half_a_character_before_an_end_stays_half() -> None:
    reader = DrafterReader(BPE, SPM)
    half = [BPE.table.byte_tokens[byte] for byte in "龍".encode()[:2]]
    reader.extend(half)
    assert (reader.can_draft, list(reader.tokens)) == (False, [])
    reader.extend([TURN])
    assert reader.can_draft
    assert [SPM.piece(token) for token in reader.tokens] == [b"\xe9", b"\xbe", b""]


def test_control_tokens_without_a_role_are_left_out() -> None:
    reader = DrafterReader(BPE, SPM)
    the, lowest = (BPE.encode(word).tokens for word in (b"the", b" lowest"))
    reader.extend([*the, 1, 3, *lowest])
    assert list(reader.tokens) == SPM.encode(b"the lowest").tokens


@pytest.mark.parametrize("end", [TURN, TEXT])
def test_an_end_of_the_draft_flushes_it_and_ends_the_turn(end: int) -> None:
    translator = DraftTranslator(BPE, SPM, NgramCache(), 2.0)
    for token in SPM.encode(b"the").tokens:
        assert translator.push(token, 0.5) == ()
    *said, last = translator.push(end, 0.25)
    assert [bridged.token for bridged in said] == BPE.encode(b"the").tokens
    assert last == BridgedToken(TURN, 0.25)
    assert translator.is_over
    assert translator.push(50, 0.5) == ()
    translator.start()
    assert not translator.is_over


def test_a_token_that_stands_for_nothing_ends_the_draft() -> None:
    translator = DraftTranslator(BPE, SPM, NgramCache(), 2.0)
    for token in SPM.encode(b"the").tokens:
        assert translator.push(token, 0.5) == ()
    left = translator.push(1, 0.9)
    assert [bridged.token for bridged in left] == BPE.encode(b"the").tokens
    assert translator.is_over
    assert translator.finish() == ()


def test_a_token_comes_out_once_another_follows_it() -> None:
    """Digits have no safe cut between them: only that "1" was not merged with "2" tells."""
    translator = DraftTranslator(BPE, SPM, NgramCache(), FOLLOWED)
    one, two, three = (SPM.encode(digit).tokens[0] for digit in (b"1", b"2", b"3"))
    assert translator.push(one, 0.5) == ()
    [first] = translator.push(two, 0.25)
    assert first == BridgedToken(BPE.encode(b"1").tokens[0], 0.5 * FOLLOWED)
    [second] = translator.push(three, 0.125)
    assert BPE.piece(second.token) == b"2"
    assert second.acceptance == 0.25 * FOLLOWED


def test_a_followed_token_that_is_merged_after_all_ends_the_draft() -> None:
    target = ByteTokenizer(ToyVocabulary("bpe", (b"ab", b"cd", b"abcd")))
    translator = DraftTranslator(target, SPM, NgramCache(), FOLLOWED)
    said = [translator.push(SPM.table.byte_tokens[byte], 0.5) for byte in b"abcd"]
    assert [[target.piece(token.token) for token in some] for some in said] == [[], [], [b"ab"], []]
    assert translator.is_over
    assert translator.finish() == ()


def test_a_target_without_an_end_gets_the_text_alone() -> None:
    endless = ByteTokenizer(_Endless("bpe", BPE_WORDS))
    translator = DraftTranslator(endless, SPM, NgramCache(), 2.0)
    for token in SPM.encode(b"the").tokens:
        translator.push(token, 0.5)
    proposed = [bridged.token for bridged in translator.push(TURN, 0.5)]
    assert proposed == endless.encode(b"the").tokens
    reader = DrafterReader(BPE, endless)
    reader.extend([*BPE.encode(b"the").tokens, TURN])
    assert list(reader.tokens) == endless.encode(b"the").tokens


class _Endless(ToyVocabulary):
    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset()

    @property
    def eos(self) -> int | None:
        return None


@given(tokens=st.lists(st.integers(0, 280), max_size=10))
def test_equal_vocabularies_pass_ids_through(tokens: list[int]) -> None:
    twin = ByteTokenizer(ToyVocabulary("bpe", (*BPE_WORDS, b"", b"")))
    assert twin.fingerprint == BPE.fingerprint
    reader = DrafterReader(BPE, twin)
    reader.begin([5])
    feed = reader.extend(tokens)
    assert (feed.num_keep, list(feed.tokens)) == (1, tokens)
    assert list(reader.tokens) == [5, *tokens]
    translator = DraftTranslator(BPE, twin, NgramCache())
    for token in tokens:
        expected = () if translator.is_over else (BridgedToken(token, 0.25),)
        assert translator.push(token, 0.25) == expected
    assert translator.is_over == any(token in (TURN, TEXT) for token in tokens)
    assert translator.finish() == ()
