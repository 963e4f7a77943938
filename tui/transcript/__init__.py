"""The conversation on the screen, drawn row by row: only what is in view is laid out.

Entries (`items`) become pieces (`message`, `pieces`), the text of answers by way of blocks
(`blocks`), and pieces become rows (`drawing`, `code`, `tables`, `wrapping`) when they come into the
view (`view`). All but the last is pure.
"""

from edgespec.tui.transcript.items import Entry, EntryState, Kind
from edgespec.tui.transcript.view import Transcript

__all__ = ["Entry", "EntryState", "Kind", "Transcript"]
