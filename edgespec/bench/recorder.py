"""What the passes of an answer tell: where its time went, where its tokens came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import groupby

from edgespec.bench.records import Counts, Passes, Split
from edgespec.passes import Kept
from edgespec.types import TARGET, Completion, CompletionRequest, EncodedPrompt, Timings

_DIGITS = 4
"""Of milliseconds and estimates, in files."""


class Recorder:
    """Implements `edgespec.protocols.Observer` and `Observation`: holds the passes of one answer.

    `kept` are those that gave tokens.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.kept: list[Kept] = []

    def open(self, _request: CompletionRequest, _prompt: EncodedPrompt) -> Recorder:
        """An answer begins: that before is forgotten."""
        self.kept = []
        return self

    def take(self, kept: Kept) -> None:
        """A pass is over."""
        if kept.tokens:
            self.kept.append(kept)

    def close(self, _completion: Completion | None) -> None:
        """The answer is over."""


def split_of(later: Sequence[Kept], timings: Timings, models: Collection[str]) -> Split:
    """Where decoding spent its time, in passes after that of the first token.

    `models` are the drafters that cost time by their quotes; all others look up.
    """
    records = [kept.record for kept in later]
    taken: dict[str, float] = defaultdict(float)
    for record in records:
        for name, ms in record.drafter_ms.items():
            taken["drafters" if name in models else "lookups"] += ms
    bridge = sum(record.bridge_ms for record in records)
    parts = {
        "target": sum(record.target_ms for record in records),
        "drafters": max(taken["drafters"] - bridge, 0.0),
        "bridge": bridge,
        "lookups": taken["lookups"],
        "planner": sum(max(record.plan_ms, 0.0) for record in records),
        "sampler": sum(record.verify_ms for record in records),
        "text": timings.text_ms,
    }
    return Split(**parts, rest=timings.decode_ms - sum(parts.values()))


def passes_of(later: Sequence[Kept]) -> Passes:
    """The passes after that of the first token, as they are written down."""
    records = [kept.record for kept in later]
    return Passes(
        rows=tuple(record.num_rows for record in records),
        kept=tuple(len(kept.tokens) for kept in later),
        context=tuple(record.context for record in records),
        took=tuple(_rounded(record.target_ms) for record in records),
        drafting=tuple(_rounded(sum(record.drafter_ms.values())) for record in records),
        plain=tuple(_rounded(record.plain_ms) for record in records),
        estimates=tuple(tuple(map(_rounded, kept.draft.acceptance)) for kept in later),
    )


def counts_of(passes: Sequence[Kept]) -> dict[str, Counts]:
    """Draft tokens by source."""
    proposed = Counter(source for kept in passes for source in kept.draft.sources)
    accepted = Counter(source for kept in passes for source in kept.sources if source != TARGET)
    return {
        source: Counts(proposed=proposed[source], accepted=accepted[source]) for source in proposed
    }


def spans_of(passes: Sequence[Kept]) -> tuple[tuple[str, int], ...]:
    """Sources of tokens that follow one another, and how many."""
    sources = (source for kept in passes for source in kept.sources)
    return tuple((source, len(list(run))) for source, run in groupby(sources))


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
