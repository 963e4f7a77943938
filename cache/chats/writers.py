"""Who writes an open answer: `PID TIME`, a process and a time when it ran.

A process that is gone, or that began after TIME and so is another one of the same number, has left
its answers unfinished.
"""

from __future__ import annotations

import os
import time

_IMPORTED = time.time()


def this_writer() -> str:
    """The name of this process."""
    return f"{os.getpid()} {_IMPORTED:.2f}"


def is_writing(writer: object) -> bool:
    """Whether the process of that name still runs."""
    import psutil  # seldom needed: after a kill, or beside another chat

    try:
        number, since = str(writer).split(" ")
        return bool(psutil.Process(int(number)).create_time() <= float(since) + 1.0)
    except (ValueError, OverflowError, psutil.Error):
        return False
