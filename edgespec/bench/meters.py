"""What energy the machine takes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Counts joules of all packages of the processor, by Linux's RAPL counters (powercap)."""

    def __init__(self, folder: Path = _POWERCAP) -> None:
        """`folder` has a folder for each package, its parts aside."""
        self._packages = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
        self._packages = [each for each in self._packages if each.name.count(":") == 1]
        self._last = self._read()

    def taken(self) -> float | None:
        """Joules since this was asked last; None where nobody may read the counters."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        total = 0
        for package, start, end in zip(self._packages, before, self._last, strict=True):
            total += end - start if end >= start else end - start + _range(package)
        return total / 1e6

    def _read(self) -> Sequence[int] | None:
        """Microjoules of each package, which begin again at 0 now and then."""
        try:
            counters = [int((each / "energy_uj").read_text()) for each in self._packages]
        except (OSError, ValueError):
            return None
        return counters or None


def _range(package: Path) -> int:
    try:
        return int((package / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return 0
