"""The n-gram cache of OmniDraft (arXiv 2507.02659, section 3.1): runs of drafter tokens to one
target token, with how often each was right.

A drafted text may end in the middle of what the target would write as one token: "token" may become
"tokenizer". Whether the target's token ends where the drafter's does is learned here, per run: of
all times that the run was `seen` at the end of a draft, in how many was the token `kept`. The
tokens that no run reaches in one step (the drafter's token spans several of the target's) are
learned by the same rule, since a run is counted from where the target's token begins.

A run's first number is how many bytes of its first drafter token belong to the target token before.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Run = tuple[int, ...]

NUM_GROUPS = 15
"""Kinds of endings for which unseen runs are judged together, see `ending_group`."""

MAX_RUN = 16
"""Longer runs are not kept: no token of the target is that much longer."""

_MAGIC = b"ESNG1"
_MOST_BYTES = 64 << 20  # unpacked, enough for two million entries
_PRIOR_SHARE = 0.93
_PRIOR_WEIGHT = 10.0
_GROUP_WEIGHT = 0.3
_EVICTED_SHARE = 0.125


@dataclass(slots=True)
class _Entry:
    token: int
    seen: int
    kept: int


class NgramCache:
    """Counts of runs, at most `capacity` of them; the least frequently seen go first."""

    def __init__(self, capacity: int = 65536) -> None:
        """65,536 entries take about 15 MB in memory and half a MB stored."""
        self.capacity = capacity
        self._entries: dict[Run, _Entry] = {}
        self._first_seen = [0] * NUM_GROUPS
        self._first_kept = [0] * NUM_GROUPS

    def __len__(self) -> int:
        return len(self._entries)

    def observe(self, run: Run, token: int, kept: bool, group: int = 0) -> None:
        """Count one time that `run` ended a text whose last token was then `token`.

        `kept` tells whether the target's token did end there. `group` is that of `ending_group`.
        """
        if len(run) > MAX_RUN:
            return
        entry = self._entries.get(run)
        if entry is None or entry.token != token:
            if entry is not None and not kept:
                entry.seen += 1
                return
            self._first_seen[group] += 1
            self._first_kept[group] += kept
            self._entries[run] = _Entry(token, 1, int(kept))
            if len(self._entries) > self.capacity:
                self._evict()
            return
        entry.seen += 1
        entry.kept += kept

    def estimate(self, run: Run, token: int, group: int = 0) -> float:
        """Probability that the target's token ends where `run` does, if it begins as `token`.

        A run never seen is judged by the first encounters with others of its group.
        """
        prior = (self._first_kept[group] + _PRIOR_WEIGHT * _PRIOR_SHARE) / (
            self._first_seen[group] + _PRIOR_WEIGHT
        )
        entry = self._entries.get(run)
        if entry is None or entry.token != token:
            return prior
        return (entry.kept + _GROUP_WEIGHT * prior) / (entry.seen + _GROUP_WEIGHT)

    def export(self) -> bytes:
        """Everything learned, compressed; about 10 bytes an entry."""
        numbers = array("i", [*self._first_seen, *self._first_kept])
        for run, entry in self._entries.items():
            numbers.extend((len(run), *run, entry.token, entry.seen, entry.kept))
        return _MAGIC + zlib.compress(numbers.tobytes(), level=6)

    def restore(self, data: bytes) -> bool:
        """Replace everything by what `export` gave; False, and nothing changed, for other bytes."""
        try:
            if not data.startswith(_MAGIC):
                return False
            numbers = array("i", _decompress(data[len(_MAGIC) :]))
            entries = dict(_read_entries(numbers[2 * NUM_GROUPS :]))
        except (ValueError, IndexError, zlib.error):
            return False
        if len(numbers) < 2 * NUM_GROUPS or any(number < 0 for number in numbers):
            return False
        self._first_seen = list(numbers[:NUM_GROUPS])
        self._first_kept = list(numbers[NUM_GROUPS : 2 * NUM_GROUPS])
        self._entries = entries
        if len(self._entries) > self.capacity:
            self._evict()
        return True

    def _evict(self) -> None:
        """Drop the least seen, an eighth more than needed, so that this is rarely done."""
        num_kept = self.capacity - int(self.capacity * _EVICTED_SHARE)
        # Among equals the oldest go: the newest had no time yet to be seen again.
        ranked = sorted(self._entries.items(), key=lambda item: item[1].seen)
        self._entries = dict(ranked[len(ranked) - num_kept :])


def _decompress(data: bytes) -> bytes:
    """The whole of one zlib stream with nothing behind it; raises ValueError or zlib.error."""
    stream = zlib.decompressobj()
    numbers = stream.decompress(data, _MOST_BYTES)
    if not stream.eof or stream.unused_data:
        raise ValueError("cut off, too large, or followed by something else")
    return numbers


def _read_entries(numbers: Sequence[int]) -> Iterator[tuple[Run, _Entry]]:
    index = 0
    while index < len(numbers):
        length = numbers[index]
        end = index + 1 + length
        if length < 1 or end + 3 > len(numbers):
            raise ValueError("an entry is cut off")
        token, seen, kept = numbers[end : end + 3]
        if not 0 <= kept <= seen:
            raise ValueError(f"kept {kept} times of {seen}")
        yield tuple(numbers[index + 1 : end]), _Entry(token, seen, kept)
        index = end + 3


def run_from(tokens: Sequence[int], ends: Sequence[int], start: int) -> Run:
    """The run of drafter tokens that spells what lies between byte `start` and the last end.

    >>> run_from((7, 8, 9), (3, 5, 9), 4)
    (1, 8, 9)
    """
    first = bisect_right(ends, start)
    begin = ends[first - 1] if first else 0
    return (start - begin, *tokens[first:])


def ending_group(piece: bytes, run: Run) -> int:
    """Number of the group of a target token: its last letter's kind and the length of its run.

    >>> ending_group(b" the", (0, 7)), ending_group("龍".encode(), (0, 1, 2, 3, 4))
    (0, 14)
    """
    last = piece[-1:] or b" "
    if last.isalpha():
        kind = 0
    elif last.isdigit():
        kind = 1
    elif last.isspace():
        kind = 2
    else:
        kind = 3 if last < b"\x80" else 4
    return 3 * kind + min(len(run) - 2, 2)
