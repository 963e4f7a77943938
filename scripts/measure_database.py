"""Measure the token database at size: look-ups, opening, recording, bytes a token.

    python scripts/measure_database.py MODEL.gguf FOLDER_OF_TEXT DATABASE [NUM_TOKENS]

Text files below the folder, in an order of chance, are cut into turns of 500 tokens and recorded.
Every tenth file is not: what is looked up comes from these (new text) and from the others (text
seen before). A database that is there already is used as it is.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from edgespec.cache.database import connect, open_database, transaction
from edgespec.cache.tokens.sequences import MAX_CONTEXT, Recording, SequenceStore, VocabularyKey
from edgespec.cache.tokens.suffix_lookup import TokenReader
from edgespec.cache.tokens.text_files import find_files, read_text
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.drafters.database import DatabaseDrafter
from edgespec.llama.model import Model, ModelOptions

TURN = 500
NUM_TIMED = 2000
NUM_COLD = 60
_VOCABULARY = "measured"
_CACHE_BYTES = 16 << 20


class Corpus:
    """Text files as tokens, in an order of chance that is always the same."""

    def __init__(self, folder: Path, model: Model) -> None:
        self._files = [found.path for found in find_files([folder])]
        random.Random(1).shuffle(self._files)
        self._model = model

    def turns(self, *, recorded: bool) -> Iterator[tuple[list[int], list[int]]]:
        """Turns and the tokens before them, of the files that are recorded or of the others."""
        for number, path in enumerate(self._files):
            if (number % 10 != 0) == recorded:
                tokens = self._tokens(path)
                for start in range(0, len(tokens) - TURN, TURN):
                    yield tokens[start : start + TURN], tokens[max(start - MAX_CONTEXT, 0) : start]

    def _tokens(self, path: Path) -> list[int]:
        text = read_text(path)
        return self._model.vocab.tokenize(text[:200_000]) if text else []


def fill(path: Path, corpus: Corpus, vocabulary: VocabularyKey, num_tokens: int) -> None:
    """Record `num_tokens` tokens, a hundred turns at once."""
    with open_database(path), closing(connect(path, 5.0, 256 << 20)) as connection:
        store = SequenceStore(connection)
        scope = store.scope(vocabulary, "model")
        turns = islice(corpus.turns(recorded=True), num_tokens // TURN)
        while some := list(islice(turns, 100)):
            with transaction(connection):
                for tokens, context in some:
                    store.add(scope, Recording(tokens, context))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def report(name: str, times_ms: Sequence[float]) -> None:
    """Print median, 99th percentile and worst of some times."""
    ordered = sorted(times_ms)
    late = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    print(
        f"{name:<52} p50 {statistics.median(ordered):8.3f}  p99 {late:8.3f}"
        f"  worst {ordered[-1]:8.3f} ms  ({len(ordered)})"
    )


def timed(act: Callable[[], object]) -> float:
    """Milliseconds that `act` takes."""
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1e3


def drop_from_memory(path: Path) -> None:
    """Have the system forget what it keeps of the file, so that the next read is from disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def suffixes(turns: Iterator[tuple[list[int], list[int]]], count: int) -> list[list[int]]:
    """Ends of text to look up: a place of chance in each of some turns spread over the corpus."""
    stream = random.Random(2)
    found = []
    for tokens, _context in turns:
        if stream.random() < 0.3:
            end = stream.randrange(MAX_CONTEXT, len(tokens))
            found.append(tokens[end - MAX_CONTEXT : end])
        if len(found) == count:
            break
    return found


