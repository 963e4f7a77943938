"""The n-gram cache: estimates, eviction, and what is kept of it on disk."""

from __future__ import annotations

import random
import zlib

import pytest
from bridge_checks import learned
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.vocab.aligner import Aligned, Aligner, learn
from edgespec.vocab.ngrams import NUM_GROUPS, NgramCache, ending_group, run_from
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.translator import DraftTranslator

RUNS = st.lists(st.integers(0, 5), min_size=2, max_size=4).map(tuple)
EVENTS = st.lists(
    st.tuples(RUNS, st.integers(0, 3), st.booleans(), st.integers(0, NUM_GROUPS - 1)), max_size=60
)


def filled(events: list[tuple[tuple[int, ...], int, bool, int]], capacity: int) -> NgramCache:
    cache = NgramCache(capacity)
    for run, token, kept, group in events:
        cache.observe(run, token, kept, group)
    return cache


def test_an_estimate_goes_from_the_prior_to_the_share_kept() -> None:
    cache = NgramCache()
    run = (0, 7)
    prior = cache.estimate(run, 5)
    assert 0.9 < prior < 0.95
    cache.observe(run, 5, kept=True)
    assert prior < cache.estimate(run, 5)
    for _ in range(3):
        cache.observe(run, 5, kept=False)
    assert cache.estimate(run, 5) == pytest.approx((1 + 0.3 * prior) / 4.3, abs=0.01)
    for _ in range(996):
        cache.observe(run, 5, kept=True)
    assert cache.estimate(run, 5) == pytest.approx(0.997, abs=0.001)


def test_unseen_runs_are_judged_by_first_encounters_of_their_group() -> None:
    cache = NgramCache()
    for token in range(50):
        cache.observe((0, token), token, kept=False, group=4)
        cache.observe((0, token), token, kept=True, group=4)  # a second encounter, not counted
    assert cache.estimate((0, 99), 99, group=4) < 0.3
    assert cache.estimate((0, 99), 99, group=5) > 0.9


def test_another_token_for_a_run_counts_against_the_first_until_it_is_kept() -> None:
    cache = NgramCache()
    cache.observe((0, 1), 5, kept=True)
    before = cache.estimate((0, 1), 5)
    cache.observe((0, 1), 6, kept=False)
    assert cache.estimate((0, 1), 5) < before
    cache.observe((0, 1), 6, kept=True)
    assert cache.estimate((0, 1), 6) > 0.95
    assert len(cache) == 1


def is_known(cache: NgramCache, run: tuple[int, ...]) -> bool:
    """True if a run observed as kept is told from one never seen."""
    return cache.estimate(run, 900) > cache.estimate((0, 123456), 900)


def test_the_least_seen_go_first_and_the_oldest_among_them() -> None:
    cache = NgramCache(capacity=16)
    for number in range(16):
        for _ in range(1 + (number % 4 == 0)):
            cache.observe((0, number), 900, kept=True)
    cache.observe((0, 16), 900, kept=True)
    assert len(cache) == 14
    assert [n for n in range(17) if not is_known(cache, (0, n))] == [1, 2, 3]


@given(events=EVENTS, capacity=st.integers(1, 50))
def test_what_was_exported_is_restored(
    events: list[tuple[tuple[int, ...], int, bool, int]], capacity: int
) -> None:
    cache = filled(events, capacity)
    again = NgramCache(capacity)
    assert again.restore(cache.export())
    assert again.export() == cache.export()
    assert len(again) == len(cache) <= capacity
    for run, token, _kept, group in events:
        assert 0.0 < cache.estimate(run, token, group) == again.estimate(run, token, group) < 1.0


@given(before=EVENTS, after=EVENTS, capacity=st.integers(1, 12))
def test_a_restored_cache_goes_on_as_the_one_exported(
    before: list[tuple[tuple[int, ...], int, bool, int]],
    after: list[tuple[tuple[int, ...], int, bool, int]],
    capacity: int,
) -> None:
    """Even what is evicted next is the same."""
    again = NgramCache(capacity)
    assert again.restore(filled(before, capacity).export())
    for run, token, kept, group in after:
        again.observe(run, token, kept, group)
    assert again.export() == filled(before + after, capacity).export()


def test_a_full_cache_is_stored_in_a_megabyte() -> None:
    """As many entries as fit, of as many different tokens as a large vocabulary has."""
    cache, numbers = NgramCache(), random.Random(1)
    while len(cache) < cache.capacity:
        run = (0, *(numbers.randrange(262_144) for _ in range(numbers.choice((1, 1, 1, 2)))))
        cache.observe(run, numbers.randrange(262_144), kept=True)
    assert len(cache.export()) < 1_048_576


def exported(*numbers: int) -> bytes:
    """These numbers as a cache would have written them."""
    packed = b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)
    return NgramCache().export()[:5] + zlib.compress(packed)


NOTHING = [0] * (2 * NUM_GROUPS)


