"""Small vocabularies in plain Python, tokenized as the two families are, by their definitions.

`bpe`: the text is cut into words by a regular expression, and within a word the earliest token of
the list that two neighbours form is joined first (byte-level, as GPT-2). Invalid UTF-8 is replaced,
as llama.cpp does. `spm`: neighbours anywhere in the text, character by character, a space being ▁,
and bytes where no token is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

_WORD = re.compile(r"'(?:[stmd]|re|ve|ll)|[^\r\n\w]?[^\W\d_]+|\d| ?[^\s\w]+[\r\n]*|\s+(?!\S)|\s+|_")
CONTROL = (b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>")


@dataclass(frozen=True)
class ToyVocabulary:
    """Ids: three control tokens, one empty token, 256 bytes, then `words` by rank.

    `space_prefix` puts a space before a text, as SentencePiece does for Llama 2. `missing` bytes
    have no token.
    """

    kind: str
    words: tuple[bytes, ...]
    space_prefix: bool = False
    missing: frozenset[int] = frozenset()
    end_names: tuple[bytes, ...] = CONTROL
    calls: list[bytes] = field(default_factory=list, compare=False)

    @property
    def bos(self) -> int | None:
        return 1

    @property
    def eos(self) -> int | None:
        return 0

    @property
    def eot(self) -> int | None:
        return None

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({0, 2})

    @cached_property
    def _pieces(self) -> list[bytes]:
        singles = [b"" if byte in self.missing else bytes([byte]) for byte in range(256)]
        return [b"", b"", b"", b"", *singles, *self.words]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        # Of equal pieces the first is what the tokenizer says; the other can still be said.
        ids: dict[bytes, int] = {}
        for token, piece in enumerate(self._pieces):
            ids.setdefault(piece, token)
        return ids

    @property
    def num_tokens(self) -> int:
        return len(self._pieces)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self.end_names[token] if special and token < 3 else self._pieces[token]

    def pieces(self) -> list[bytes]:
        return list(self._pieces)

    def tokenize(self, text: bytes) -> list[int]:
        self.calls.append(text)
        if self.kind == "spm":
            return self._merge_characters(text)
        words = _WORD.findall(text.decode(errors="replace"))
        return [token for word in words for token in self._merge(_bytes_of(word.encode()))]

    def _merge_characters(self, text: bytes) -> list[int]:
        marked = text.decode(errors="surrogateescape").replace("▁", " ")
        prefix = " " if self.space_prefix and text else ""
        parts = [
            letter.encode(errors="surrogateescape").replace(b"\xe2\x96\x81", b" ")
            for letter in prefix + marked
        ]
        return self._merge(parts)

    def _merge(self, parts: Sequence[bytes]) -> list[int]:
        merged = list(parts)
        while True:
            ranks = [
                (self._ids[left + right], index)
                for index, (left, right) in enumerate(pairwise(merged))
                if left + right in self._ids
            ]
            if not ranks:
                break
            _rank, index = min(ranks)
            merged[index : index + 2] = [merged[index] + merged[index + 1]]
        tokens: list[int] = []
        for part in merged:
            whole = [self._ids[part]] if part in self._ids else None
            tokens += whole or [self._ids[b] for b in _bytes_of(part) if b in self._ids]
        return tokens


def _bytes_of(text: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in text]


def _grow(words: str) -> tuple[bytes, ...]:
    """Every word's beginnings, shortest first, so that merges reach the whole word."""
    letters = [word.replace("_", " ") for word in words.split("|")]
    found = {word[:size]: None for word in letters for size in range(2, len(word) + 1)}
    return tuple(sorted((text.encode() for text in found), key=len))


BPE_WORDS = _grow(
    "_the|_low|lower|_lowest|token|tokenizer|_is|ing|th|é|über|龍|龍河|..|();|\n\n|__"
)
OTHER_WORDS = _grow("the|_lo|_lowering|_token|izer|izers|is|_in|ü|河|水|🙂|.\n|__|____|'s")

TOYS: dict[str, Callable[[], ToyVocabulary]] = {
    "bpe": lambda: ToyVocabulary("bpe", BPE_WORDS),
    "bpe-other": lambda: ToyVocabulary("bpe", OTHER_WORDS),
    "bpe-odd": lambda: ToyVocabulary(
        "bpe", (*OTHER_WORDS[:20], b"", b"the", b"the", *BPE_WORDS), missing=frozenset({0xC0, 0xFF})
    ),
    "spm": lambda: ToyVocabulary("spm", OTHER_WORDS, space_prefix=True),
    "spm-bare": lambda: ToyVocabulary("spm", BPE_WORDS[::2] + OTHER_WORDS[1::2]),
}
"""Makers of toy vocabularies by name; "bpe-odd" has empty and duplicate pieces, and lacks bytes."""
