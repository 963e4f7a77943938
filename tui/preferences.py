"""What the user chose about the app itself, and a message that was not sent, in a small file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from edgespec.files.scratch import taking_the_place_of


class Preferences:
    """A JSON object in a file, its owner's only; unreadable is empty, unwritable lasts this run."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                read = json.loads(path.read_text(encoding="utf-8"))
                self._values = read if isinstance(read, dict) else {}

    def get(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """What was chosen, or None."""
        return self._values.get(name)

    def set(self, name: str, value: object) -> None:
        """Remember a choice."""
        self._values[name] = value
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with taking_the_place_of(self._path, is_synced=False) as scratch:
                    scratch.write_text(json.dumps(self._values, indent=1), encoding="utf-8")