def measure_lookups(
    path: Path, vocabulary: VocabularyKey, texts: dict[str, list[list[int]]]
) -> None:
    """Warm and cold look-ups, and what a guess of the drafter takes."""
    with closing(connect(path, 1.0, _CACHE_BYTES)) as connection:
        reader = TokenReader(connection, vocabulary, "model")
        nothing = TokenReader(connection, VocabularyKey("nobody", 1), "statistics")
        for name, some in texts.items():
            for suffix in some:
                reader.lookup(suffix)  # brings what it needs into memory
            times = [timed(partial(reader.lookup, suffix)) for suffix in some]
            report(f"look-up, {name}, warm", times)
            measure_guesses(name, reader, nothing, some)
    for name, some in texts.items():
        times = []
        for suffix in some[:NUM_COLD]:
            drop_from_memory(path)
            with closing(connect(path, 1.0, _CACHE_BYTES)) as connection:
                reader = TokenReader(connection, vocabulary, "model")
                reader.lookup([0, 0])  # the schema is read once, at the start
                times.append(timed(partial(reader.lookup, suffix)))
        report(f"look-up, {name}, cold", times)


def measure_guesses(
    name: str, reader: TokenReader, nothing: TokenReader, some: list[list[int]]
) -> None:
    """What a whole draft of up to 15 tokens takes, with an empty second tier."""
    drafter = DatabaseDrafter([reader, nothing])
    drafts, guesses = [], 0
    for suffix in some:
        drafter.begin(suffix)
        started = time.perf_counter()
        guesses += len(list(islice(drafter.propose(), 15)))
        drafts.append((time.perf_counter() - started) * 1e3)
    report(f"draft, {name}, {guesses / len(some):.1f} tokens on average", drafts)


def measure_opening(path: Path, vocabulary: VocabularyKey) -> None:
    """Opening for a chat, up to the first look-up."""

    def open_all() -> None:
        with open_database(path) as database:
            memory = open_token_memory(database, vocabulary)
            assert memory is not None
            with memory:
                memory.model.lookup([1, 2, 3])

    times = [timed(open_all) for _ in range(20)]
    report("open, first look-up, close, warm", times)
    cold = []
    for _ in range(20):
        drop_from_memory(path)
        cold.append(timed(open_all))
    report("open, first look-up, close, cold", cold)


def measure_recording(
    path: Path, vocabulary: VocabularyKey, turns: Iterator[tuple[list[int], list[int]]]
) -> None:
    """A turn of 500 tokens in a transaction of its own, then what the checkpoint takes."""
    with closing(connect(path, 5.0, 8 << 20)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        store = SequenceStore(connection)
        scope = store.scope(vocabulary, "model")
        record, checkpoint = [], []
        for tokens, context in islice(turns, 60):
            recording = Recording(tokens, context)
            record.append(timed(partial(store.record, scope, recording)))
            checkpoint.append(
                timed(lambda: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())
            )
        report("record 500 tokens", record)
        report("checkpoint after it", checkpoint)


def main(arguments: Sequence[str]) -> None:
    """Fill if need be, then measure everything."""
    model_path, folder, path = (Path(argument) for argument in arguments[:3])
    num_tokens = int(arguments[3]) if len(arguments) > 3 else 5_000_000
    with Model(model_path, ModelOptions(vocabulary_only=True)) as model:
        corpus = Corpus(folder, model)
        vocabulary = VocabularyKey(_VOCABULARY, model.vocab.num_tokens)
        if not path.exists():
            took = timed(lambda: fill(path, corpus, vocabulary, num_tokens))
            print(f"filled in {took / 1e3:.0f} s")
        with closing(connect(path, 5.0, _CACHE_BYTES)) as connection:
            [[count]] = connection.execute("SELECT sum(num_tokens) FROM sequences").fetchall()
        print(f"{count} tokens, {path.stat().st_size / count:.1f} bytes a token")
        texts = {
            "seen before": suffixes(corpus.turns(recorded=True), NUM_TIMED),
            "new text": suffixes(corpus.turns(recorded=False), NUM_TIMED),
        }
        measure_opening(path, vocabulary)
        measure_lookups(path, vocabulary, texts)
        measure_recording(path, vocabulary, corpus.turns(recorded=False))


if __name__ == "__main__":
    main(sys.argv[1:])
