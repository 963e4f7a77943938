"""Small but real vocabularies: byte-level BPE as in GPT-2, and SentencePiece with byte fallback.

Both learn their merges from one page of text, by joining the most frequent neighbours again and
again (Sennrich et al. 2016), and both can write any text, since every byte has a token.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from gguf import TokenType

from tiny_models.corpus import CORPUS
from tiny_models.spec import VocabularyKind

_BPE_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SPM_CONTROL = ("<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>")
_NUM_BYTES = 256

# Near enough to what llama.cpp's pre-tokenizer "qwen2" cuts; a merge it never meets does no harm.
_BPE_WORD = re.compile(r" ?[^\W\d_]+|\d| ?[^\s\w]+|\s*\n|\s+|.")
_SPM_WORD = re.compile("▁?[^▁\n]+|▁+(?=▁)|▁+")

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role'])"
    " + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens in id order, with what llama.cpp needs to know of each.

    `texts` are as the file stores them (BPE: bytes mapped to letters; SentencePiece: a space is ▁).
    `types` are gguf.TokenType numbers. SentencePiece ranks by `scores`, highest first, BPE by the
    order of `merges`; the other is empty. `eos` ends a turn.
    """

    kind: VocabularyKind
    texts: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    bos: int
    eos: int
    chat_template: str

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; those of its name for a control or unused token."""
        text = self.texts[token]
        if self.types[token] == TokenType.BYTE:
            return bytes([int(text[3:5], 16)])
        if self.types[token] != TokenType.NORMAL:
            return text.encode("utf-8")
        if self.kind == "spm":
            return text.replace("▁", " ").encode("utf-8")
        return bytes(_letter_bytes()[letter] for letter in text)


def byte_letters() -> tuple[str, ...]:
    """GPT-2's letter for each byte, so that any bytes are text without spaces or controls.

    >>> byte_letters()[0x41], byte_letters()[0x20]
    ('A', 'Ġ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(_NUM_BYTES, 2 * _NUM_BYTES))
    return tuple(
        chr(byte) if byte in printable else chr(next(others)) for byte in range(_NUM_BYTES)
    )


@cache
def _letter_bytes() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def learn_merges(words: Iterable[str], num_new: int) -> list[tuple[str, str]]:
    """Pairs to join, in order, until `num_new` different texts came about or no pair recurs.

    >>> learn_merges(["abc", "abd", "abc"], 2)
    [('a', 'b'), ('ab', 'c')]
    """
    counts = Counter(words)
    split = [list(word) for word in counts]
    weights = list(counts.values())
    merges: list[tuple[str, str]] = []
    joined: set[str] = set()
    while len(joined) < num_new:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, weight in zip(split, weights, strict=True):
            for pair in pairwise(parts):
                pairs[pair] += weight
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        joined.add("".join(best))
        for parts in split:
            _join(parts, best)
    return merges


def _join(parts: list[str], pair: tuple[str, str]) -> None:
    """Replace every occurrence of `pair` in `parts`, left to right, in place."""
    index = 0
    while index + 1 < len(parts):
        if (parts[index], parts[index + 1]) == pair:
            parts[index : index + 2] = ["".join(pair)]
        index += 1


def _pad(texts: list[str], types: list[int], num_vocab: int) -> None:
    """Fill up to `num_vocab` with unused tokens."""
    missing = num_vocab - len(texts)
    texts.extend(f"<unused{index}>" for index in range(missing))
    types.extend([int(TokenType.UNUSED)] * missing)


def _build_bpe(num_vocab: int) -> Vocabulary:
    letters = byte_letters()
    words = (
        "".join(letters[byte] for byte in word.encode("utf-8"))
        for word in _BPE_WORD.findall(CORPUS)
    )
    merges = learn_merges(words, num_vocab - _NUM_BYTES - len(_BPE_CONTROL))
    texts = list(letters) + list(dict.fromkeys("".join(pair) for pair in merges))
    types = [int(TokenType.NORMAL)] * len(texts)
    texts += _BPE_CONTROL
    types += [int(TokenType.CONTROL)] * len(_BPE_CONTROL)
    ids = {text: index for index, text in enumerate(texts)}
    _pad(texts, types, num_vocab)
    return Vocabulary(
        kind="bpe",
        texts=tuple(texts),
        types=tuple(types),
        scores=(),
        merges=tuple(" ".join(pair) for pair in merges),
        bos=ids["<|endoftext|>"],
        eos=ids["<|im_end|>"],
        chat_template=CHATML_TEMPLATE,
    )


def _build_spm(num_vocab: int) -> Vocabulary:
    text = CORPUS.replace(" ", "▁")
    letters = sorted({*string.ascii_letters, *string.digits, *text} - {"\n"})
    texts = [*_SPM_CONTROL, *(f"<0x{byte:02X}>" for byte in range(_NUM_BYTES))]
    merges = learn_merges(_SPM_WORD.findall(text), num_vocab - len(texts) - len(letters))
    pieces = list(dict.fromkeys("".join(pair) for pair in merges)) + letters
    types = [int(TokenType.UNKNOWN)] + [int(TokenType.CONTROL)] * (len(_SPM_CONTROL) - 1)
    types += [int(TokenType.BYTE)] * _NUM_BYTES + [int(TokenType.NORMAL)] * len(pieces)
    num_unranked = len(texts)
    texts += pieces
    _pad(texts, types, num_vocab)
    scores = [0.0] * num_unranked + [-float(rank) for rank in range(num_vocab - num_unranked)]
    return Vocabulary(
        kind="spm",
        texts=tuple(texts),
        types=tuple(types),
        scores=tuple(scores),
        merges=(),
        bos=texts.index("<s>"),
        eos=texts.index("</s>"),
        chat_template=GEMMA_TEMPLATE,
    )


@cache
def build_vocabulary(kind: VocabularyKind, num_vocab: int) -> Vocabulary:
    """The vocabulary of `num_vocab` tokens; what the text cannot fill are unused ones."""
    return _build_bpe(num_vocab) if kind == "bpe" else _build_spm(num_vocab)
