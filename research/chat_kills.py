"""Kills the chat, or its host, at random moments of an answer, and looks for what is lost.

    PYTHONPATH=tests/support python research/chat_kills.py app|host [--kills 50] [MODEL ...]

The rest of the command line goes to `edgespec chat`; without it the default pair answers. The app
runs in a pseudo-terminal with a home of its own, to which the user's models are linked. Each round
has a turn that ends and one that is killed by SIGKILL. Checked after each kill: the process of the
other side is gone or says so, each message sent is in the database once and in order, finished
turns are as they were, the killed one is cut and has at least what was kept of it before. After an
app: `--continue last` shows it, and goes on. After a host: the app goes on, and leaves the
terminal as it was.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from host_faults import host_of, until
from terminal_support import Terminal, assert_restored

from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import connect
from edgespec.cache.upkeep.check import problems
from edgespec.chats import ChatMessage, path_to
from edgespec.paths import Paths, user_paths

LONGEST_S = 3.0
"""The latest that a kill comes after the question, or the answer's begin, was written down."""

IN_ANSWER = 0.8
"""Share of kills that wait for the answer's begin."""

MAX_TOKENS = 200
KILLS_OF_A_CHAT = 10
SHORT, LONG = "Say only: {}", "Count from {} to 300 in words, one a line, and leave none out."


