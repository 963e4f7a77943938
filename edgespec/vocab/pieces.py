"""The bytes of a whole vocabulary in one string: 2 MB for 262,144 tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate


class PieceTable:
    """Byte strings by token id; empty for tokens that spell nothing."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """`pieces` in id order; duplicates and empty ones are kept as they are."""
        listed = list(pieces)
        self.blob = b"".join(listed)
        self.starts = array("i", accumulate(map(len, listed), initial=0))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, token: int) -> bytes:
        return self.blob[self.starts[token] : self.starts[token + 1]]

    @cached_property
    def byte_tokens(self) -> dict[int, int]:
        """The first token that is exactly one byte, by that byte."""
        found: dict[int, int] = {}
        for token in range(len(self)):
            start = self.starts[token]
            if self.starts[token + 1] - start == 1:
                found.setdefault(self.blob[start], token)
        return found
