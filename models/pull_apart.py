"""A pull in a process of its own: it can be ended at once, pip included, and costs its caller none
of the interpreter's time, as hashing, TLS and the client libraries would.

    child -> caller   on its stdout, a JSON array a line:
                      ["begin", label, total]  ["at", num_bytes]  ["say", text]
                      ["done", path]  or  ["error", class, problem, remedy]

The end of its stdin is the end of its caller: the child then ends, and all that it started. What
came is on the disk, whenever that is.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NoReturn

from edgespec import errors
from edgespec.catalog import PullProgress
from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.paths import Paths

PROGRAM = ("-P", "-m", "edgespec.models.pull_apart")
"""What Python is to run; -P: nothing is imported from the folder that the user happens to be in."""

_CHECK_S = 0.1
"""How often `is_cancelled` is asked."""

_TELL_S = 0.25
"""Between two lines that tell how far it is."""


def pull_apart(
    ref: str,
    paths: Paths,
    progress: PullProgress,
    is_cancelled: Callable[[], bool],
    program: Sequence[str] = PROGRAM,
) -> Path:
    """Have the model that `ref` names on disk, as `pull` does; its terms were accepted.

    Raises Cancelled soon after `is_cancelled`, or what `pull` raises.
    """
    progress.say("asking where it is")
    process = subprocess.Popen(
        [sys.executable, *program, ref, str(paths.data), str(paths.cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
        encoding="utf-8",
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), name="pull", daemon=True)
    reader.start()
    try:
        return _follow(ref, lines, progress, is_cancelled)
    finally:
        with contextlib.suppress(OSError):  # it has ended
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        reader.join()
        for end in (process.stdin, process.stdout):
            if end is not None:
                end.close()


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # a line cut short by its end
        for line in process.stdout or ():
            lines.put(line)
    lines.put(None)


def _follow(
    ref: str,
    lines: queue.SimpleQueue[str | None],
    progress: PullProgress,
    is_cancelled: Callable[[], bool],
) -> Path:
    while not is_cancelled():
        try:
            line = lines.get(timeout=_CHECK_S)
        except queue.Empty:
            continue
        if line is None:
            raise EdgeSpecError(f"the pull of {ref} was ended", "pull again: what came is kept")
        match json.loads(line):
            case ["begin", label, total]:
                progress.begin(label, total)
            case ["at", num_bytes]:
                progress.at(num_bytes)
            case ["say", text]:
                progress.say(text)
            case ["done", path]:
                return Path(path)
            case ["error", kind, problem, remedy]:
                raise getattr(errors, kind)(problem, remedy)
    raise Cancelled


class Told:
    """Implements `edgespec.catalog.PullProgress`: tells the caller, not too often."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._told_at = 0.0

    def begin(self, label: str, total: int | None) -> None:
        """Tell, and the next position at once."""
        self._told_at = 0.0
        self.tell("begin", label, total)

    def at(self, num_bytes: int) -> None:
        """Tell, if the last time is a moment ago."""
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._told_at = now
            self.tell("at", num_bytes)

    def say(self, text: str) -> None:
        """Tell."""
        self.tell("say", text)

    def tell(self, *what: object) -> None:
        """Write one line."""
        print(json.dumps(what), file=self._out, flush=True)


def end_with_caller() -> None:
    """End this process and what it started when its caller is gone; waits for that."""
    sys.stdin.buffer.read()
    os.killpg(os.getpgid(0), signal.SIGTERM)


def serve(fetch: Callable[[PullProgress], Path]) -> NoReturn:
    """The child: tell how `fetch` goes and how it ended, and end."""
    threading.Thread(target=end_with_caller, name="caller", daemon=True).start()
    told = Told(sys.stdout)
    try:
        told.tell("done", str(fetch(told)))
    except EdgeSpecError as error:
        told.tell("error", type(error).__name__, error.problem, error.remedy)
    except Exception as error:  # noqa: BLE001 - a user sees a line, no traceback
        told.tell("error", "EdgeSpecError", f"{type(error).__name__}: {error}", "please report it")
    os._exit(0)


def main(ref: str, data: str, cache: str) -> NoReturn:
    """Pull `ref` into the folders of a user."""
    from edgespec.models.pull import pull  # the network libraries load only here

    paths = Paths(Path(data), Path(cache))
    serve(lambda told: pull(ref, paths, told, accept_terms=lambda _model: False).path)


if __name__ == "__main__":
    main(*sys.argv[1:])
