"""What two texts share."""

from __future__ import annotations

from collections.abc import Sequence


def common_prefix(left: Sequence[int], right: Sequence[int], start: int = 0) -> int:
    """Length of the longest common prefix, the first `start` tokens being known to be equal.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 3])
    2
    """
    length = min(len(left), len(right))
    for index in range(min(start, length), length):
        if left[index] != right[index]:
            return index
    return length
