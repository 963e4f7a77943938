"""Lines for people that come up while a model loads and answers.

A line of progress begins with what is being done ("loading", "measuring") and may be replaced by
the next. Any other line tells something that must not be missed.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one line at a time, from any thread."""


def is_progress(line: str) -> bool:
    """True for a line that only says how far something is.

    >>> is_progress("loading qwen"), is_progress("the database is damaged")
    (True, False)
    """
    return line.partition(" ")[0].endswith("ing")
