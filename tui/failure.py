"""Any exception as the one line that a user sees."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError, HostDied, LoadCancelled


@dataclass(frozen=True, slots=True)
class Failure:
    """One line without line breaks, and the exit status if the app cannot go on.

    `is_death` says that the engine died: nothing was wrong with what it was asked, as far as we
    know, and it can be asked again. `is_cancelled`: the user took it back.
    """

    line: str
    exit_code: int
    is_death: bool = False
    is_cancelled: bool = False


def describe(error: BaseException) -> Failure:
    """What to show for `error`: its own words if it is meant for users, else its type and place.

    >>> describe(EdgeSpecError("disk full", "free some space")).line
    'disk full; free some space'
    """
    if isinstance(error, EdgeSpecError):
        is_death, is_cancelled = isinstance(error, HostDied), isinstance(error, LoadCancelled)
        return Failure(_one_line(str(error)), error.exit_code, is_death, is_cancelled)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    problem = _one_line(f"{type(error).__name__}: {error}").removesuffix(":")
    return Failure(f"internal error{place}: {problem}; please report this", exit_code=1)


def _one_line(text: str) -> str:
    return " ".join(text.split())
