"""What a search for a drafter's best form found on its way, so that it can be broken off.

Every piece is kept as soon as it is known: what tokens cost, what a drafter said in place of each
sample. A search that is taken up again finds them, in this process or a later one.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.forms.weighing import Readings
from edgespec.protocols import FactStore

SEARCH = "search"
"""The kind of these facts."""

_LEVELS = 65535


class Notes:
    """JSON values by name; written down as one fact, if there is a store."""

    def __init__(self, store: FactStore | None = None, key: str = "") -> None:
        """`key` names what is searched for, and what the search rests on."""
        self._store = store
        self._key = key
        self._values: dict[str, Any] = dict(store.get(SEARCH, key) or {}) if store else {}

    def get(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What was noted, None if nothing was."""
        return self._values.get(name)

    def put(self, name: str, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
        """Note a JSON value."""
        self._values[name] = value
        if self._store is not None:
            self._store.put(SEARCH, self._key, self._values)

    def readings(self, name: str) -> list[Readings] | None:
        """Readings of one text, one for each head, if they were noted."""
        noted = self.get(name)
        return None if noted is None else [_readings(*packed) for packed in noted]

    def put_readings(self, name: str, readings: list[Readings]) -> None:
        """Note readings of one text; how sure a drafter was is rounded to 1/65535."""
        self.put(name, [_packed(each) for each in readings])

    def clear(self) -> None:
        """Forget all: the search is over."""
        self._values = {}
        if self._store is not None:
            self._store.put(SEARCH, self._key, {})


def _packed(readings: Readings) -> tuple[int, str, str]:
    sureness = np.round(readings.sureness * _LEVELS).astype("<u2")
    return len(sureness), _text(np.packbits(readings.hits)), _text(sureness)


def _readings(count: int, hits: str, sureness: str) -> Readings:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(hits), np.uint8), count=count)
    levels = np.frombuffer(base64.b64decode(sureness), "<u2")
    return Readings(bits.astype(np.bool_), (levels / _LEVELS).astype(np.float32))


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
