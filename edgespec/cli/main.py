"""The `edgespec` command: the one place where errors become lines and exit statuses.

Signal handlers come first: whatever is imported later, a user who interrupts it meets no traceback.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgespec import signals
from edgespec.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EdgeSpecError, StorageError

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; a user never sees a traceback unless asked for."""
    signals.raise_once()
    words = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_standard_streams()
    try:
        status = _run(words)
    except KeyboardInterrupt as interrupt:  # outside of any command, while modules are imported
        status = _stopped(interrupt, words)
    signals.ignore()
    sys.exit(status)


def _run(words: Sequence[str]) -> int:
    """Run the command and return its exit status; what went wrong is told on stderr."""
    import click

    from edgespec.cli.group import Ended, cli

    try:
        result = cli.main(list(words), prog_name="edgespec", standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except Ended as ended:
        status = _ended(ended.cause, words)
    except EdgeSpecError as error:
        status = _fail(str(error), error.exit_code, words)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except OSError as error:  # of the output of --help
        status = _ended(error, words)
    except click.Abort:  # a question was left unanswered
        status = _fail("stopped", EXIT_INTERRUPTED, words)
    except MemoryError:
        status = _fail("not enough memory; use a smaller model or --context", 1, words)
    except Exception as error:  # noqa: BLE001 - a user must not meet a traceback, see the docstring
        status = _unexpected(error, words)
    return status


def _ended(cause: BaseException, words: Sequence[str]) -> int:
    """Exit status after an interrupt, or an OSError that no command could foresee."""
    if isinstance(cause, KeyboardInterrupt):
        return _stopped(cause, words)
    if isinstance(cause, BrokenPipeError):  # the reader of our output left: there is nobody to tell
        _drop_output()
        return 1
    if isinstance(cause, OSError) and cause.errno in _OUTPUT_ERRORS:
        _drop_output()
        problem = f"cannot write the output: {cause.strerror}; free space there"
        return _fail(problem, StorageError.exit_code, words)
    return _unexpected(cause, words)


def _stopped(interrupt: KeyboardInterrupt, words: Sequence[str]) -> int:
    terminated = isinstance(interrupt, signals.Terminated)
    return _fail("stopped", EXIT_TERMINATED if terminated else EXIT_INTERRUPTED, words)


def _unexpected(error: BaseException, words: Sequence[str]) -> int:
    return _fail(f"unexpected {type(error).__name__}: {error}; please report this", 1, words)


def _fail(message: str, exit_code: int, words: Sequence[str]) -> int:
    if "--verbose" in words:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):  # nobody reads it: the status tells
        print(f"edgespec: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return exit_code


def _prepare_standard_streams() -> None:
    """Make output UTF-8 whatever the locale, and give closed streams somewhere to go.

    A file that is opened while descriptor 1 or 2 is free takes its place, and would then get what
    C code prints.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that is not UTF-8 is shown with escapes, which in JSON are JSON's own.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still buffered nowhere, or Python would fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
