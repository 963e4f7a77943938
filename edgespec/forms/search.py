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

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import UsageError
from edgespec.forms.counts import keep_tokens, ranked
from edgespec.forms.trimming import (
    AS_SHIPPED,
    Decision,
    Parent,
    Tried,
    Workshop,
    retyped_file,
    trimmed_file,
)
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
from edgespec.gguf.file import EMBEDDINGS, HEAD, GgufFile
from edgespec.gguf.quantize import Q4_M, TYPE_NAMES
from edgespec.signals import ending_at_once

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
) -> Decision:
    """Decide what is left open (None): rows of the head, type of the body.

    Takes about ten seconds where both are open. Raises UsageError for a `keep` or type that cannot
    be, StorageError, ModelFileError, NativeLibraryError.
    """
    if type_name not in (None, AS_SHIPPED, *TYPE_NAMES):
        raise UsageError(f"there is no type {type_name!r}", f"use one of {', '.join(TYPE_NAMES)}")
    if keep is not None:
        keep_tokens(parent.counts, keep, parent.always)  # raises before anything takes time
    if keep is not None and type_name is not None:
        return Decision(keep, type_name)
    return _Chooser(parent, workshop).choose(keep, type_name)


File = Callable[[], Path]
"""Gives a drafter's file, made at first."""


class _TooBusyError(Exception):
    """Costs cannot be measured now."""


