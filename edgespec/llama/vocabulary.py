"""A model's vocabulary as bytes: every token is a byte string, every text is bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

from edgespec.llama.library import api

VocabularyKind = Literal["none", "spm", "bpe", "wpm", "ugm", "rwkv", "plamo2", "test"]

_KINDS: tuple[VocabularyKind, ...] = (
    "none",
    "spm",
    "bpe",
    "wpm",
    "ugm",
    "rwkv",
    "plamo2",
    "test",
)  # in the order of enum llama_vocab_type

_SEPARATOR = b"\xff"
_FIRST_TOKENS = 1024
"""Single bytes are among the first tokens of every vocabulary that has them."""


class Vocabulary:
    """Tokenizes and renders with the tokenizer inside the GGUF; valid while its model is open."""

    def __init__(self, handle: object) -> None:
        """`handle` is the `const llama_vocab *` of an open model."""
        self._handle = handle
        self.num_tokens = int(api.llama_vocab_n_tokens(handle))
        self._pieces: dict[int, bytes] = {}

    @property
    def handle(self) -> object:
        """The `const llama_vocab *`, for the samplers."""
        return self._handle

    @property
    def kind(self) -> VocabularyKind:
        """Tokenizer family: "bpe" is byte-level BPE, "spm" SentencePiece with byte fallback."""
        return _KINDS[int(api.llama_vocab_type(self._handle))]

    @property
    def bos(self) -> int | None:
        """Beginning-of-sequence token, or None."""
        return _token_or_none(api.llama_vocab_bos(self._handle))

    @property
    def eos(self) -> int | None:
        """End-of-sequence token, or None."""
        return _token_or_none(api.llama_vocab_eos(self._handle))

    @property
    def eot(self) -> int | None:
        """End-of-turn token, or None where llama.cpp knows of none besides end of sequence."""
        return _token_or_none(api.llama_vocab_eot(self._handle))

    @property
    def infill(self) -> tuple[int, int, int] | None:
        """Tokens before what is before a gap, what is after it, and what fills it, or None."""
        found = tuple(
            int(find(self._handle))
            for find in (
                api.llama_vocab_fim_pre,
                api.llama_vocab_fim_suf,
                api.llama_vocab_fim_mid,
            )
        )
        return (found[0], found[1], found[2]) if min(found) >= 0 else None

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends an answer: end of sequence, of turn, of message."""
        return frozenset(
            token for token in range(self.num_tokens) if api.llama_vocab_is_eog(self._handle, token)
        )

    def is_end(self, token: int) -> bool:
        """True if `token` ends an answer (llama_vocab_is_eog)."""
        return bool(api.llama_vocab_is_eog(self._handle, token))

    def is_control(self, token: int) -> bool:
        """True if `token` is a control token: it has a role and no text."""
        return bool(api.llama_vocab_is_control(self._handle, token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; control tokens are empty unless `special`.

        Raises ValueError for an id outside the vocabulary.
        """
        if not 0 <= token < self.num_tokens:
            raise ValueError(f"token {token} is outside the vocabulary of {self.num_tokens}")
        if special:
            return self._render(token, special=True)
        if token not in self._pieces:
            self._pieces[token] = self._render(token, special=False)
        return self._pieces[token]

    def pieces(self) -> list[bytes]:
        """The bytes of every token in id order, as `piece` gives them.

        All are rendered by one call with a separator between them, 20 times faster than one by
        one, where the vocabulary has a token for the byte 0xFF, which no UTF-8 contains.
        """
        rendered = self._render_all()
        return rendered if rendered is not None else list(map(self.piece, range(self.num_tokens)))

    def tokenize(
        self, text: bytes, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of `text` (llama_tokenize).

        `add_special` adds the tokens that the model wants around a sequence; `parse_special` reads
        the text of control tokens as those tokens.
        """
        capacity = len(text) + 8
        while True:
            buffer = (ctypes.c_int32 * capacity)()
            count = int(
                api.llama_tokenize(
                    self._handle, text, len(text), buffer, capacity, add_special, parse_special
                )
            )
            if count >= 0:
                return buffer[:count]
            capacity = -count

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """The bytes of `tokens` one after another, control tokens left out."""
        return b"".join(map(self.piece, tokens))

    def _render_all(self) -> list[bytes] | None:
        """Every piece by llama_detokenize, or None where that would not be exact."""
        near = range(min(self.num_tokens, _FIRST_TOKENS))
        separator = next((token for token in near if self.piece(token) == _SEPARATOR), None)
        if separator is None:
            return None
        others = [token for token in range(self.num_tokens) if token != separator]
        pieces = self._join([separator, *_between(others, separator)]).split(_SEPARATOR)[1:-1]
        # The count differs where another token holds the byte; llama_detokenize may also "clean
        # up" spaces before punctuation, as some vocabularies ask for.
        if len(pieces) != len(others) or self._cleans_spaces(separator):
            return None
        pieces.insert(separator, _SEPARATOR)
        return pieces

    def _cleans_spaces(self, separator: int) -> bool:
        tokens = self.tokenize(b"a ? a")
        return b"a ? a" not in self._join([separator, *tokens])

    def _join(self, tokens: Sequence[int]) -> bytes:
        count = len(tokens)
        ids = (ctypes.c_int32 * count)(*tokens)
        size = 8 * count + 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = int(api.llama_detokenize(self._handle, ids, count, buffer, size, False, False))
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _render(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = int(api.llama_token_to_piece(self._handle, token, buffer, size, 0, special))
            if length >= 0:
                return buffer.raw[:length]
            size = -length


def _between(tokens: Sequence[int], separator: int) -> Iterator[int]:
    for token in tokens:
        yield token
        yield separator


def _token_or_none(token: int) -> int | None:
    return int(token) if token >= 0 else None
