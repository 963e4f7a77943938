"""Names a vocabulary, so that what was learned of it serves every model that has it."""

from __future__ import annotations

import hashlib
from typing import Protocol

from edgespec.vocab.pieces import PieceTable


class NamedVocabulary(Protocol):
    """What a fingerprint reads besides the pieces."""

    @property
    def kind(self) -> str:
        """Tokenizer family."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends an answer."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; the name of a control token if `special`."""
        ...


def fingerprint(vocab: NamedVocabulary, table: PieceTable) -> str:
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
