"""What the chat app is given besides a completer; without any of it, it still chats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgespec.catalog import Catalog
from edgespec.chats import Chat, History
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.tui.terms import TermsQuestion

ExportForm = Literal["md", "json"]


@dataclass(frozen=True, slots=True)
class Services:
    """All of it comes in by constructor.

    `history` keeps chats; it is called in one thread, and may be opened there when it is first
    needed: by a function that gets a place for lines about it, and raises StorageError. `terms` is
    what the catalogue asks about terms, in this app. `load` loads another target, or has another
    drafter draft (None: as before), telling how far it is, and gives who answers from then on; it
    raises EdgeSpecError, LoadCancelled after `cancel_load`, and the model before then serves on.
    `write_chat` gives a chat as text, `read_chats` takes chats from a file
    into the history and gives their number. `preferences` is where the theme is remembered,
    `keys` where the user may say other keys.
    """

    history: History | Callable[[Report], History] | None = None
    catalog: Catalog | None = None
    terms: TermsQuestion | None = None
    load: Callable[[str | None, str | None, Report], Completer] | None = None
    cancel_load: Callable[[], None] | None = None
    write_chat: Callable[[Chat, ExportForm], str] | None = None
    read_chats: Callable[[Path], int] | None = None
    preferences: Path | None = None
    keys: Path | None = None
