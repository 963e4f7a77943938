"""The answers to the turns of a question, and the run that they make together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgespec.bench.recorder import counts_of, passes_of, spans_of, split_of
from edgespec.bench.records import Counts, Run, Split
from edgespec.bench.same import first_difference
from edgespec.bench.scoring import scores_of
from edgespec.bench.suite import Question
from edgespec.bench.ways import PeerAnswer
from edgespec.passes import Kept
from edgespec.types import Completion

BETWEEN_TURNS = "\n\n"
"""Stands in the text of a run between the answers to its turns."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How busy the machine was before an answer, and what the processor took for it, in joules."""

    load: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to one turn, one way; `tokens` and what passes tell are the engine's only."""

    text: str
    num_prompt_tokens: int
    num_tokens: int
    request_ms: float
    prompt_ms: float
    first_token_ms: float
    decode_ms: float
    around: Surroundings
    counts: Mapping[str, Counts]
    split: Split
    passes: Sequence[Kept] = ()
    tokens: tuple[int, ...] | None = None


def engine_turn(
    completion: Completion,
    kept: Sequence[Kept],
    elapsed_ms: float,
    prompt_ms: float,
    models: Collection[str],
    around: Surroundings,
) -> Turn:
    """An answer of the engine whose prompt was read before, in `prompt_ms`.

    `elapsed_ms` is what the answer took by itself; `models` are the drafters that cost time.
    """
    timings = completion.timings
    own_ms = max(elapsed_ms - timings.time_to_first_token_ms, 0.0)
    return Turn(
        completion.text,
        timings.num_prompt_tokens,
        timings.num_decoded_tokens,
        prompt_ms + own_ms,
        prompt_ms,
        prompt_ms,
        timings.decode_ms,
        around,
        counts_of(kept),
        split_of(kept[1:], timings, models),
        kept,
        completion.token_ids,
    )


def peer_turn(name: str, answer: PeerAnswer, around: Surroundings) -> Turn:
    """An answer of another program."""
    counts = {}
    if answer.proposed is not None:
        counts[name] = Counts(proposed=answer.proposed, accepted=answer.accepted or 0)
    return Turn(
        answer.text,
        answer.num_prompt_tokens,
        answer.num_tokens,
        answer.request_ms,
        answer.first_token_ms if answer.prompt_ms is None else answer.prompt_ms,
        answer.first_token_ms,
        answer.decode_ms,
        around,
        counts,
        Split(),
    )


def run_of(
    question: Question, way: str, place: int, turns: Sequence[Turn], plain: Sequence[Turn]
) -> Run:
    """All turns of a question, compared with those of plain decoding."""
    text, said = (BETWEEN_TURNS.join(turn.text for turn in each) for each in (turns, plain))
    differs_at = None
    if all(turn.tokens is not None for turn in turns):
        differs_at = first_difference(said, text)
        if differs_at is None and [each.tokens for each in turns] != [
            each.tokens for each in plain
        ]:
            differs_at = len(text)
    passes = [kept for turn in turns for kept in turn.passes]
    later = [kept for turn in turns for kept in turn.passes[1:]]
    joules = [turn.around.joules for turn in turns if turn.around.joules is not None]
    return Run(
        question=question.id,
        category=question.category,
        way=way,
        place=place,
        num_turns=len(turns),
        num_prompt_tokens=sum(turn.num_prompt_tokens for turn in turns),
        num_tokens=sum(turn.num_tokens for turn in turns),
        request_ms=sum(turn.request_ms for turn in turns),
        prompt_ms=sum(turn.prompt_ms for turn in turns),
        first_token_ms=sum(turn.first_token_ms for turn in turns),
        decode_ms=sum(turn.decode_ms for turn in turns),
        target_passes=len(passes),
        by_source=_added(turn.counts for turn in turns),
        split=_together([turn.split for turn in turns]),
        passes=passes_of(later),
        spans=spans_of(passes),
        text=text,
        differs_at=differs_at,
        scores=scores_of(question, [turn.text for turn in turns]),
        load=turns[0].around.load,
        joules=sum(joules) if len(joules) == len(turns) else None,
    )


def _added(counts: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    added: dict[str, Counts] = {}
    for each in counts:
        for source, count in each.items():
            before = added.get(source, Counts())
            added[source] = Counts(
                proposed=before.proposed + count.proposed,
                accepted=before.accepted + count.accepted,
            )
    return added


def _together(splits: Sequence[Split]) -> Split:
    parts = [split.model_dump() for split in splits]
    return Split(**{name: round(sum(part[name] for part in parts), 3) for name in parts[0]})
