"""The one error of the bootstrap, and how a failed command's output is told in one line."""

from __future__ import annotations

import errno
import re
from pathlib import Path


class BootstrapError(Exception):
    """A failure for the user: one line that says what happened and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        """`problem` names what failed, `remedy` what to do about it."""
        super().__init__(f"{problem}; {remedy}")


class DiskFullError(BootstrapError):
    """No space left; another build would fail in the same way."""

    def __init__(self) -> None:
        """The message is the same wherever the disk filled up."""
        super().__init__("the disk is full", "free some space (2 GB will do) and run it again")


class NoNetworkError(BootstrapError):
    """The package index does not answer or does not have what a step asks for."""

    def __init__(self, what: str, reason: str) -> None:
        """`what` is the step that needed the network, `reason` what the index did."""
        super().__init__(
            f"{what} failed: {reason}",
            "check the network (or pip's index-url and proxy settings) and run it again",
        )


_DISK_FULL = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded")
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|SSLError|ConnectionResetError|Network is unreachable|Temporary failure in name resolution"
)
_NOT_OFFERED = re.compile(r"\(from versions: none\)")
_ERROR_LINE = re.compile(r"(?:^|\s)(?:fatal )?error:? ", re.IGNORECASE)


def failure(what: str, output: str, log: Path) -> BootstrapError:
    """The error that a failed command's output tells of; `what` names the step, in words."""
    if _DISK_FULL.search(output):
        return DiskFullError()
    if _NO_NETWORK.search(output):
        return NoNetworkError(what, "the package index does not answer")
    if _NOT_OFFERED.search(output):
        return NoNetworkError(what, "the package index does not offer what it needs")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = next((line for line in lines if _ERROR_LINE.search(line)), lines[-1] if lines else "")
    reason = f": {told[:160]}" if told else ""
    return BootstrapError(f"{what} failed{reason}", f"the whole output is in {log}")


def from_os_error(error: OSError) -> BootstrapError:
    """A file operation's failure in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError()
    place = f" {error.filename}" if error.filename else ""
    return BootstrapError(
        f"cannot write{place}: {error.strerror or error}",
        "check that the folder exists and belongs to you",
    )