class Killed:
    """A chat that is killed and opened again."""

    def __init__(self, home: Path, arguments: Sequence[str], dice: random.Random) -> None:
        """`arguments` are those of `edgespec chat`."""
        self.failures: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._home = home
        self._arguments = [*arguments, "--max-tokens", str(MAX_TOKENS)]
        self._dice = dice
        self._sent: list[str] = []
        self._number = 0

    def apps(self, num_kills: int, longest_s: float = LONGEST_S) -> None:
        """Kill so many apps, each of which opens the conversation that the one before left."""
        for number in range(num_kills):
            is_new = number % KILLS_OF_A_CHAT == 0
            if is_new:
                self._sent.clear()
            shown = self._open(() if is_new else ("--continue", "last"))
            if not is_new and self._path()[-1].state == "cut":
                self._check("cut off" in shown.shown, "the cut answer is not shown as cut")
            self._say_one(shown)
            host = until(partial(host_of, shown.process.pid))
            self._kill(shown, shown.process.pid, longest_s)
            shown.close()
            self._check(_ends(host), "the host outlives the app")
            self._compare(num_kills, number)

    def hosts(self, num_kills: int, longest_s: float = LONGEST_S) -> None:
        """Kill so many hosts of apps that live through `KILLS_OF_A_CHAT` of them."""
        for first in range(0, num_kills, KILLS_OF_A_CHAT):
            self._sent.clear()
            shown = self._open(())
            for number in range(first, min(first + KILLS_OF_A_CHAT, num_kills)):
                self._say_one(shown)
                shown.written = ""
                host = until(partial(host_of, shown.process.pid))
                self._kill(shown, host, longest_s)
                self._until(shown, lambda: not self._is_open())
                self._compare(num_kills, number)
            shown.press("\x11")
            self._check(shown.wait(60) == 0, "the chat ended with an error")
            assert_restored(shown)
            shown.close()

    # One round

    def _open(self, more: Sequence[str]) -> Terminal:
        program = "import sys; from edgespec.cli.main import main; sys.exit(main())"
        arguments = ["chat", *self._arguments, *more]
        program = program.replace("main()", f"main({arguments!r})")
        shown = Terminal(program, EDGESPEC_HOME=str(self._home))
        shown.until_shown("ready", 120)
        return shown

    def _say_one(self, shown: Terminal) -> None:
        """A turn that nobody disturbs."""
        self._send(shown, SHORT)
        self._until(shown, lambda: not self._is_open())
        while self._path()[-1].model is None:  # the host died between the answers
            shown.press("\x12")
            self._until(shown, self._is_open)
            self._until(shown, lambda: not self._is_open())

    def _kill(self, shown: Terminal, victim: int | None, longest_s: float) -> None:
        """A turn that is killed."""
        self._send(shown, LONG)
        if self._dice.random() < IN_ANSWER:
            self._until(shown, lambda: self._path()[-1].content)
        end = time.monotonic() + longest_s * self._dice.random()
        while time.monotonic() < end:
            shown.read()
        self._before = self._path()
        assert victim is not None
        os.kill(victim, signal.SIGKILL)

    def _send(self, shown: Terminal, form: str) -> None:
        self._number += 1
        text = form.format(self._number)
        shown.press(f"{text}\r")
        self._sent.append(text)
        self._until(shown, lambda: self._has(text))

    def _has(self, text: str) -> bool:
        path = self._path()
        return len(path) > 1 and path[-2].content == text

    @staticmethod
    def _until(shown: Terminal, condition: Callable[[], object]) -> None:
        """Wait while what the app draws is read: it would stand still otherwise."""

        def holds() -> object:
            shown.read()
            return condition()

        until(holds)

    def _is_open(self) -> bool:
        return self._path()[-1].state == "open"

    # What is kept

    def _path(self) -> list[ChatMessage]:
        """The conversation spoken in last, as another process reads it."""
        paths = Paths(self._home, self._home / "cache")
        if not paths.database.exists():
            return []
        with ChatStore(connect(paths.database, 5.0, 1 << 20), paths.database) as store:
            name = store.last()
            chat = store.load(name) if name is not None else None
        return path_to(chat.messages, chat.tip) if chat is not None else []

    def _compare(self, num_kills: int, number: int) -> None:
        """Look for what the kill has cost."""
        path, before = self._path(), self._before
        questions = [each.content for each in path if each.role == "user"]
        self._check(questions == self._sent, f"sent {self._sent}, kept {questions}")
        self._check(path[:-1] == before[:-1], "a finished turn changed")
        self._check(path[-1].content.startswith(before[-1].content), "part of the answer is lost")
        is_whole = path[-1].model is not None
        self._check(is_whole or path[-1].state == "cut", f"the killed one is {path[-1].state}")
        kind = "ended before" if is_whole else "cut" if path[-1].content else "cut, empty"
        self.outcomes[kind] += 1
        print(f"{number + 1} of {num_kills}: {dict(self.outcomes)}", *self.failures, flush=True)

    def _check(self, is_so: bool, line: str) -> None:
        if not is_so:
            self.failures.append(line)

    def check_database(self) -> None:
        """Its pages, schema and indexes are sound."""
        connection = connect(self._home / "edgespec.db", 5.0, 1 << 20)
        self.failures += problems(connection)
        connection.close()


def _ends(process: int | None, seconds: float = 20.0) -> bool:
    """Whether it ends in time."""
    try:
        return bool(until(lambda: not Path(f"/proc/{process}").exists(), seconds))
    except TimeoutError:
        return False


def link_models(home: Path) -> None:
    """Have a new home use the user's models, and what was made of them."""
    own = user_paths()
    paths = Paths(home, home / "cache")
    for mine, theirs in ((own.models, paths.models), (own.trimmed, paths.trimmed)):
        theirs.mkdir(parents=True)
        for file in mine.glob("*.gguf"):
            (theirs / file.name).symlink_to(file)


def main() -> None:
    """Run the kills and print what was found; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("app", "host"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        link_models(Path(folder))
        killed = Killed(Path(folder), arguments, random.Random(chosen.seed))
        (killed.apps if chosen.what == "app" else killed.hosts)(chosen.kills)
        killed.check_database()
    print(f"{chosen.what}: {chosen.kills} kills, {dict(killed.outcomes)}")
    for failure in killed.failures:
        print("FAILED:", failure)
    sys.exit(bool(killed.failures))


if __name__ == "__main__":
    main()
