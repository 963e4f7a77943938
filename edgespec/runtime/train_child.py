"""The process that learns in idle time: `edgespec learn drafter` by itself, from chats.

It takes what nobody else wants of the processor, leaves a core free, and is the first to go where
memory runs out. stdout carries the line "ready" and one of JSON: what came of it. Nothing else is
said to anybody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from edgespec.errors import Cancelled, EdgeSpecError, ModelFileError, UsageError
from edgespec.paths import Paths
from edgespec.runtime.host_child import bound_memory, volunteer
from edgespec.runtime.learner import READY

_NICE = 19


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What came of it: `line` is for people; whether it `serves` from now on.

    `is_too_soon` where there is nothing to be learned (yet), of which nobody needs to hear;
    `is_forgotten` if what it learned from was meanwhile. `problem` is what went wrong.
    """

    line: str = ""
    serves: bool = False
    is_too_soon: bool = False
    is_forgotten: bool = False
    problem: str = ""


def arguments_of(
    target: Path, drafter: Path, paths: Paths, claim: Path, num_threads: int, seconds: float
) -> list[str]:
    """What the process is told; `num_threads` are those of the machine."""
    files = target, drafter, paths.data, paths.cache, claim
    return [*(str(each) for each in files), str(num_threads), str(seconds)]


def learn(arguments: list[str], ready: Callable[[], None]) -> Told:
    """Train by `arguments_of`; `ready` is called when all is read."""
    from edgespec.learning.claim import ByItself  # much to load
    from edgespec.runtime.train import TrainRequest, train_drafter

    target, drafter, data, cache, claim = (Path(each) for each in arguments[:5])
    num_threads, seconds = int(arguments[5]), float(arguments[6])
    request = TrainRequest(target, drafter, "recorded", None, seconds, False, num_threads)
    try:
        begun = claim.stat()
    except OSError:
        raise Cancelled from None

    def is_wanted() -> bool:
        try:
            return os.path.samestat(claim.stat(), begun)
        except OSError:
            return False

    outcome = train_drafter(
        request,
        Paths(data, cache),
        lambda _progress, _share, _is_judged: None,
        lambda: not is_wanted(),
        lambda _line: None,
        ByItself(ready, is_wanted),
    )
    return Told(outcome.line, outcome.serves)


def told(arguments: list[str], ready: Callable[[], None]) -> Told:
    """The same, whatever happens."""
    try:
        return learn(arguments, ready)
    except Cancelled:
        return Told(is_forgotten=True)
    except (UsageError, ModelFileError):
        return Told(is_too_soon=True)
    except MemoryError:
        return Told(problem="not enough memory")
    except EdgeSpecError as error:
        return Told(problem=str(error))
    except Exception as error:  # noqa: BLE001 - told in one line by whoever started this
        return Told(problem=" ".join(f"{type(error).__name__}: {error}".split()))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main(arguments: list[str]) -> None:
    """`arguments` are those of `arguments_of`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    volunteer()
    bound_memory(None)  # that of the host is for templates that strangers wrote
    outcome = told(arguments, lambda: print(READY, flush=True))
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
