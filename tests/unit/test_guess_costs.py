"""What guesses take is learned, and what others disturbed is not believed for long."""

from __future__ import annotations

import pytest

from edgespec.estimates.guess_costs import GuessCosts

GUESS_MS, READ_MS = 5.0, 0.5


def read(costs: GuessCosts, num_tokens: int, read_ms: float = READ_MS) -> None:
    """A prompt is read, and guessed on once."""
    costs.observe((GUESS_MS + num_tokens * read_ms) / 1e3, num_tokens, 1)


def test_what_reading_takes_is_learned() -> None:
    for read_ms in (0.1, READ_MS, 4.0):
        costs = GuessCosts(GUESS_MS)
        for _ in range(40):
            read(costs, 50, read_ms)
        assert costs.read_ms == pytest.approx(read_ms, rel=0.01)


def test_one_reading_that_was_disturbed_hardly_counts() -> None:
    costs = GuessCosts(GUESS_MS)
    for _ in range(20):
        read(costs, 50)
    read(costs, 50, 100 * READ_MS)
    assert costs.read_ms <= 1.35 * READ_MS


def test_where_nobody_reads_a_bad_time_is_forgotten() -> None:
    """Else nobody would ever read again."""
    costs = GuessCosts(GUESS_MS)
    for _ in range(20):
        read(costs, 50, 10 * READ_MS)
    costs.forget()
    assert costs.read_ms > 9 * READ_MS
    for _ in range(200):
        costs.forget()
    assert costs.read_ms < 1.5 * READ_MS


def test_few_tokens_tell_what_a_guess_takes_and_many_do_not() -> None:
    costs = GuessCosts(GUESS_MS)
    for _ in range(100):
        costs.observe(8e-3, 1, 1)
        costs.observe(80e-3, 100, 1)
    assert costs.proposal_ms == pytest.approx(8.0, rel=0.01)
    costs.observe(10.0, 1, 1)
    assert costs.proposal_ms < 8.5
