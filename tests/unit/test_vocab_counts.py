"""Tables of token counts: round trips, estimates of coverage, which tokens are kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import StorageError, UsageError
from edgespec.forms.counts import TokenCounts, keep_tokens

VOCABULARY = "0123456789abcdef" * 2
TEXT = [5, 5, 5, 5, 9, 9, 9, 2, 2, 7, 300]
tables = st.dictionaries(st.integers(0, 999), st.integers(1, 1 << 30), max_size=60)


def counted(tokens: list[int], num_tokens: int = 1000) -> TokenCounts:
    counts = np.bincount(np.array(tokens, np.int64), minlength=num_tokens).astype(np.float32)
    return TokenCounts(VOCABULARY, counts, "a test")


def table_of(seen: dict[int, int], num_tokens: int = 1000) -> TokenCounts:
    counts = np.zeros(num_tokens, dtype=np.float32)
    counts[list(seen)] = list(seen.values())
    return TokenCounts(VOCABULARY, counts, "ä test\nof two lines")


@given(seen=tables)
def test_a_table_is_read_as_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory, seen: dict[int, int]
) -> None:
    table, path = table_of(seen), tmp_path_factory.mktemp("counts") / "my.counts"
    counted(TEXT).save(path)
    table.save(path)
    read = TokenCounts.load(path)
    assert (read.fingerprint, read.origin) == (table.fingerprint, table.origin)
    np.testing.assert_array_equal(read.counts, table.counts)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StorageError, match="cut off or damaged"):
        TokenCounts.load(path)


def test_counts_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(a test\) are of another vocabulary of 1,000") as e:
        counted(TEXT).fitted("f" * 32, 1001)
    assert "\n" not in str(e.value)
    with pytest.raises(UsageError, match="another vocabulary"):
        counted(TEXT).plus(TokenCounts("f" * 32, np.zeros(1000, dtype=np.float32), ""))


def test_sessions_are_added_with_a_weight() -> None:
    both = counted([1, 1, 2]).plus(counted([2, 3]), weight=10)
    assert both.counts[[1, 2, 3]].tolist() == [2, 11, 10]
    assert both.origin == "a test"


def test_what_is_kept_is_most_frequent_then_first() -> None:
    counts = counted(TEXT)
    assert keep_tokens(counts, 2, ()).tolist() == [5, 9]
    assert keep_tokens(counts, 5, ()).tolist() == [2, 5, 7, 9, 300]
    assert keep_tokens(counts, 8, ()).tolist() == [0, 1, 2, 3, 5, 7, 9, 300]
    assert keep_tokens(counts, 4, [999, 998, 999]).tolist() == [5, 9, 998, 999]
    assert keep_tokens(counts, 1000, [4]).tolist() == list(range(1000))
    assert keep_tokens(counts, 2, ()).dtype == np.int32


@given(tables, st.sets(st.integers(0, 999), max_size=20), st.integers(20, 1000))
def test_more_kept_is_never_less_covered(
    seen: dict[int, int], always: set[int], num_kept: int
) -> None:
    table = table_of(seen)
    kept = keep_tokens(table, num_kept, always)
    assert len(set(kept.tolist())) == num_kept
    assert always <= set(kept.tolist())
    assert kept.tolist() == sorted(kept)
    lost = np.delete(table.counts, kept)
    free = np.setdiff1d(kept, list(always))
    if len(lost) and len(free):
        assert table.counts[free].min() >= lost.max()


@pytest.mark.parametrize(
    ("num_kept", "words"),
    [
        (1001, "cannot keep 1,001 tokens: the vocabulary has 1,000"),
        (2, "cannot keep 2 tokens: 3 of them are needed"),
        (0, "cannot keep 0 tokens: 3 of them"),
        (-5, "cannot keep -5 tokens"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(num_kept: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        keep_tokens(counted(TEXT), num_kept, (1, 2, 3))


def test_coverage_leaves_room_for_the_unseen() -> None:
    table = counted(TEXT)
    shares = [table.coverage(kept) for kept in (1, 2, 3, 5, 100, 1000)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    # Two of eleven tokens came once: so much is expected of tokens that did not come.
    assert table.coverage(5) == pytest.approx(9 / 11)
    assert counted([]).coverage(250) == 0.25


def test_padded_vocabularies_share_counts() -> None:
    table = counted(TEXT, 301)
    longer, shorter = table.fitted(VOCABULARY, 310), table.fitted(VOCABULARY, 300)
    assert longer.counts.tolist() == [*table.counts.tolist(), *itertools.repeat(0.0, 9)]
    assert shorter.counts.tolist() == table.counts.tolist()[:300]
