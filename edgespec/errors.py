"""What can go wrong, said once: every error a user can meet is one of these.

Each carries a one-line message that says what happened and what to do, and the exit code of the
command that meets it. Nothing below the command line catches them to print; nothing above lets
another exception out to a user.
"""

from __future__ import annotations


class EdgeSpecError(Exception):
    """Base of every error meant for a user; `exit_code` is the command's exit status."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        """`problem` names what failed and the value at fault; `remedy` says what to do about it."""
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class UsageError(EdgeSpecError):
    """An argument, sampler value or message that makes no sense."""

    exit_code = 2


class ModelFileError(EdgeSpecError):
    """A model file that is missing, truncated, not a GGUF or of an unknown architecture."""

    exit_code = 3


class ContextOverflowError(EdgeSpecError):
    """A prompt of `num_prompt_tokens` that does not fit a context of `num_context`."""

    exit_code = 4

    def __init__(
        self, problem: str, remedy: str = "", num_prompt_tokens: int = 0, num_context: int = 0
    ) -> None:
        super().__init__(problem, remedy)
        self.num_prompt_tokens = num_prompt_tokens
        self.num_context = num_context


class GrammarError(EdgeSpecError):
    """A constraint that is refused, or that an answer cannot keep to."""

    exit_code = 5


class NativeLibraryError(EdgeSpecError):
    """llama.cpp could not be loaded, or crashed in its self-check, or returned an error."""

    exit_code = 6


class HostDied(NativeLibraryError):
    """The process that holds the native library ended before its work was done."""


class LoadCancelled(EdgeSpecError):
    """Whoever asked for a model took it back before it was there."""

    exit_code = 12


class NetworkError(EdgeSpecError):
    """No source of a file answered, or a worker did not."""

    exit_code = 7


class ChecksumError(EdgeSpecError):
    """A file's SHA-256 is not the one it must have."""

    exit_code = 8


class StorageError(EdgeSpecError):
    """The disk is full, read-only, or a folder or database cannot be used."""

    exit_code = 9


class UnknownModelError(EdgeSpecError):
    """A name that is neither a known model, a local file nor a Hub reference."""

    exit_code = 10


class BusyError(EdgeSpecError):
    """Every place in the queue, or the port, is taken."""

    exit_code = 11


class ExactnessError(EdgeSpecError):
    """An answer with speculation is not the one without."""

    exit_code = 13


class Cancelled(Exception):
    """A pass was aborted on request: not an error, and never shown to a user."""


EXIT_INTERRUPTED = 130
"""Exit status after SIGINT, as shells expect (128 + 2)."""

EXIT_TERMINATED = 143
"""Exit status after SIGTERM (128 + 15)."""
