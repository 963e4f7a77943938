"""A model in a host of its own, as a server lends it: loaded, let go, and loaded again."""

from __future__ import annotations

from pathlib import Path

from edgespec.errors import LoadCancelled
from edgespec.reports import Report
from edgespec.runtime.host import Host
from edgespec.runtime.host_messages import NOT_LOADED
from edgespec.runtime.request import LoadRequest
from edgespec.types import SamplingParams


class HostModel:
    """One model that a `Host` loads; its name is that of its file, without the suffix."""

    def __init__(
        self, host: Host, options: LoadRequest, path: Path, report: Report, sampling: SamplingParams
    ) -> None:
        """`host` loads nothing else, and is closed by whoever made it; see `Host.load`."""
        self.name = path.stem
        self.num_bytes = path.stat().st_size if path.is_file() else 0
        self._host = host
        self._options = options
        self._path = path
        self._report = report
        self._sampling = sampling
        self._is_cancelled = False

    def load(self) -> Host:
        """The host, with the model; raises what keeps it from being loaded."""
        if self._is_cancelled:
            raise LoadCancelled(NOT_LOADED)
        self._host.load(self._options, self._path, self._report, self._sampling)
        return self._host

    def cancel_load(self) -> None:
        """Load no more, and end a load under way."""
        self._is_cancelled = True
        self._host.cancel_load()

    def let_go(self) -> bool:
        """Free its memory, unless anything is asked of it."""
        return self._host.let_go()
