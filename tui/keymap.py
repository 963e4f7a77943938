"""A user's own keys: a TOML file of command ids and keys.

library = "ctrl+k"
stats = ["f2", "alt+s"]
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgespec.tui.commands import BY_ID

MAX_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Keymap:
    """Keys by command id, for `App.set_keymap`; `note` says in one line what was left out."""

    keys: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


def read_keymap(path: Path) -> Keymap:
    """The keys in `path`; none without such a file, and none but a note if it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode()
        table = tomllib.loads(text)
    except FileNotFoundError:
        return Keymap()
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        return Keymap(note=f"{path.name} is not used: {reason}; the usual keys stay")
    return keymap_from(table, path.name)


def keymap_from(table: Mapping[str, object], name: str) -> Keymap:
    """The rows of `table` that make sense, and a note about the others.

    >>> keymap_from({"library": "ctrl+k", "libary": "f9"}, "keys.toml").note
    'keys.toml: there is no command libary (library?)'
    """
    keys, faults = {}, []
    for command, value in table.items():
        listed = value if isinstance(value, list) else [value]
        if command not in BY_ID:
            close = difflib.get_close_matches(command, BY_ID, n=1)
            faults.append(f"there is no command {command}" + (f" ({close[0]}?)" if close else ""))
        elif listed and all(isinstance(key, str) and key.strip(" ,") for key in listed):
            keys[command] = ",".join(str(key).strip(" ,").lower() for key in listed)
        else:
            faults.append(f"{command} needs a key such as 'ctrl+k'")
    return Keymap(keys, f"{name}: {'; '.join(faults)}" if faults else None)
