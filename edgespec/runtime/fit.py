"""Whether target and drafter fit into memory together, and how much of it they take."""

from __future__ import annotations

from edgespec.errors import ModelFileError
from edgespec.gguf.file import GgufFile
from edgespec.llama.context import ContextOptions
from edgespec.llama.model import Model
from edgespec.machine.memory import memory_need, need_of
from edgespec.runtime.request import DrafterFiles

MOST_FOLLOWED = 2
"""Answers that a drafting model follows at a time: beside more it does not pay."""

DRAFTER_BATCH = 128
"""Most tokens that a drafter reads in one pass."""

_MOST_SHARE = 0.95
"""Of what is available; the rest is for what other programs come to need."""


def drafter_context(target: ContextOptions, num_context_train: int) -> ContextOptions:
    """The context that drafts beside a target's: as long, if the drafter was trained so far."""
    return ContextOptions(
        num_context=min(target.num_context + DRAFTER_BATCH, max(num_context_train, 512)),
        num_threads=target.num_threads,
        num_batch=DRAFTER_BATCH,
        num_sequences=min(target.num_sequences, MOST_FOLLOWED),
    )


class PairMemory:
    """The memory there is for a target and a drafter beside it."""

    def __init__(
        self, available: int | None, target: Model, context: ContextOptions, max_rows: int
    ) -> None:
        """`available` are the bytes that were free before the target was loaded; None: unknown."""
        self._available = available
        self._known: dict[DrafterFiles, int] = {}
        self._context = context
        try:
            self._target_bytes = memory_need(target.path, context, max_rows).total
        except ModelFileError:  # one of several files, which llama.cpp reads and gguf does not
            self._target_bytes = target.num_bytes

    def fits(self, files: DrafterFiles) -> bool:
        """Whether there is room for both; raises ModelFileError."""
        return self._available is None or self._bytes(files) <= _MOST_SHARE * self._available

    def describe(self, files: DrafterFiles) -> str:
        """What both take and what there is, for people; raises ModelFileError."""
        free = "" if self._available is None else f", {_gigabytes(self._available)} are free"
        return f"both models take about {_gigabytes(self._bytes(files))} of memory{free}"

    def _bytes(self, files: DrafterFiles) -> int:
        if files not in self._known:
            self._known[files] = self._target_bytes + self._drafter_bytes(files)
        return self._known[files]

    def _drafter_bytes(self, files: DrafterFiles) -> int:
        whole = GgufFile(files.whole)
        trained = int(whole.value(f"{whole.architecture}.context_length", 0))
        context = drafter_context(self._context, trained)
        running = whole if files.trimmed is None else GgufFile(files.trimmed)
        return need_of(running, context, 1, whole).total


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
