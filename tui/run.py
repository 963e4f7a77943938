"""The door to the chat for a command line."""

from __future__ import annotations

import sys

from edgespec.catalog import Catalog
from edgespec.errors import UsageError
from edgespec.protocols import Completer
from edgespec.tui.app import ChatApp
from edgespec.tui.options import ChatOptions, ChatOutcome
from edgespec.tui.terms import TermsQuestion
from edgespec.tui.worker import CompleterFactory


def run_chat(
    completer: Completer | CompleterFactory,
    options: ChatOptions | None = None,
    catalog: Catalog | None = None,
    terms: TermsQuestion | None = None,
) -> ChatOutcome:
    """Chat until the user leaves; raises UsageError without a terminal to chat in.

    Models are listed and pulled through `catalog`; `terms` will ask in this app.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a chat needs a terminal for input and output", "use `edgespec run PROMPT` in a pipe"
        )
    return ChatApp(completer, options, catalog, terms).run() or ChatOutcome()
