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


def human_bytes(count: int) -> str:
    """A number of bytes in decimal units.

    >>> human_bytes(1_117_320_768)
    '1.12 GB'
    """
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.{2 if value < 10 else 1}f} {unit}"
    return f"{value / 1000:.2f} TB"
