"""Words that targets said, with counts: a count table for drafters of any vocabulary.

Text is cut where hardly any vocabulary joins tokens, so that the words, tokenized one by one, give
the tokens of the whole text but for a few in ten thousand. Thus one small table (50 KB) serves
every drafter, and no text has to be kept.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from edgespec.errors import UsageError
from edgespec.forms.counts import MAGIC, TokenCounts
from edgespec.vocab.tokenizer import ByteTokenizer

WORDS_FILE = "words.json.gz"
"""The table that comes with EdgeSpec, in `edgespec/forms/data`."""

_WORD = re.compile(
    r"\s*(?:[^\w\s]|_)?[^\W\d_]+"  # letters, with the space and one sign before: " the", "'s"
    r"|\s*\d"
    r"|\s*(?:[^\w\s]|_)+[\r\n]*"  # signs, with the line ends after them
    r"|\s+"
)


def split_words(text: str) -> list[str]:
    """Cut `text`; joined, the words are the text again.

    >>> split_words("It's 42, (I think).\\n\\nYes")
    ['It', "'s", ' 4', '2', ',', ' (I', ' think', ').\\n\\n', 'Yes']
    """
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class WordCounts:
    """How often each word was said, and where: `origin` is for people."""

    counts: Mapping[str, int]
    origin: str

    @staticmethod
    def of(texts: Iterable[str], origin: str) -> WordCounts:
        """Count the words of `texts`."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        return WordCounts(counts, origin)

    def in_tokens(
        self, tokenizer: ByteTokenizer, between: Callable[[], None] = lambda: None
    ) -> TokenCounts:
        """The counts in the tokens of a vocabulary; a quarter of a second for 10,000 words.

        `between` is called before each word, and may raise to end it.
        """
        counts = np.zeros(tokenizer.vocab.num_tokens, dtype=np.float32)
        for word, count in self.counts.items():
            between()
            for token in tokenizer.encode(word.encode("utf-8", "surrogatepass")).tokens:
                counts[token] += count
        return TokenCounts(tokenizer.fingerprint, counts, self.origin)

    def to_bytes(self) -> bytes:
        """A file's content: gzip over JSON, the same for the same counts."""
        value = {"origin": self.origin, "words": dict(sorted(self.counts.items()))}
        text = json.dumps(value, ensure_ascii=False, indent=0, separators=(",", ":"))
        return gzip.compress(text.encode(), mtime=0)

    @staticmethod
    def from_bytes(data: bytes) -> WordCounts:
        """Read `to_bytes` back."""
        value = json.loads(gzip.decompress(data))
        return WordCounts(value["words"], value["origin"])


@cache
def shipped_words() -> WordCounts:
    """What a target answered to prompts of our own (tools/counting makes it)."""
    return WordCounts.from_bytes(_shipped_bytes())


def shipped_words_id() -> str:
    """Names the table that comes with EdgeSpec, in 16 hexadecimal digits."""
    return hashlib.sha256(_shipped_bytes()).hexdigest()[:16]


def _shipped_bytes() -> bytes:
    return resources.files("edgespec.forms").joinpath("data", WORDS_FILE).read_bytes()


def read_counts(path: Path, tokenizer: ByteTokenizer) -> TokenCounts:
    """Counts in the tokens of a vocabulary, from a saved table (`TokenCounts.save`) or any text.

    Raises UsageError for a table of another vocabulary, and for what is neither; StorageError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read counts from {path}: {error.strerror or error}") from error
    if data.startswith(MAGIC):
        counts = TokenCounts.load(path)
        return counts.fitted(tokenizer.fingerprint, tokenizer.vocab.num_tokens)
    try:
        words = WordCounts.of([data.decode("utf-8-sig")], path.name)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is neither a table of counts nor text in UTF-8",
            "give text that a model wrote, or what --save-counts wrote",
        ) from error
    if not words.counts:
        raise UsageError(f"{path} is empty", "give text that a model wrote")
    return words.in_tokens(tokenizer)
