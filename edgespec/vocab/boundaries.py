"""Where a text may be cut so that the tokens of both parts are the tokens of the whole.

Merging tokenizers join neighbours into longer tokens of the vocabulary, so no token, and no step
on the way to one, crosses a place where the bytes on both sides stand together in no token at all.
Of each such place only the two bytes before and the two after are looked at: `_KEY_BYTES` on each
side of every inner character boundary of every token are known; bytes not among them never join.

SentencePiece (llama.cpp's `llm_tokenizer_spm_session`) merges by score over the whole text, so that
is all. Byte-level BPE first cuts the text into words with a regular expression, left to right and
without looking back; there the place must also end a word in every such expression that llama.cpp
knows, whatever follows: anything before a space, and a letter before punctuation or white space.
The apostrophe does not count (contractions).
"""

from __future__ import annotations

import unicodedata
from array import array
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from edgespec.vocab.vocabulary import PieceTable

_KEY_BYTES = 2


class Boundaries:
    """Finds safe cuts for one vocabulary."""

    def __init__(self, table: PieceTable, *, merges_across_words: bool) -> None:
        """`merges_across_words` is true for SentencePiece, false for byte-level BPE."""
        self._merges_across_words = merges_across_words
        self._joined = array("q", _joined_keys(table).tobytes())

    def last(self, text: bytes) -> int:
        """The last safe cut inside `text` that stays one whatever follows; 0 if there is none."""
        for position in range(len(text) - _KEY_BYTES, 0, -1):
            if text[position] & 0xC0 != 0x80 and self.is_safe(text, position):
                return position
        return 0

    def is_safe(self, text: bytes, position: int) -> bool:
        """True if `text`, and any text that begins with it, may be cut before byte `position`.

        Needs `position` to begin a character and two bytes from there on.
        """
        if not self._merges_across_words and not _ends_word(text, position):
            return False
        return not any(
            self._is_joined(text[position - before : position], text[position : position + after])
            for before in range(1, min(_KEY_BYTES, position) + 1)
            for after in range(1, _KEY_BYTES + 1)
        )

    def _is_joined(self, before: bytes, after: bytes) -> bool:
        key = _key(before, after)
        index = bisect_left(self._joined, key)
        return index < len(self._joined) and self._joined[index] == key


def _ends_word(text: bytes, position: int) -> bool:
    before, after = _letter_before(text, position), _letter_at(text, position)
    if not before or not after or before.isspace():
        return False
    if after == " ":
        return True
    return (
        before.isalpha()
        and after != "'"
        and (after.isspace() or unicodedata.category(after)[0] in "PS")
    )


def _letter_before(text: bytes, position: int) -> str:
    start = position - 1
    while start > max(0, position - 4) and text[start] & 0xC0 == 0x80:
        start -= 1
    return text[start:position].decode(errors="ignore")


def _letter_at(text: bytes, position: int) -> str:
    return text[position : position + 4].decode(errors="ignore")[:1]


def _key(before: bytes, after: bytes) -> int:
    """Up to two bytes on each side, and how many, as one number."""
    packed = int.from_bytes(before, "big") << 16 | int.from_bytes(after, "big")
    return packed << 2 | (len(before) - 1) << 1 | (len(after) - 1)


def _joined_keys(table: PieceTable) -> NDArray[np.int64]:
    """Sorted keys of every character boundary inside a token: what `_key` gives there."""
    blob = np.frombuffer(table.blob, dtype=np.uint8).astype(np.int64)
    starts = np.frombuffer(table.starts, dtype=np.int32).astype(np.int64)
    lengths = np.diff(starts)
    offsets = np.arange(len(blob)) - np.repeat(starts[:-1], lengths)
    inner = np.flatnonzero((offsets > 0) & (blob & 0xC0 != 0x80))
    num_before = np.minimum(offsets[inner], _KEY_BYTES)
    num_after = np.minimum(np.repeat(lengths, lengths)[inner] - offsets[inner], _KEY_BYTES)
    before = blob[inner - 1] + np.where(num_before == 2, blob[inner - 2] << 8, 0)
    # A token's last character boundary may be its last byte: then there is no byte after it.
    following = blob[np.minimum(inner + 1, len(blob) - 1)] if len(blob) else blob
    after = np.where(num_after == 2, blob[inner] << 8 | following, blob[inner])
    return np.unique((before << 16 | after) << 2 | (num_before - 1) << 1 | (num_after - 1))