class _Chooser:
    """One search; what it finds is noted, so that another one goes on where it was broken off."""

    def __init__(self, parent: Parent, workshop: Workshop) -> None:
        self._parent = parent
        self._name = parent.path.stem
        self._shop = workshop
        self._notes = workshop.notes
        self._table = EmbeddingTable(parent.path)
        self._tried: list[Tried] = []

    def choose(self, keep: int | None, type_name: str | None) -> Decision:
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
            num_kept = rungs[_usual(rungs)]
            choice = Decision(num_kept, kind, tuple(self._tried), is_sure=False)
        else:
            choice = Decision(num_kept, kind, tuple(self._tried))
        for path in self._shop.scratch.glob("*.gguf"):
            path.unlink()
        return choice

    def _choose_rows(self, rungs: tuple[int, ...]) -> tuple[int, list[Readings]]:
        """The number of rows with the best expected speed, and what the drafter says with them."""
        parent = self._parent
        self._shop.report(f"measuring {self._name} with {rungs[0]:,} to {rungs[-1]:,} tokens")
        shortest, longest = self._trimmed(rungs[0]), self._trimmed(rungs[-1])
        costs = self._costs(f"{rungs[0]} {rungs[-1]}", shortest, longest)
        order = ranked(parent.counts, parent.always)[: rungs[-1]]
        texts = self._read(" ".join(map(str, rungs)), longest, order, rungs)
        readings = list(zip(*texts, strict=True))
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
        reference = self._trimmed(num_kept)
        if readings is None:
            self._shop.report(f"measuring {self._name} with {num_kept:,} tokens")
            costs = self._costs(f"{num_kept}", reference)
            readings = self._read_with_own_head(f"{num_kept}", reference)
            self._add(num_kept, AS_SHIPPED, costs[0], readings)
        shipped = next(tried for tried in self._tried if tried.num_kept == num_kept)
        best = shipped
        for kind in _cheaper_types(self._parent.path):
            self._shop.report(f"measuring {self._name} as {kind}")
            file = self._retyped(num_kept, kind)
            ms, reference_ms = self._costs(f"{num_kept} {kind}", file, reference)
            ms *= shipped.token_ms / reference_ms
            tried, readings = self._try_type(kind, file, ms, readings, best)
            if tried.speed > _WORTH * best.speed:
                best = tried
        return best.type_name

    def _try_type(
        self, kind: str, file: File, ms: float, readings: list[Readings], best: Tried
    ) -> tuple[Tried, list[Readings]]:
        """What a type is worth, and the readings that a cheaper one will not exceed.

        `readings` are those of a more faithful type.
        """
        num_kept = best.num_kept
        if kind != FAITHFUL:
            if expected_speed(readings, ms, self._shop.pass_ms) <= _WORTH * best.speed:
                return self._add(num_kept, kind, ms, None), readings
            readings = self._read_with_own_head(f"{num_kept} {kind}", file)
        return self._add(num_kept, kind, ms, readings), readings

    def _trimmed(self, num_kept: int) -> File:
        """The drafter with so many rows of its head and its body as shipped."""
        path = self._shop.scratch / f"{num_kept}-{AS_SHIPPED}.gguf"
        return _when_made(path, lambda path: trimmed_file(self._parent, num_kept, path, self._shop))

    def _retyped(self, num_kept: int, kind: str) -> File:
        """The same with another type of body."""
        path, source = self._shop.scratch / f"{kind}.gguf", self._trimmed(num_kept)
        return _when_made(path, lambda path: retyped_file(source(), path, kind, self._shop))

    def _add(
        self, num_kept: int, kind: str, ms: float, readings: Sequence[Readings] | None
    ) -> Tried:
        speed, agreement = 1.0, None
        if readings is not None:
            speed = expected_speed(readings, ms, self._shop.pass_ms)
            agreement = float(np.concatenate([text.hits for text in readings]).mean())
        self._tried.append(Tried(num_kept, kind, ms, agreement, speed))
        return self._tried[-1]

    def _opened(self, file: File) -> OpenDrafter:
        path, shop = file(), self._shop
        with ending_at_once():
            return OpenDrafter(path, self._table, shop.options, shop.num_threads, shop.pause)

    def _read_with_own_head(self, name: str, file: File) -> list[Readings]:
        return [readings for (readings,) in self._read(name, file, None, ())]

    def _read(
        self, name: str, file: File, order: NDArray[np.int64] | None, sizes: tuple[int, ...]
    ) -> list[list[Readings]]:
        """Readings of each text, one for each head; the first call decides how many texts.

        The heads are the first tokens of `order`, as many as `sizes`; without, the file's own.
        """
        found: list[list[Readings]] = []
        seconds = 0.0
        with contextlib.ExitStack() as opened:
            drafter: OpenDrafter | None = None
            for index, text in enumerate(self._parent.texts[: self._notes.get("texts")]):
                note = f"said {name} {index}"
                readings = self._notes.readings(note)
                if readings is None:
                    drafter = drafter or opened.enter_context(self._opened(file))
                    started = time.monotonic()
                    readings = read_text(drafter, text, self._heads(drafter, order, sizes))
                    self._shop.pause()
                    self._notes.put(f"{note} s", time.monotonic() - started)
                    self._notes.put_readings(note, readings)
                found.append(readings)
                seconds += self._notes.get(f"{note} s")
                if seconds > _READING_S and len(found) >= _LEAST_TEXTS:
                    break
        self._notes.put("texts", len(found))
        return found

    def _heads(
        self, drafter: OpenDrafter, order: NDArray[np.int64] | None, sizes: tuple[int, ...]
    ) -> Heads:
        if order is None:
            return whole_head(drafter)
        return Heads(np.searchsorted(drafter.names, order), sizes)

    def _costs(self, name: str, *files: File) -> Sequence[float]:
        """Milliseconds of a token with each file, measured in turns; raises _TooBusyError."""
        note = f"costs {name}"
        known = self._notes.get(note)
        if known is None:
            with contextlib.ExitStack() as opened:
                drafters = [opened.enter_context(self._opened(file)) for file in files]
                costs = token_costs(drafters)
            if costs.spread > MAX_SPREAD:
                raise _TooBusyError
            known = costs.ms
            self._notes.put(note, known)
        return tuple(known)


def _when_made(path: Path, make: Callable[[Path], None]) -> File:
    def made() -> Path:
        if not path.exists():  # files appear whole or not at all
            make(path)
        return path

    return made


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
