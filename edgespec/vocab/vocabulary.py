"""A vocabulary: what a model tells of it, its pieces, its special tokens, its fingerprint."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

_END_OF_TURN_NAMES = (
    b"<|im_end|>",
    b"<end_of_turn>",
    b"<turn|>",
    b"<|eot_id|>",
    b"<|eot|>",
    b"<|end|>",
    b"<|end_of_turn|>",
    b"<|END_OF_TURN_TOKEN|>",
    b"<|role_end|>",
    b"<|return|>",
    b"[|endofturn|]",
    b"<EOT>",
    b"</s>",
)
"""Names of end-of-turn tokens; the metadata of many files leaves the role out or gets it wrong."""


class Tokenizer(Protocol):
    """A model's own vocabulary; `edgespec.llama.vocabulary.Vocabulary` is one."""

    @property
    def num_tokens(self) -> int:
        """Ids run from 0 to this, exclusive."""
        ...

    @property
    def kind(self) -> str:
        """Family: "bpe" merges within words, "spm" (SentencePiece) merges over the whole text."""
        ...

    @property
    def bos(self) -> int | None:
        """Beginning-of-sequence token."""
        ...

    @property
    def eos(self) -> int | None:
        """End-of-sequence token."""
        ...

    @property
    def eot(self) -> int | None:
        """End-of-turn token, as far as the file tells."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends an answer."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; control tokens are empty unless `special`."""
        ...

    def pieces(self) -> list[bytes]:
        """The bytes of every token in id order, control tokens empty."""
        ...

    def tokenize(self, text: bytes) -> list[int]:
        """Token ids of valid UTF-8, no special tokens added or read."""
        ...


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


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of one vocabulary; None where it has none in that role.

    `ends` are all that end an answer, those of the two roles among them.
    """

    bos: int | None
    end_of_turn: int | None
    end_of_text: int | None
    ends: frozenset[int]

    @staticmethod
    def of(vocab: Tokenizer) -> SpecialTokens:
        """Read the roles of `vocab`: by well-known names first, then as the file tells."""
        ends = vocab.end_tokens
        names = {vocab.piece(token, special=True): token for token in sorted(ends, reverse=True)}
        known = (names[name] for name in _END_OF_TURN_NAMES if name in names)
        told = (token for token in (vocab.eot, vocab.eos, *sorted(ends)) if token is not None)
        turn = next(known, next(told, None))
        others = (token for token in (vocab.eos, vocab.eot, *sorted(ends)) if token is not None)
        text = next((token for token in others if token != turn), turn)
        return SpecialTokens(vocab.bos, turn, text, ends)

    def counterpart(self, token: int, other: SpecialTokens) -> int | None:
        """The token of `other` in the role that `token` has here; None for any other role."""
        if token == self.end_of_turn:
            return other.end_of_turn
        if token in self.ends:
            return other.end_of_text
        return None


def fingerprint(vocab: Tokenizer, table: PieceTable) -> str:
    """32 hex digits of a SHA-256 over kind, pieces, names of control tokens and ends.

    Nameless tokens at the end do not count: models of one family fill their vocabulary up to
    different sizes.
    """
    names = {
        token: vocab.piece(token, special=True)
        for token in range(len(table))
        if table.starts[token] == table.starts[token + 1]
    }
    num_named = len(table)
    while num_named and not names.get(num_named - 1, b"named"):
        num_named -= 1
    digest = hashlib.sha256(f"{vocab.kind} {num_named} {sorted(vocab.end_tokens)} ".encode())
    digest.update(table.starts[: num_named + 1].tobytes())
    digest.update(table.blob)
    for token, name in names.items():
        if token < num_named:
            digest.update(f"{token} {len(name)} ".encode() + name)
    return digest.hexdigest()[:32]
