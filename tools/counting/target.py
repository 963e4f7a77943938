"""The target as these programs ask it: as many answers at once as it has slots, nothing drafted.

A pass over 16 rows costs little more than two passes over one, so this is several times faster than
one answer after the other; where `edgespec doctor` has found so many rows exact, that is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edgespec.bench.runner import completion_of
from edgespec.errors import UnknownModelError
from edgespec.models.resolve import locate
from edgespec.paths import user_paths
from edgespec.protocols import Completer
from edgespec.runtime.request import NO_DRAFTER, LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.types import CompletionRequest, Message, SamplingParams

NUM_SLOTS = 16
_MOST_TOKENS = 1200
"""Cells for each answer, its prompt included."""


def open_target(reference: str) -> Running:
    """A model on disk with NUM_SLOTS slots; raises UnknownModelError where there is none."""
    path = locate(reference, user_paths())
    if path is None:
        raise UnknownModelError(
            f"{reference} is not on this machine", f"run `edgespec pull {reference}`"
        )
    request = LoadRequest(
        model=reference,
        drafter=NO_DRAFTER,
        num_context=NUM_SLOTS * _MOST_TOKENS,
        remember=False,
        learn=False,
        num_slots=NUM_SLOTS,
    )
    target = load(request, path, user_paths(), _report)
    if target.facts.max_rows < NUM_SLOTS:
        _report(
            f"only {target.facts.max_rows} answers share a pass: `edgespec doctor` may find more"
        )
    return target


def answer_all(
    completer: Completer, questions: Sequence[str], sampling: Sequence[SamplingParams], most: int
) -> list[str]:
    """Answers of at most `most` tokens each, in order; all are open before one is waited for."""
    answers = [
        completer.answer(CompletionRequest((Message("user", question),), params, most))
        for question, params in zip(questions, sampling, strict=True)
    ]
    return [completion_of(answer).text for answer in answers]


def _report(line: str) -> None:
    print(line, file=sys.stderr)
