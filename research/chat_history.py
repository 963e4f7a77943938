"""What a large history costs: lists, searches, and writing a question down.

    python research/chat_history.py DATABASE [--chats 5000] [--messages 1000000] [--pause 0]

Fills a new database at DATABASE, unless it is there, with chats of made-up words (frequencies as in
texts: 1 / rank), each thirtieth in Chinese. Then times, in milliseconds, from outside of the store:
opening, `recent`, `search` of words of each kind of frequency, and `begin`, `partial` and `finish`
of answers of 2,000 letters, with a pause between them if given. Prints medians, 95th percentiles
and the worst.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgespec.cache.chats.rows import add_chat, add_message, speak
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_database, transaction
from edgespec.chats import ChatHead, ChatMessage, ChatSettings
from edgespec.runtime.history import open_history

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
_NUM_WORDS = 50_000
_WORDS_EACH = 40
_PART = 5000


def words() -> list[str]:
    """The most frequent first; short ones are frequent, as in any language."""
    pairs = ("".join(two) for two in itertools.product(_SYLLABLES, repeat=2))
    threes = ("".join(three) for three in itertools.product(_SYLLABLES, repeat=3))
    return [*_SYLLABLES, *itertools.islice(itertools.chain(pairs, threes), _NUM_WORDS)]


def texts(stream: random.Random) -> Iterator[str]:
    """Messages without end."""
    known = words()
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(known) + 1)))
    for number in itertools.count():
        if number % 30 == 7:
            letters = (chr(0x4E00 + int(2000 * stream.random() ** 2)) for _ in range(_WORDS_EACH))
            yield "".join(letters)
        else:
            yield " ".join(stream.choices(known, cum_weights=weights, k=_WORDS_EACH))


def fill(path: Path, num_chats: int, num_messages: int) -> None:
    """Write the chats, a part of the messages in each transaction."""
    stream = random.Random(1)
    said = texts(stream)
    with open_database(path) as database:
        connection = database.connection
        connection.execute("PRAGMA cache_size=-262144")
        last: dict[str, int | None] = {f"{number:032x}": None for number in range(num_chats)}
        with transaction(connection):
            for name in last:
                head = ChatHead(name, next(said)[:60], 1.0, 1.0, 0)
                add_chat(connection, head, ChatSettings())
        for start in range(0, num_messages, _PART):
            with transaction(connection):
                for number in range(start, start + _PART):
                    name = f"{number // 20 % num_chats:032x}"
                    role = "assistant" if number % 2 else "user"
                    message = ChatMessage(0, last[name], role, next(said), float(number))
                    last[name] = add_message(connection, name, message)
            if start % (20 * _PART) == 0:
                print(f"{start} messages", file=sys.stderr)
        with transaction(connection):
            for number, (name, tip) in enumerate(last.items()):
                if tip is not None:
                    speak(connection, name, tip, float(number))


def timed(name: str, action: Callable[[], object], times: int, pause_s: float = 0.0) -> None:
    """Do something so often and print what it takes."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        took.append((time.perf_counter() - start) * 1e3)
        time.sleep(pause_s)
    took.sort()
    p95 = took[int(0.95 * (len(took) - 1))]
    print(f"{name:<44} {statistics.median(took):8.2f} {p95:8.2f} {took[-1]:8.2f}", flush=True)


def measure(path: Path, pause_s: float) -> None:
    """Print a line for each thing that is timed."""
    print(f"{'ms':<44} {'median':>8} {'p95':>8} {'worst':>8}")
    timed("open and close", lambda: open_history(path, print).close(), 20)
    known, stream = words(), random.Random(2)
    with open_history(path, print) as store:
        timed("recent, the first 50", store.recent, 50)
        timed("recent, all", lambda: store.recent(limit=-1), 20)
        rare = known[20_000]
        for what, text in (
            ("the most frequent word", known[0]),
            ("the two most frequent words", f"{known[0]} {known[1]}"),
            ("a rare and a frequent word", f"{rare} {known[0]}"),
            ("a frequent and a rare word", f"{known[0]} {rare}"),
            *((f"the first {n} letters of a word", known[9_000][:n]) for n in range(1, 6)),
            ("a frequent word and 3 letters", f"{known[2]} {known[9_000][:3]}"),
            ("a word that is nowhere", "xyzzy"),
            ("3 Chinese letters", "一丁丂"),
            ("2 Chinese letters", "一丁"),
            ("2 Chinese letters that are nowhere", "鿿鿿"),
        ):
            num_found = len(store.search(text))
            timed(f"search: {what} ({num_found})", lambda text=text: store.search(text), 20)  # type: ignore[misc]
        timed("load a chat", lambda: store.load(f"{stream.randrange(5000):032x}"), 50)
        write(store, pause_s)


def write(store: ChatStore, pause_s: float) -> None:
    """Time the three steps of an answer."""
    said = texts(random.Random(3))
    text = "\n".join(next(said) for _ in range(12))[:2000]
    begun = [store.begin(None, None, "the first")]
    timed("begin", lambda: begun.append(store.begin(None, None, next(said))), 200, pause_s)
    answers = iter(begun)
    timed("partial, 2,000 letters", lambda: store.partial(next(answers).answer, text), 200, pause_s)
    answers = iter(begun)
    timed(
        "finish, 2,000 letters",
        lambda: store.finish(next(answers).answer, text, "done", "m", {"tokens": 500}),
        200,
        pause_s,
    )
    for each in begun:
        store.delete(each.chat)


def main() -> None:
    """Fill, then measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("database", type=Path)
    parser.add_argument("--chats", type=int, default=5000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two writes")
    options = parser.parse_args()
    if not options.database.exists():
        start = time.perf_counter()
        fill(options.database, options.chats, options.messages)
        size = options.database.stat().st_size / 1e6
        print(f"filled in {time.perf_counter() - start:.0f} s, {size:.0f} MB")
    measure(options.database, options.pause)


if __name__ == "__main__":
    main()
