"""How often tokens were said: counted over what is recorded; contexts and other tiers left out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import OTHER_VOCABULARY, VOCABULARY, in_memory

from edgespec.cache.said import said_counts
from edgespec.cache.tokens import VocabularyKey

TEXTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 999), max_size=40),
        st.lists(st.integers(0, 999), min_size=1, max_size=300),
    ),
    max_size=4,
)


@settings(max_examples=25)  # each makes a database
@given(TEXTS)
def test_what_was_said_is_counted(texts: list[tuple[list[int], list[int]]]) -> None:
    recorded = in_memory()
    for context, tokens in texts:
        recorded.add(tokens, context)
    counts = said_counts(recorded.connection, VOCABULARY)
    expected = Counter(token for _, tokens in texts for token in tokens)
    assert {token: int(counts[token]) for token in counts.nonzero()[0].tolist()} == expected
    assert counts.shape == (VOCABULARY.num_tokens,)


def test_imported_text_and_other_vocabularies_do_not_count() -> None:
    recorded = in_memory()
    recorded.add([1, 2, 3], tier="statistics")
    recorded.add([4, 5], vocabulary=OTHER_VOCABULARY)
    assert not said_counts(recorded.connection, VOCABULARY).any()
    assert said_counts(recorded.connection, OTHER_VOCABULARY).sum() == 2


def test_ids_beyond_the_vocabulary_are_left_out() -> None:
    recorded = in_memory()
    recorded.add([1, 2000, 999, 1])
    counts = said_counts(recorded.connection, VOCABULARY)
    assert counts.nonzero()[0].tolist() == [1, 999]
    assert not said_counts(recorded.connection, VocabularyKey("nobody", 7)).any()