@pytest.mark.parametrize(
    "foreign",
    [
        b"SQLite format 3\0",
        zlib.compress(b'{"counts": [[1, 2]]}'),
        b"ESNG0" + NgramCache().export()[5:],
        NgramCache().export()[5:],
        NgramCache().export() + b"more",
        NgramCache().export()[:5] + zlib.compress(bytes(65 << 20)),  # a kilobyte that grows
        exported(*NOTHING[1:]),
        exported(-1, *NOTHING[1:]),
        exported(*NOTHING, 2, 0, 7, 5, 1, 2),  # kept more often than seen
        exported(*NOTHING, 2, 0, 7, 5, 1),  # cut off
        exported(*NOTHING, 0, 5, 1, 1),  # a run of nothing
        exported(*NOTHING, 2, 0, -7, 5, 1, 1),
    ],
)
def test_foreign_bytes_and_numbers_that_make_no_sense_are_refused(foreign: bytes) -> None:
    cache = filled([((0, 3), 4, True, 0)], 10)
    before = cache.export()
    assert not cache.restore(foreign)
    assert cache.export() == before


def test_a_smaller_cache_restores_the_most_seen() -> None:
    cache = NgramCache(100)
    for number in range(100):
        for _ in range(1 + number // 50):
            cache.observe((0, number), 900, kept=True)
    small = NgramCache(8)
    assert small.restore(cache.export())
    assert len(small) <= 8
    assert is_known(small, (0, 99))
    assert not is_known(small, (0, 0))


@given(data=st.binary(max_size=60), flip=st.integers(0, 10_000))
def test_damaged_bytes_are_refused_and_change_nothing(data: bytes, flip: int) -> None:
    cache = filled([((0, 3), 4, True, 0), ((0, 5), 6, False, 1)], 10)
    exported = cache.export()
    broken = bytearray(exported)
    broken[flip % len(broken)] ^= 0x55
    cut = exported[: flip % len(exported)]
    for bad in (data, bytes(broken), cut, b""):
        assert not cache.restore(bad)
        assert cache.export() == exported


def test_a_run_too_long_is_not_kept() -> None:
    cache = NgramCache()
    cache.observe((0, *range(40)), 3, kept=True)
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("piece", "run", "group"),
    [
        (b" the", (0, 1), 0),
        (b" the", (0, 1, 2), 1),
        (b"7", (0, 1), 3),
        (b"\n\n", (1, 1, 2, 3), 8),
        (b"();", (0, 1), 9),
        ("ü".encode(), (0, 1), 12),
        ("龍".encode(), (0, 1, 2, 3), 14),
        (b"", (0, 1), 6),
    ],
)
def test_groups_of_endings(piece: bytes, run: tuple[int, ...], group: int) -> None:
    assert ending_group(piece, run) == group < NUM_GROUPS


@pytest.mark.parametrize(
    ("start", "run"), [(0, (0, 7, 8, 9)), (2, (2, 7, 8, 9)), (3, (0, 8, 9)), (6, (1, 9))]
)
def test_a_run_says_how_much_of_its_first_token_it_leaves_out(
    start: int, run: tuple[int, ...]
) -> None:
    assert run_from((7, 8, 9), (3, 5, 9), start) == run


def test_stretches_end_where_both_sides_do() -> None:
    aligner = Aligner()
    for token, size in ((1, 3), (2, 2), (3, 4)):
        aligner.add_target(token, size)
    aligner.add_drafter([10, 11], [3, 4], 4)
    assert aligner.take() == [Aligned((1,), (3,), (10,), (3,))]
    aligner.add_drafter([12], [5], 5)
    assert aligner.take() == [Aligned((2, 3), (2, 6), (11, 12), (1, 6))]
    assert aligner.take() == []


BPE, OTHER = ByteTokenizer(TOYS["bpe"]()), ByteTokenizer(TOYS["bpe-other"]())


def test_a_swallowed_token_is_learned() -> None:
    """The drafter writes "token" and "izer" where the target has one token."""
    text = b" token" + b"izer"
    drafted = OTHER.encode(text)
    assert [OTHER.piece(token) for token in drafted.tokens] == [b" token", b"izer"]
    target = BPE.encode(b"tokenizer").tokens
    assert len(target) == 1
    aligned = Aligned(tuple(target), (9,), (77, 88), (5, 9))
    ngrams = NgramCache()
    learn(ngrams, BPE, aligned)
    [beginning] = BPE.encode(b"token").tokens
    assert ngrams.estimate((0, 77), beginning) < 0.5
    assert ngrams.estimate((0, 77, 88), target[0], 1) > 0.95


def test_what_was_learned_decides_what_is_waited_for() -> None:
    text = b"the lowest is the lowest. " * 8
    ngrams = learned(BPE, OTHER, BPE.encode(text).tokens)
    assert len(ngrams) > 3
    draft = OTHER.encode(b"the lowest is")
    before, after = (
        sum(len(translator.push(token, 1.0)) for token in draft.tokens)
        for translator in (
            DraftTranslator(BPE, OTHER, NgramCache(), 0.96),
            DraftTranslator(BPE, OTHER, ngrams, 0.96),
        )
    )
    assert before < after == len(BPE.encode(b"the lowest is").tokens)
