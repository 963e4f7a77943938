"""Measure the byte bridge: guesses pulled for a proposed token, wrong proposals, time of a step.

    python scripts/measure_bridge.py TARGET.gguf DRAFTER.gguf TEXT TEXT...

Only the vocabularies are loaded. Each text stands for what the target says, and the drafter guesses
right: the rest of the text, in its own tokens. So whatever is wrong or late is the bridge's. The
n-gram cache is empty at first, or has followed the other texts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.llama.model import Model, ModelOptions
from edgespec.vocab.aligner import learn
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.translator import DraftTranslator

LEAST = (0.0, 0.5, 0.7, 0.8, 0.9, 0.97, 2.0)
"""Values of `min_estimate`; with the last every token is waited for."""

NUM_TOKENS = 3000
NUM_DRAFTED = 4
_STRIDE = 5
_REACH = 80  # bytes of text that a draft may span
_TIMED_FROM, _NUM_TIMED, _NUM_RUNS = 4000, 1000, 3
_NUM_GUESSES = 6

Pair = tuple[ByteTokenizer, ByteTokenizer]


@dataclass(slots=True)
class Counts:
    """Over all drafts: guesses pulled, before the first proposal and in all, and proposals."""

    drafts: int = 0
    pulled_first: int = 0
    pulled: int = 0
    proposed: int = 0
    early: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        first, each = self.pulled_first / self.drafts, self.pulled / self.proposed
        early, wrong = self.early / self.proposed, self.wrong / max(self.early, 1)
        return f"{first:5.2f} {each:8.2f} {early:8.2f} {wrong:8.3f}"


def follow(pair: Pair, tokens: Sequence[int], ngrams: NgramCache) -> Iterator[int]:
    """Say `tokens` one by one, learning as the model drafter does; yields how many were said."""
    reader = DrafterReader(*pair)
    for said, token in enumerate(tokens, 1):
        reader.extend([token])
        for stretch in reader.take_aligned():
            learn(ngrams, pair[0], stretch)
        if reader.can_draft:
            yield said


def draft(
    pair: Pair, rest: Sequence[int], ngrams: NgramCache, least: float, counts: Counts
) -> None:
    """One draft that begins where the target goes on with `rest`."""
    text = b"".join(map(pair[0].piece, rest))[:_REACH]
    translator = DraftTranslator(*pair, ngrams, least)
    pulled = proposed = 0
    for token in pair[1].encode(text).tokens:
        pulled += 1
        for bridged in translator.push(token, 1.0):
            is_early = bridged.kind == "ngram"
            counts.early += is_early
            counts.wrong += is_early and bridged.token != rest[proposed]
            if proposed == 0:
                counts.drafts += 1
                counts.pulled_first += pulled
            proposed += 1
            if bridged.token != rest[proposed - 1] or proposed == NUM_DRAFTED:
                counts.pulled += pulled
                counts.proposed += proposed
                return
        if translator.is_over:
            break
    counts.pulled += pulled
    counts.proposed += proposed


def measure_drafts(
    pair: Pair, texts: dict[str, list[int]], name: str, least: float, *, warm: bool
) -> Counts:
    """Drafts all over the text `name`, the cache empty at first or filled from the other texts."""
    ngrams, counts = NgramCache(), Counts()
    for other, tokens in texts.items():
        if warm and other != name:
            for _said in follow(pair, tokens, ngrams):
                pass
    tokens = texts[name]
    for said in follow(pair, tokens[: -2 * _REACH], ngrams):
        if said % _STRIDE == 0:
            draft(pair, tokens[said : said + _REACH], ngrams, least, counts)
    return counts


def measure_steps(pair: Pair, tokens: Sequence[int]) -> list[float]:
    """Milliseconds that the bridge takes of each step, from `_TIMED_FROM` tokens on, ascending.

    A step reads one token that the target kept, learns from it, and translates `_NUM_GUESSES`. The
    least of `_NUM_RUNS` counts: all do the same, and what takes longer was interrupted.
    """
    runs = [_time_steps(pair, tokens)[_TIMED_FROM:] for _ in range(_NUM_RUNS)]
    return sorted(map(min, zip(*runs, strict=True)))


def _time_steps(pair: Pair, tokens: Sequence[int]) -> list[float]:
    ngrams, reader = NgramCache(), DrafterReader(*pair)
    translator = DraftTranslator(*pair, ngrams)
    times = []
    for index, token in enumerate(tokens):
        rest = b"".join(map(pair[0].piece, tokens[index + 1 : index + 1 + _REACH]))[:_REACH]
        guesses = pair[1].encode(rest).tokens[:_NUM_GUESSES]
        started = time.perf_counter()
        reader.extend([token])
        for stretch in reader.take_aligned():
            learn(ngrams, pair[0], stretch)
        translator.start()
        for guess in guesses:
            translator.push(guess, 0.9)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def main(target: Path, drafter: Path, files: Sequence[Path]) -> None:
    """Print what the bridge takes and misses for one pair."""
    options = ModelOptions(vocabulary_only=True)
    with Model(target, options) as one, Model(drafter, options) as other:
        pair = ByteTokenizer(one.vocab), ByteTokenizer(other.vocab)
        whole = {path.name: pair[0].encode(path.read_bytes()).tokens for path in files}
        texts = {name: tokens[:NUM_TOKENS] for name, tokens in whole.items()}
        for name in texts:
            print(f"{name}:\nleast cache first    each     early    wrong")
            for least in LEAST:
                for warm in (False, True):
                    counts = measure_drafts(pair, texts, name, least, warm=warm)
                    print(f"{least:5.2f} {'other' if warm else 'empty'} {counts}")
        for name, tokens in whole.items():
            if len(tokens) >= _TIMED_FROM + _NUM_TIMED:
                times = measure_steps(pair, tokens[: _TIMED_FROM + _NUM_TIMED])
                late = times[int(len(times) * 0.99)]
                median, worst = statistics.median(times), times[-1]
                print(f"{name}: p50 {median:.3f} p99 {late:.3f} worst {worst:.3f} ms a step")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
