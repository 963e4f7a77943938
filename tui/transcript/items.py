"""What a transcript shows: entries, each a message, a note or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgespec.types import Span

Kind = Literal["question", "answer", "note", "error"]

EntryState = Literal["waiting", "open", "done", "cut"]
"""A question not yet sent, an answer under way, whole, ended early."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, told from others by its `key`.

    `spans` say where the characters of an answer's `text` came from. `version` is (which, of how
    many), None where there is one only. `label` is said quietly below.
    """

    key: str
    kind: Kind
    text: str = ""
    spans: tuple[Span, ...] = ()
    state: EntryState = "done"
    version: tuple[int, int] | None = None
    label: str = ""
