"""Processes that die, compete, run out of room or may not write: what was recorded before stays.

The fault is real in each: SIGKILL, two writers, a limit on the size of files, a folder of somebody
else's.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from token_support import VOCABULARY, on_disk

from edgespec.cache.database import open_database
from edgespec.cache.tokens.codec import BLOCK
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cache.upkeep.check import problems

PATIENCE_S = 60.0

WRITER = """
import sys
from pathlib import Path
from edgespec.cache.chats.conversations import NewMessage
from edgespec.cache.database import open_database
from edgespec.cache.chats.journal import Entry
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cache.tokens.sequences import VocabularyKey

path, name, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open_database(path) as database:
    memory = open_token_memory(database, VocabularyKey("tiny", 1000))
    with memory:
        print("ready", flush=True)
        for number in range(first, first + count):
            filler = ((number * i) % 997 for i in range(300))
            tokens = [number // 1000 % 1000, number % 1000, *filler]
            said = [NewMessage(role, f"{role} {number}") for role in ("user", "assistant")]
            memory.record(tokens, [7, 8, 9], Entry(f"{name}-{number}", "title", tuple(said)))
            if memory.flush() and not memory.notice:
                print(number, flush=True)
            else:
                print("failed", number, memory.notice, flush=True)
"""


def turn(number: int) -> list[int]:
    """What the writer records under this number."""
    return [number // 1000 % 1000, number % 1000, *((number * i) % 997 for i in range(300))]


@contextlib.contextmanager
def writer(path: Path, name: str, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that records; each number that it prints is on disk."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(first), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_all(process: subprocess.Popen[bytes]) -> bytes:
    """What it prints until it ends."""
    assert process.stdout is not None
    return process.stdout.read()


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Everything printed up to some text, and perhaps more."""
    assert process.stdout is not None
    read = b""
    deadline = time.monotonic() + PATIENCE_S
    while text not in read:
        assert time.monotonic() < deadline, read
        ready, _, _ = select.select([process.stdout], [], [], 1.0)
        if ready:
            some = os.read(process.stdout.fileno(), 65536)
            assert some, f"ended after {read!r}"
            read += some
    return read


def numbers(printed: bytes) -> list[int]:
    """The turns that were announced in whole lines."""
    whole = printed[: printed.rfind(b"\n") + 1].decode()
    assert "failed" not in whole, whole
    return [int(line) for line in whole.split() if line != "ready"]


def assert_whole(path: Path, expected: set[int]) -> None:
    """The file is sound and holds these turns, tokens, messages and index."""
    with open_database(path) as database:
        assert database.notice == ""
        assert problems(database.connection) == []
        rows = database.connection.execute("SELECT conversation FROM sequences")
        recorded = {int(name.partition("-")[2]) for (name,) in rows}
        assert expected <= recorded
        messages = database.connection.execute("SELECT count(*) FROM messages").fetchone()[0]
        assert messages == 2 * len(recorded), "tokens and messages come together or not at all"
        memory = open_token_memory(database, VOCABULARY, learn=False)
        assert memory is not None
        with memory:
            for number in sorted(expected):
                tokens = turn(number)
                cursor = memory.model.lookup([7, 8, 9, *tokens[:40]])
                assert cursor is not None and cursor.best().token == tokens[40]


def kill_once(path: Path, first: int, stream: random.Random) -> set[int]:
    """Kill a writer at a moment of chance; the turns that it had announced."""
    with writer(path, "killed", first, 10_000) as process:
        printed = read_until(process, b"ready")
        time.sleep(stream.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        rest = read_all(process)
    return set(numbers(printed + rest))


def test_a_killed_writer_loses_at_most_the_turn_under_way(tmp_path: Path) -> None:
    path, stream = tmp_path / "edgespec.db", random.Random(3)
    expected: set[int] = set()
    for attempt in range(8):
        expected |= kill_once(path, attempt * 20_000, stream)
        assert_whole(path, expected)
    assert expected, "some were killed after their first turn"


def test_two_writers_and_a_reader_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    num_turns = 120
    with (
        writer(path, "one", 0, num_turns) as one,
        writer(path, "two", 50_000, num_turns) as two,
        open_database(path) as database,
    ):
        memory = open_token_memory(database, VOCABULARY, learn=False)
        assert memory is not None
        with memory:
            while one.poll() is None or two.poll() is None:
                memory.model.lookup([7, 8, 9, 0, 5])
                time.sleep(0.005)
            assert memory.notice == ""
        outputs = [read_all(process) for process in (one, two)]
    announced = [numbers(output) for output in outputs]
    assert announced == [list(range(num_turns)), list(range(50_000, 50_000 + num_turns))]
    assert_whole(path, {*announced[0], *announced[1]})


FULL = """
import resource, sys
from pathlib import Path
from edgespec.cache.database import open_database
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cache.tokens.sequences import VocabularyKey

path = Path(sys.argv[1])
with open_database(path) as database:
    memory = open_token_memory(database, VocabularyKey("tiny", 1000))
    with memory:
        memory.record([1, 2, 3, 4, *range(100)], [])
        assert memory.flush() and not memory.notice
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        for number in range(200):
            memory.record([(number * 131 + i * (number + 3)) % 1000 for i in range(500)], [])
            memory.flush()
            if memory.notice:
                break
        print(memory.notice)
        cursor = memory.model.lookup([1, 2, 3])
        assert cursor is not None and cursor.best().token == 4
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        memory.record([5, 6, 7, 8], [])
        assert memory.flush()
        assert memory.model.lookup([5, 6, 7]) is not None
"""


def test_a_full_disk_costs_the_turns_that_find_no_room(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("an answer was not remembered (")
    assert done.stdout.count("\n") == 1
    with open_database(path) as database:
        assert problems(database.connection) == []


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without the rights of root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A database with one sequence, in a folder that nobody may write to."""
    folder = tmp_path / "home"
    folder.mkdir()
    recorded = on_disk(folder / "edgespec.db")
    recorded.add([1, 2, 3, 4])
    recorded.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    recorded.database.close()
    (folder / "edgespec.db").chmod(0o444)
    folder.chmod(0o555)
    parents = [parent for parent in folder.parents if parent.owner() == folder.owner()]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    for parent in parents:
        parent.chmod(modes[parent] | 0o111)
    yield folder / "edgespec.db"
    for parent, mode in modes.items():
        parent.chmod(mode)
    folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_to_costs_the_memory_only(read_only: Path) -> None:
    before = read_only.read_bytes()
    with as_somebody_else(), open_database(read_only) as database:
        assert "cannot be used" in database.notice and "nothing is remembered" in database.notice
        assert open_token_memory(database, VOCABULARY) is None
    assert read_only.read_bytes() == before
    assert [file.name for file in read_only.parent.iterdir()] == ["edgespec.db"]


def test_a_folder_that_becomes_read_only_costs_the_next_turns_only(tmp_path: Path) -> None:
    """The database is open already; then its files can no longer be opened for writing."""
    path = tmp_path / "edgespec.db"
    with open_database(path) as database:
        memory = open_token_memory(database, VOCABULARY)
        assert memory is not None
        with memory:
            path.rename(tmp_path / "moved.db")
            memory.record([1, 2, 3, 4], [])
            assert memory.flush()
            assert memory.notice.startswith("an answer was not remembered")
            (tmp_path / "moved.db").rename(path)
            memory.record(range(BLOCK), [])
            assert memory.flush()
            assert memory.model.lookup(range(5)) is not None
