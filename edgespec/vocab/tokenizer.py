"""A vocabulary as the bridge needs it: any bytes to tokens and back, none lost.

A tokenizer reads text. What a model says is bytes: half a character, bytes that never become one,
letters that the vocabulary spells otherwise. `ByteTokenizer` reads those too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from edgespec.vocab.boundaries import Boundaries
from edgespec.vocab.vocabulary import PieceTable, SpecialTokens, Tokenizer, fingerprint

_SPACE_MARK = "▁".encode()
"""How SentencePiece writes a space, so that this letter itself comes back as one."""

_UNLIKELY = ("\U0010fffd", "\U000ffffd", "\uf8ff", "\x01")
"""Letters of which hardly any vocabulary has a token."""


@dataclass(slots=True)
class Encoded:
    """Tokens and, for each, the number of bytes up to its end."""

    tokens: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def append(self, token: int, end: int) -> None:
        """Add one token that ends at byte `end`."""
        self.tokens.append(token)
        self.ends.append(end)


class ByteTokenizer:
    """Reads any bytes with one vocabulary and loses none that it can spell.

    Valid UTF-8 is tokenized as llama.cpp does, without the space that some SentencePiece
    vocabularies put before a text (`add_space_prefix`): each text is read as a continuation.
    Invalid bytes, and SentencePiece's own mark for a space, become single-byte tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer` stays in use and must stay open."""
        self.vocab = tokenizer

    @cached_property
    def table(self) -> PieceTable:
        """The bytes of every token."""
        return PieceTable(self.vocab.pieces())

    @cached_property
    def boundaries(self) -> Boundaries:
        """Where a text may be cut so that both parts are tokenized as in the whole."""
        return Boundaries(self.table, merges_across_words=self.vocab.kind == "spm")

    @cached_property
    def specials(self) -> SpecialTokens:
        """Special tokens by role."""
        return SpecialTokens.of(self.vocab)

    @cached_property
    def fingerprint(self) -> str:
        """Names the vocabulary: equal for equal ids, pieces and roles."""
        return fingerprint(self.vocab, self.table)

    def piece(self, token: int) -> bytes:
        """The bytes of one token; empty for control and unused tokens and ids out of range."""
        return self.table[token] if 0 <= token < len(self.table) else b""

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes that `tokens` spell."""
        return b"".join(map(self.piece, tokens))

    def encode(self, data: bytes) -> Encoded:
        """Tokens that spell `data`; a byte without any token is left out."""
        encoded = Encoded()
        for start, end, is_text in self._spans(data):
            if is_text:
                self._read(data[start:end], start, encoded)
            else:
                self._spell(data[start:end], start, encoded)
        return encoded

    def _spans(self, data: bytes) -> Iterator[tuple[int, int, bool]]:
        """Cut `data` into (start, end, whether the tokenizer can read it)."""
        start = 0
        while start < len(data):
            try:
                data[start:].decode()
            except UnicodeDecodeError as error:
                yield from self._marks(data, start, start + error.start)
                yield start + error.start, start + error.end, False
                start += error.end
            else:
                yield from self._marks(data, start, len(data))
                return

    def _marks(self, data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cut out the mark for a space where the vocabulary has one."""
        while self._has_space_mark and (mark := data.find(_SPACE_MARK, start, end)) >= 0:
            if mark > start:
                yield start, mark, True
            start = mark + len(_SPACE_MARK)
            yield mark, start, False
        if start < end:
            yield start, end, True

    def _read(self, text: bytes, offset: int, encoded: Encoded) -> None:
        """Tokenize valid UTF-8; where the tokens spell something else, go on from there."""
        start = 0
        while start < len(text):
            position = start
            for token in self._continue(text[start:] if start else text):
                piece = self.piece(token)
                if not piece or not text.startswith(piece, position):
                    break
                position += len(piece)
                encoded.append(token, offset + position)
            if position == start:
                position += _letter_size(text[start])
                self._spell(text[start:position], offset + start, encoded)
            start = position

    def _continue(self, text: bytes) -> list[int]:
        """The vocabulary's own tokens of `text` without any space put before it."""
        if not self._lead:
            return self.vocab.tokenize(text)
        return self.vocab.tokenize(self._lead + text)[self._num_lead_tokens :]

    def _spell(self, data: bytes, offset: int, encoded: Encoded) -> None:
        for index, byte in enumerate(data, offset + 1):
            token = self.table.byte_tokens.get(byte)
            if token is not None:
                encoded.append(token, index)

    @cached_property
    def _has_space_mark(self) -> bool:
        return _SPACE_MARK not in self.decode(self.vocab.tokenize(_SPACE_MARK))

    @cached_property
    def _lead(self) -> bytes:
        """A letter that takes the space before a text upon itself; empty where none comes.

        No token holds this letter, so that nothing of the text behind it can merge with it.
        """
        if self.decode(self.vocab.tokenize(b"a")) == b"a":
            return b""
        for letter in _UNLIKELY:
            lead = letter.encode()
            alone, with_text = self.vocab.tokenize(lead), self.vocab.tokenize(lead + b"a")
            is_prefix = with_text[: len(alone)] == alone
            rest = self.decode(with_text[len(alone) :])
            if is_prefix and rest == b"a" and lead not in self.table.blob:
                return lead
        return b""

    @cached_property
    def _num_lead_tokens(self) -> int:
        return len(self.vocab.tokenize(self._lead))


def _letter_size(first: int) -> int:
    """Bytes of the UTF-8 letter that begins with byte `first`."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def num_unfinished(data: bytes) -> int:
    """Bytes at the end of `data` that may become a character: 0 to 3.

    >>> num_unfinished("é".encode()[:1]), num_unfinished(b"\\xff"), num_unfinished(b"a")
    (1, 0, 0)
    """
    for size in range(1, min(3, len(data)) + 1):
        if data[-size] >= 0xC0:
            try:
                data[-size:].decode()
            except UnicodeDecodeError as error:
                return size if error.reason == "unexpected end of data" else 0
            return 0
        if data[-size] < 0x80:
            return 0
    return 0
