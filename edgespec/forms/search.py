"""Which trimmed form of a drafter is best here: how many rows of the head, and which types.

The cost of a drafted token grows with the rows of the head in a straight line, so it is measured at
the fewest rows and at the most. What every shorter head would say is known from one reading of the
samples with the longest, since the rows kept are among its own. Both give the speed to expect of
every number of rows (`expected_speed`). The best wins, or a longer one that is as good but for half
a percent, because what a user talks about is not in our samples.

Then the body is re-typed (llama.cpp's quantizer) to each candidate type and its cost is measured.
Q8_0 says what the body as shipped says; others read the samples, too, unless they would lose even
if they said what a more faithful type says. Costs are always measured in turns with a reference,
since machines drift. A machine too busy for that gets what is rarely wrong: a usual number of rows,
and Q8_0, which loses nothing and has fast kernels everywhere (small models are often of sizes that
the types of larger ones do not fit, and what takes their place may be read four times as slowly).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgespec.errors import UsageError
from edgespec.forms.counts import keep_tokens, ranked
from edgespec.forms.trimming import AS_SHIPPED, FormChoice, Parent, Tried, Workshop, make
from edgespec.forms.weighing import (
    Heads,
    OpenDrafter,
    Readings,
    expected_speed,
    read_text,
    token_costs,
    whole_head,
)
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.file import GgufFile
from edgespec.gguf.quantize import Q4_M, TYPE_NAMES, retype
from edgespec.gguf.trim import EMBEDDINGS, HEAD

LADDER = (8192, 12_288, 16_384, 24_576, 32_768, 49_152, 65_536)
"""Numbers of rows that are weighed, and all of them where that is not many more."""

CANDIDATE_TYPES = ("q8_0", Q4_M, "q4_0")
"""Types that the body is tried in, those with the fastest kernels of most machines: from faithful
to cheap, each agreeing less often than the one before it."""

FAITHFUL = "q8_0"
"""The type that loses nothing to speak of: 0.721 against 0.722 of the tokens were Gemma's."""

_READING_S = 6.0
_LEAST_TEXTS = 4
"""A drafter reads no more samples after so long, but so many in any case."""

USUAL_ROWS = 16_384
"""What is kept if costs cannot be measured, or drafting never pays."""

MAX_SPREAD = 1.2
"""Costs tell nothing if those of the two best rounds differ by more than this factor."""

_WORTH = 1.01
"""A less faithful type must promise at least this much more speed."""

_AS_GOOD = 0.995
"""The longest head with this share of the best speed is taken."""


def choose(
    parent: Parent, workshop: Workshop, keep: int | None = None, type_name: str | None = None
) -> FormChoice:
    """Decide what is left open (None): rows of the head, type of the body.

    Takes about ten seconds where both are open. Raises UsageError for a `keep` or type that cannot
    be, StorageError, ModelFileError, NativeLibraryError.
    """
    if type_name not in (None, AS_SHIPPED, *TYPE_NAMES):
        raise UsageError(f"there is no type {type_name!r}", f"use one of {', '.join(TYPE_NAMES)}")
    if keep is not None:
        keep_tokens(parent.counts, keep, parent.always)  # raises before anything takes time
    if keep is not None and type_name is not None:
        return FormChoice(keep, type_name)
    return _Chooser(parent, workshop).choose(keep, type_name)


class _TooBusyError(Exception):
    """Costs cannot be measured now."""


