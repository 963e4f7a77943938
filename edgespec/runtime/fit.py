"""Whether target and drafter fit into memory together, and how much of it they take."""

from __future__ import annotations

from dataclasses import dataclass

from edgespec.errors import ModelFileError
from edgespec.gguf.file import GgufFile
from edgespec.llama.context import ContextOptions
from edgespec.llama.model import Model
from edgespec.llama.target import SINGLE_SLOT_SEQUENCES
from edgespec.machine.available import MOST_SHARE
from edgespec.machine.memory_need import memory_need
from edgespec.runtime.form import Form

MOST_FOLLOWED = 2
"""Answers that a drafting model follows at a time: beside more it does not pay."""

DRAFTER_BATCH = 128
"""Most tokens that a drafter reads in one pass."""


def drafter_context(target: ContextOptions, num_context_train: int) -> ContextOptions:
    """The context that drafts beside a target's: as long, if the drafter was trained so far."""
    return ContextOptions(
        num_context=min(target.num_context + DRAFTER_BATCH, max(num_context_train, 512)),
        num_threads=target.num_threads,
        num_batch=DRAFTER_BATCH,
        num_sequences=MOST_FOLLOWED if target.num_sequences > SINGLE_SLOT_SEQUENCES else 1,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """What runs: a drafter's form or none, and the bytes of memory that all models take.

    `num_free` are the bytes that were free before the target was loaded, None where nobody can
    tell.
    """

    form: Form | None
    num_bytes: int
    num_free: int | None

    @property
    def is_room(self) -> bool:
        """Whether all of it fits into memory."""
        return self.num_free is None or self.num_bytes <= MOST_SHARE * self.num_free

    def describe(self) -> str:
        """What both models take and what there is, for people."""
        free = "" if self.num_free is None else f", {_gigabytes(self.num_free)} are free"
        return f"both models take about {_gigabytes(self.num_bytes)} of memory{free}"


class MemoryRoom:
    """The memory there is for a target and a drafter beside it."""

    def __init__(
        self, available: int | None, target: Model, context: ContextOptions, max_rows: int
    ) -> None:
        """`available` are the bytes that were free before the target was loaded; None: unknown."""
        self._available = available
        self._context = context
        try:
            need = memory_need(GgufFile(target.path), context, max_rows)
            elsewhere = need.weights + need.kv_cache if target.placement_key else 0  # of workers
            self._target_bytes = need.total - elsewhere
        except ModelFileError:  # one of several files, which llama.cpp reads and gguf does not
            self._target_bytes = target.num_bytes

    def fit(self, form: Form | None) -> Fit:
        """What the target takes with a drafter beside it; raises ModelFileError."""
        num_bytes = self._target_bytes + (self._drafter_bytes(form) if form is not None else 0)
        return Fit(form, num_bytes, self._available)

    def _drafter_bytes(self, form: Form) -> int:
        whole = GgufFile(form.whole)
        trained = int(whole.value(f"{whole.architecture}.context_length", 0))
        context = drafter_context(self._context, trained)
        running = whole if form.trimmed is None else GgufFile(form.trimmed)
        return memory_need(running, context, 1, whole).total


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
