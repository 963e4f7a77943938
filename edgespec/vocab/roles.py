"""Special tokens by role: what ends a turn in one vocabulary ends it in the other."""

from __future__ import annotations

from dataclasses import dataclass
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


class SpecialVocabulary(Protocol):
    """What a vocabulary tells of its special tokens."""

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
        """The bytes of one token; the name of a control token if `special`."""
        ...


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
    def of(vocab: SpecialVocabulary) -> SpecialTokens:
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
