"""From paired runs to the figures of docs/metrics.md, by category and overall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from edgespec.bench.runner import Pair


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures over some questions.

    Tokens per second are means over questions and `speedup` is their ratio (Spec-Bench's formula);
    block efficiency and acceptance rate are taken over all passes and draft tokens together.
    """

    speedup: float
    plain_tokens_per_second: float
    tokens_per_second: float
    block_efficiency: float
    acceptance_rate: float
    identical: bool
    questions: int


def figures(pairs: Sequence[Pair]) -> Figures:
    """Figures over `pairs`; questions whose answer is a single token have no speed and count not.

    >>> figures([]).questions
    0
    """
    timed = [pair for pair in pairs if pair.plain.num_tokens and pair.speculative.num_tokens]
    plain = fmean([pair.plain.tokens_per_second for pair in timed]) if timed else 0.0
    fast = fmean([pair.speculative.tokens_per_second for pair in timed]) if timed else 0.0
    passes = sum(pair.speculative.passes for pair in pairs)
    proposed = sum(pair.speculative.proposed for pair in pairs)
    return Figures(
        speedup=fast / plain if plain else 0.0,
        plain_tokens_per_second=plain,
        tokens_per_second=fast,
        block_efficiency=sum(p.speculative.emitted for p in pairs) / passes if passes else 0.0,
        acceptance_rate=sum(p.speculative.accepted for p in pairs) / proposed if proposed else 0.0,
        identical=all(pair.identical for pair in pairs),
        questions=len(pairs),
    )


def by_category(pairs: Sequence[Pair]) -> dict[str, Figures]:
    """Figures of each category, in the suite's order."""
    names = dict.fromkeys(pair.question.category for pair in pairs)
    return {
        name: figures([pair for pair in pairs if pair.question.category == name]) for name in names
    }


def as_json(pairs: Sequence[Pair], about: dict[str, object]) -> dict[str, object]:
    """The object of `edgespec bench --json`: `about` first, then the figures and every pair."""
    return {
        **about,
        "overall": _rounded(figures(pairs)),
        "categories": {name: _rounded(value) for name, value in by_category(pairs).items()},
        "pairs": [_pair(pair) for pair in pairs],
    }


def table_rows(pairs: Sequence[Pair]) -> list[tuple[str, Figures]]:
    """What the printed table shows: the categories, then all."""
    return [*by_category(pairs).items(), ("overall", figures(pairs))]


def _rounded(value: Figures) -> dict[str, object]:
    return {
        name: round(number, 4) if isinstance(number, float) else number
        for name, number in asdict(value).items()
    }


def _pair(pair: Pair) -> dict[str, object]:
    return {
        "question_id": pair.question.id,
        "category": pair.question.category,
        "prompt_tokens": pair.num_prompt_tokens,
        "tokens": pair.plain.num_tokens,
        "plain_tokens_per_second": round(pair.plain.tokens_per_second, 3),
        "tokens_per_second": round(pair.speculative.tokens_per_second, 3),
        "target_passes": pair.speculative.passes,
        "proposed": pair.speculative.proposed,
        "accepted": pair.speculative.accepted,
        "identical": pair.identical,
    }
