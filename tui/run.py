"""The door to the chat for a command line."""

from __future__ import annotations

import sys

from edgespec.errors import UsageError
from edgespec.protocols import Completer
from edgespec.tui.app import ChatApp
from edgespec.tui.options import ChatOptions, ChatOutcome
from edgespec.tui.services import Services
from edgespec.tui.worker import CompleterFactory


def run_chat(
    completer: Completer | CompleterFactory,
    options: ChatOptions | None = None,
    services: Services | None = None,
) -> ChatOutcome:
    """Chat until the user leaves; raises UsageError without a terminal to chat in."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a chat needs a terminal for input and output", "use `edgespec run PROMPT` in a pipe"
        )
    is_inline = options is not None and options.inline
    if is_inline and not sys.stderr.isatty():
        raise UsageError("an inline chat is drawn on stderr", "leave the terminal there")
    return ChatApp(completer, options, services).run() or ChatOutcome()
