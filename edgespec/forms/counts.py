"""How often a target says each token of a drafter's vocabulary, and which tokens to keep for it.

A table comes from text that targets wrote (VocabTrim, section 4: such text serves better than text
of people), in the tokens of the drafter's vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import StorageError, UsageError
from edgespec.files.sealed import read_sealed, write_sealed

MAGIC = b"edgespec counts 2\n"
_MOST_BYTES = 64 << 20
_REMEDY = "make it again"


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

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all; raises StorageError."""
        ids = np.flatnonzero(self.counts).astype(np.uint32)
        arrays = {"ids": ids, "counts": self.counts[ids], "num_tokens": np.array(len(self.counts))}
        about = {"vocabulary": self.fingerprint, "origin": self.origin}
        write_sealed(path, MAGIC, about, arrays)

    @staticmethod
    def load(path: Path) -> TokenCounts:
        """A table that was saved; raises StorageError if it is cut off or damaged."""
        about, arrays = read_sealed(path, MAGIC, _MOST_BYTES, _REMEDY)
        try:
            counts = np.zeros(int(arrays["num_tokens"]), dtype=np.float32)
            counts[arrays["ids"]] = arrays["counts"]
            return TokenCounts(str(about["vocabulary"]), counts, str(about["origin"]))
        except (KeyError, IndexError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error})", _REMEDY) from error


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