class _Chooser:
    def __init__(self, parent: Parent, workshop: Workshop) -> None:
        self._parent = parent
        self._name = parent.path.stem
        self._shop = workshop
        self._table = EmbeddingTable(parent.path)
        self._tried: list[Tried] = []
        self._num_texts: int | None = None

    def choose(self, keep: int | None, type_name: str | None) -> FormChoice:
        rungs = (keep,) if keep is not None else rungs_for(self._parent)
        try:
            if len(rungs) == 1:
                num_kept, readings = rungs[0], None
            else:
                num_kept, readings = self._choose_rows(rungs)
            kind = self._choose_type(num_kept, readings) if type_name is None else type_name
        except _TooBusyError:
            self._shop.report(f"measuring {self._name} failed: this machine is too busy")
            is_other = FAITHFUL in _cheaper_types(self._parent.path)
            kind = type_name or (FAITHFUL if is_other else AS_SHIPPED)
            return FormChoice(rungs[_usual(rungs)], kind, tuple(self._tried), is_sure=False)
        return FormChoice(num_kept, kind, tuple(self._tried))

    def _choose_rows(self, rungs: tuple[int, ...]) -> tuple[int, list[Readings]]:
        """The number of rows with the best expected speed, and what the drafter says with them."""
        parent = self._parent
        self._shop.report(f"measuring {self._name} with {rungs[0]:,} to {rungs[-1]:,} tokens")
        shortest, longest = self._written(rungs[0]), self._written(rungs[-1])
        with self._opened(longest) as most:
            with self._opened(shortest) as least:
                costs = self._costs(least, most)
            rows = np.searchsorted(most.names, ranked(parent.counts, parent.always)[: rungs[-1]])
            readings = list(zip(*self._read(most, Heads(rows, rungs)), strict=True))
        shortest.unlink()
        longest.unlink()
        token_ms = np.interp(rungs, (rungs[0], rungs[-1]), costs).tolist()
        found = [
            self._add(rung, AS_SHIPPED, ms, said)
            for rung, ms, said in zip(rungs, token_ms, readings, strict=True)
        ]
        speeds = [tried.speed for tried in found]
        index = _usual(rungs)  # where drafting never pays
        if max(speeds) > 1.0:
            wanted = _AS_GOOD * max(speeds)
            index = max(index for index, speed in enumerate(speeds) if speed >= wanted)
        return rungs[index], list(readings[index])

    def _choose_type(self, num_kept: int, readings: list[Readings] | None) -> str:
        """The type of the body with the best expected speed, for a head of `num_kept` rows."""
        path = self._written(num_kept)
        with self._opened(path) as reference:
            if readings is None:
                self._shop.report(f"measuring {self._name} with {num_kept:,} tokens")
                readings = self._read_with_own_head(reference)
                self._add(num_kept, AS_SHIPPED, self._costs(reference)[0], readings)
            shipped = next(tried for tried in self._tried if tried.num_kept == num_kept)
            best = shipped
            for kind in _cheaper_types(self._parent.path):
                file = path.with_name(f"{kind}.gguf")
                self._shop.report(f"measuring {self._name} as {kind}")
                with self._shop.native():
                    retype(path, file, kind, self._shop.num_threads)
                with self._opened(file) as drafter:
                    ms, reference_ms = self._costs(drafter, reference)
                    ms *= shipped.token_ms / reference_ms
                    tried, readings = self._try_type(kind, drafter, ms, readings, best)
                file.unlink()
                if tried.speed > _WORTH * best.speed:
                    best = tried
        path.unlink()
        return best.type_name

    def _try_type(
        self, kind: str, drafter: OpenDrafter, ms: float, readings: list[Readings], best: Tried
    ) -> tuple[Tried, list[Readings]]:
        """What a type is worth, and the readings that a cheaper one will not exceed.

        `readings` are those of a more faithful type.
        """
        if kind != FAITHFUL:
            if expected_speed(readings, ms, self._shop.pass_ms) <= _WORTH * best.speed:
                return self._add(best.num_kept, kind, ms, None), readings
            readings = self._read_with_own_head(drafter)
        return self._add(best.num_kept, kind, ms, readings), readings

    def _written(self, num_kept: int) -> Path:
        path = self._shop.scratch / f"{num_kept}-{AS_SHIPPED}.gguf"
        make(self._parent, FormChoice(num_kept, AS_SHIPPED), path, self._shop)
        return path

    def _add(
        self, num_kept: int, kind: str, ms: float, readings: Sequence[Readings] | None
    ) -> Tried:
        speed, agreement = 1.0, None
        if readings is not None:
            speed = expected_speed(readings, ms, self._shop.pass_ms)
            agreement = float(np.concatenate([text.hits for text in readings]).mean())
        self._tried.append(Tried(num_kept, kind, ms, agreement, speed))
        return self._tried[-1]

    def _opened(self, path: Path) -> OpenDrafter:
        with self._shop.native():
            return OpenDrafter(path, self._table, self._shop.options, self._shop.num_threads)

    def _read_with_own_head(self, drafter: OpenDrafter) -> list[Readings]:
        return [readings for (readings,) in self._read(drafter, whole_head(drafter))]

    def _read(self, drafter: OpenDrafter, heads: Heads) -> list[list[Readings]]:
        """Readings of each text, one for each head; the first call decides how many texts."""
        if self._num_texts is not None:
            texts = self._parent.texts[: self._num_texts]
            return [read_text(drafter, text, heads) for text in texts]
        deadline = time.monotonic() + _READING_S
        found = []
        for text in self._parent.texts:
            found.append(read_text(drafter, text, heads))
            if time.monotonic() > deadline and len(found) >= _LEAST_TEXTS:
                break
        self._num_texts = len(found)
        return found

    def _costs(self, *drafters: OpenDrafter) -> tuple[float, ...]:
        costs = token_costs(drafters)
        if costs.spread > MAX_SPREAD:
            raise _TooBusyError
        return costs.ms


def _usual(rungs: Sequence[int]) -> int:
    """Index of the longest head that has no more than the usual number of rows."""
    return max((index for index, rung in enumerate(rungs) if rung <= USUAL_ROWS), default=0)


def rungs_for(parent: Parent) -> tuple[int, ...]:
    """The numbers of rows to weigh, ascending."""
    least, most = len(set(parent.always)), parent.num_tokens
    rungs = [rung for rung in LADDER if least <= rung < most]
    return (*rungs, most) if most <= LADDER[-1] or not rungs else tuple(rungs)


def _cheaper_types(path: Path) -> Sequence[str]:
    """The candidate types that differ from a model's own."""
    own = body_types(path)
    only = own.pop() if len(own) == 1 else ""
    return (
        CANDIDATE_TYPES[CANDIDATE_TYPES.index(only) + 1 :]
        if only in CANDIDATE_TYPES
        else CANDIDATE_TYPES
    )


def body_types(path: Path) -> set[str]:
    """Types of the matrices of a model's body, in lower case."""
    return {
        tensor.tensor_type.name.lower()
        for name, tensor in GgufFile(path).tensors.items()
        if name not in (EMBEDDINGS, HEAD) and len(tensor.shape) > 1
    }
