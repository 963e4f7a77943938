"""How often a target says each token of a drafter's vocabulary, and which tokens to keep for it.

A table comes from text that targets wrote (VocabTrim, section 4: such text serves better than text
of people), in the tokens of the drafter's vocabulary.

The file: a line of magic, a line of JSON, then zlib over the ids that were seen (differences of the
sorted ids, uint32 in byte planes) and their counts (whole numbers, as eighths of log2, uint8):
about 2 bytes a token.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import UsageError
from edgespec.gguf.file import replacing

MAGIC = b"edgespec counts 1\n"
_STEPS = 8
"""Counts are kept to the nearest of so many steps between powers of two."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenCounts:
    """Counts by token id, float32, of one vocabulary.

    `fingerprint` names the vocabulary, `origin` tells where the text came from, `is_own` whether
    some of it was said to this user.
    """

    fingerprint: str
    counts: NDArray[np.float32]
    origin: str
    is_own: bool = False

    @staticmethod
    def of(fingerprint: str, num_tokens: int, tokens: Iterable[int], origin: str) -> TokenCounts:
        """Count `tokens` of a vocabulary of `num_tokens`."""
        seen = np.fromiter(tokens, dtype=np.int64)
        counts = np.bincount(seen, minlength=num_tokens).astype(np.float32)
        return TokenCounts(fingerprint, counts, origin)

    def plus(self, other: TokenCounts, weight: float = 1.0) -> TokenCounts:
        """Both together, those of `other` (a user's own sessions) `weight` times.

        Raises UsageError for counts of another vocabulary.
        """
        fitted = other.fitted(self.fingerprint, len(self.counts)).counts
        return dataclasses.replace(self, counts=self.counts + np.float32(weight) * fitted)

    def fitted(self, fingerprint: str, num_tokens: int) -> TokenCounts:
        """The same counts for a model with this vocabulary, which may be padded to another length.

        Raises UsageError if they are of another vocabulary.
        """
        if self.fingerprint != fingerprint:
            raise UsageError(
                f"these counts ({self.origin}) are of another vocabulary of "
                f"{len(self.counts):,} tokens, the drafter's has {num_tokens:,}",
                "count with the drafter's own tokenizer or leave --counts out",
            )
        counts = np.zeros(num_tokens, dtype=np.float32)
        shared = min(num_tokens, len(self.counts))
        counts[:shared] = self.counts[:shared]
        return dataclasses.replace(self, counts=counts)

    def coverage(self, num_kept: int) -> float:
        """Share of a target's text that consists of the `num_kept` best tokens, estimated.

        Good and Turing: what was seen once stands for what was never seen.
        """
        total = float(self.counts.sum())
        if not total:
            return num_kept / len(self.counts)
        unseen = float((self.counts == 1).sum()) / total
        best = np.sort(self.counts)[::-1][:num_kept]
        num_seen = int(np.count_nonzero(self.counts))
        filled = max(0, num_kept - num_seen) / max(1, len(self.counts) - num_seen)
        return (1 - unseen) * float(best.sum()) / total + unseen * filled

    def to_bytes(self) -> bytes:
        """The table as a file's content."""
        ids = np.flatnonzero(self.counts)
        gaps = np.diff(ids, prepend=0).astype("<u4")
        whole = np.maximum(np.rint(self.counts[ids]), 1)
        logs = np.rint(np.log2(whole) * _STEPS).clip(0, 255)
        planes = gaps.view(np.uint8).reshape(-1, 4).T.tobytes()
        header = {
            "vocabulary": self.fingerprint,
            "num_tokens": len(self.counts),
            "num_seen": len(ids),
            "origin": self.origin,
        }
        body = zlib.compress(planes + logs.astype(np.uint8).tobytes(), 9)
        return MAGIC + json.dumps(header).encode() + b"\n" + body

    @staticmethod
    def from_bytes(data: bytes, name: str) -> TokenCounts:
        """Read `to_bytes` back; raises UsageError, with `name`, for anything else."""
        try:
            magic, line, body = data.split(b"\n", 2)
            if magic + b"\n" != MAGIC:
                raise ValueError("it begins differently")
            header = json.loads(line)
            num_seen, num_tokens = int(header["num_seen"]), int(header["num_tokens"])
            content = np.frombuffer(zlib.decompress(body), dtype=np.uint8)
            planes, logs = np.split(content, [4 * num_seen])
            gaps = np.ascontiguousarray(planes.reshape(4, num_seen).T).view("<u4")
            counts = np.zeros(num_tokens, dtype=np.float32)
            counts[gaps.reshape(-1).cumsum()] = np.rint(2.0 ** (logs.astype(np.float32) / _STEPS))
            return TokenCounts(str(header["vocabulary"]), counts, str(header["origin"]))
        except (ValueError, KeyError, IndexError, TypeError, MemoryError, zlib.error) as error:
            raise UsageError(
                f"{name} is not a whole table of counts ({error})", "make it again"
            ) from error

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all; raises StorageError."""
        data = self.to_bytes()
        with replacing(path, len(data)) as scratch:
            scratch.write_bytes(data)


def keep_tokens(counts: TokenCounts, num_kept: int, always: Collection[int]) -> NDArray[np.int32]:
    """The `num_kept` token ids to keep, ascending: the first of `ranked`.

    Raises UsageError when the vocabulary has fewer tokens, or `always` more.
    """
    num_tokens, num_required = len(counts.counts), len(set(always))
    if not num_required <= num_kept <= num_tokens:
        limit = f"the vocabulary has {num_tokens:,}"
        if num_kept < num_required:
            limit = f"{num_required:,} of them are needed for ends and single bytes"
        raise UsageError(f"cannot keep {num_kept:,} tokens: {limit}", "give another --keep")
    return np.sort(ranked(counts, always)[:num_kept]).astype(np.int32)


def ranked(counts: TokenCounts, always: Collection[int]) -> NDArray[np.int64]:
    """All token ids, best to keep first: `always`, then the most frequent.

    Tokens that were never seen follow by id: a vocabulary made by merging pairs (byte-level BPE,
    SentencePiece's) numbers what was frequent in its own corpus first.
    """
    rank = counts.counts.astype(np.float64)
    rank[np.fromiter(always, dtype=np.int64)] = np.inf
    return np.argsort(-rank, kind="stable")
