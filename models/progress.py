"""A pull of which nobody wants to know how far it is."""

from __future__ import annotations


class SilentProgress:
    """Implements `edgespec.catalog.PullProgress`: shows nothing."""

    def begin(self, label: str, total: int | None) -> None:
        """Do nothing."""

    def at(self, num_bytes: int) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""
