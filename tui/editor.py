"""A message written in the user's own editor."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edgespec.errors import UsageError

MAX_BYTES = 4 << 20


def edited(
    text: str,
    environ: Mapping[str, str] = os.environ,
    run: Callable[[Sequence[str]], int] = subprocess.call,
) -> str:
    """`text` as the user leaves it in $VISUAL or $EDITOR; waits until the editor ends.

    The file lies in a folder that only its owner can enter, with all that the editor puts beside
    it, and is gone afterwards. Raises UsageError if there is no editor or it fails.
    """
    command = _command(environ)
    with tempfile.TemporaryDirectory(prefix="edgespec-") as folder:
        file = Path(folder) / "message.md"
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
        try:
            with _interrupts_left_to_the_editor():
                status = run([*command, str(file)])
            if status != 0:
                raise UsageError(
                    f"{command[0]} failed (status {status})", "the message is as it was"
                )
            data = file.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{command[0]} did not run: {reason}", "set $EDITOR") from error
    if len(data) > MAX_BYTES:
        raise UsageError("the message is larger than 4 MiB", "attach a file with @path")
    try:
        return data.decode().replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            "what the editor wrote is not UTF-8", "the message is as it was"
        ) from error


def _command(environ: Mapping[str, str]) -> list[str]:
    name = environ.get("VISUAL") or environ.get("EDITOR") or ""
    try:
        command = shlex.split(name)
    except ValueError as error:
        raise UsageError(f"$EDITOR cannot be read: {error}", "mend its quotes") from error
    if not command:
        raise UsageError("no editor is set", "set $VISUAL or $EDITOR, such as EDITOR=nano")
    return command


@contextlib.contextmanager
def _interrupts_left_to_the_editor() -> Iterator[None]:
    """Ctrl+C in the editor reaches this process, too, where it must not end the chat.

    The event loop learns of signals by bytes in a pipe. Meanwhile they go into one of ours, and all
    but SIGINT and SIGQUIT are handed on afterwards.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    try:
        of_the_loop = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not in the main thread, where no signal is handled
        of_the_loop = None
    try:
        yield
    finally:
        if of_the_loop is not None:
            signal.set_wakeup_fd(of_the_loop)
            with contextlib.suppress(BlockingIOError):
                came = os.read(reader, 4096).translate(None, bytes([signal.SIGINT, signal.SIGQUIT]))
                if of_the_loop >= 0 and came:
                    os.write(of_the_loop, came)
        os.close(reader)
        os.close(writer)
