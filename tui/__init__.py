"""The Textual chat app (`edgespec.tui`): shows a completer, never builds one."""

from edgespec.tui.app import ChatApp
from edgespec.tui.options import ChatOptions, ChatOutcome
from edgespec.tui.run import run_chat
from edgespec.tui.services import Services
from edgespec.tui.terms import TermsQuestion
from edgespec.tui.worker import CompleterFactory

__all__ = [
    "ChatApp",
    "ChatOptions",
    "ChatOutcome",
    "CompleterFactory",
    "Services",
    "TermsQuestion",
    "run_chat",
]
