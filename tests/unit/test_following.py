"""Rows chosen anew: what the user's text needs, judged by text that was not counted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_vocabularies import TOYS

from edgespec.errors import Cancelled, UsageError
from edgespec.forms.counts import keep_tokens
from edgespec.forms.rows import NewRows, RowChooser
from edgespec.forms.trimming import always_kept
from edgespec.forms.words import WordCounts
from edgespec.vocab.tokenizer import ByteTokenizer

DRAFTER = ByteTokenizer(TOYS["bpe"]())
SHIPPED = WordCounts({" the": 9, " lower": 5}, "our answers")
ALWAYS = always_kept(DRAFTER)


def go_on() -> None:
    """Nobody asks for anything."""


def tokens(text: str) -> set[int]:
    return set(DRAFTER.encode(text.encode()).tokens)


def by_shipped(num_kept: int) -> NDArray[np.int32]:
    return keep_tokens(SHIPPED.in_tokens(DRAFTER), num_kept, ALWAYS)


def choose(texts: list[str], kept: NDArray[np.int32]) -> NewRows:
    return RowChooser(DRAFTER, SHIPPED).choose(texts, kept, go_on)


def a_rare_word() -> str:
    """A word of one token of its own that a head with few rows does not keep."""
    kept = set(by_shipped(len(ALWAYS) + 3).tolist())
    words = [DRAFTER.piece(token) for token in range(DRAFTER.vocab.num_tokens)]
    rare = [
        word.decode()
        for token, word in enumerate(words)
        if token not in kept and word.isalpha() and tokens(word.decode()) == {token}
    ]
    return max(rare, key=len)


def test_what_the_user_is_told_takes_the_place_of_what_nobody_said() -> None:
    word = a_rare_word()
    kept = by_shipped(len(ALWAYS) + 3)
    chosen = choose([word] * 8, kept)
    assert len(chosen.kept) == len(kept)
    assert chosen.kept.dtype == np.int32
    assert (np.diff(chosen.kept) > 0).all()
    assert tokens(word) <= set(chosen.kept.tolist())
    assert set(ALWAYS) <= set(chosen.kept.tolist())
    assert tokens(" the") <= set(chosen.kept.tolist()), "what is common stays"
    assert chosen.gain == 1.0
    assert chosen.is_own
    assert chosen.origin == "our answers and 8 tokens said to you"


def test_gain_is_of_text_that_was_not_counted() -> None:
    word = a_rare_word()
    kept = by_shipped(len(ALWAYS) + 3)
    latest_only = choose([word, *[" the"] * 3], kept)
    assert latest_only.gain == 0.0, "it was not known before"
    assert tokens(word) <= set(latest_only.kept.tolist()), "but it is from now on"
    earlier_only = choose([" the" * 20, *[word] * 3], kept)
    assert earlier_only.gain == 0.0, "the latest text could be said before, too"


def test_without_text_the_shipped_counts_choose() -> None:
    kept = by_shipped(len(ALWAYS) + 3)
    chosen = choose([], kept[::-1][: len(kept)])
    np.testing.assert_array_equal(chosen.kept, kept)
    assert not chosen.is_own
    assert chosen.gain == 0.0
    assert chosen.origin == "our answers"


def test_a_single_answer_is_held_out_and_counted_in_the_end() -> None:
    word = a_rare_word()
    chosen = choose([word], by_shipped(len(ALWAYS) + 3))
    assert chosen.gain == 0.0
    assert tokens(word) <= set(chosen.kept.tolist())


def test_it_ends_when_it_is_told_to() -> None:
    chooser, texts = RowChooser(DRAFTER, SHIPPED), ["the lower"] * 3
    kept = by_shipped(len(ALWAYS) + 3)
    for most_calls in range(6):
        left = iter(range(most_calls))

        def pause(left: object = left) -> None:
            try:
                next(left)  # type: ignore[call-overload]
            except StopIteration:
                raise Cancelled from None

        with pytest.raises(Cancelled):
            chooser.choose(texts, kept, pause)
    again = chooser.choose(texts, kept, go_on)
    np.testing.assert_array_equal(again.kept, choose(texts, kept).kept)


def test_a_head_too_small_for_what_all_keep_is_refused() -> None:
    with pytest.raises(UsageError, match="needed for ends and single bytes"):
        choose(["the"], np.arange(10, dtype=np.int32))
