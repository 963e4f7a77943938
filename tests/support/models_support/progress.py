"""A progress display that remembers what it was told."""

from __future__ import annotations


class RecordingProgress:
    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None]] = []
        self.positions: list[int] = []
        self.said: list[str] = []

    def begin(self, label: str, total: int | None) -> None:
        self.begun.append((label, total))

    def at(self, num_bytes: int) -> None:
        self.positions.append(num_bytes)

    def say(self, text: str) -> None:
        self.said.append(text)
