"""Made-up benchmarks: realistic enough to look at, with costs that are known exactly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.bench.records import (
    Asked,
    Counts,
    Drift,
    MachineForm,
    Passes,
    ProgramForm,
    Report,
    Run,
    Split,
    TargetForm,
    Way,
)

PASS_MS = {1: 53.0, 2: 58.0, 3: 63.0, 4: 66.0, 6: 80.0, 8: 90.0, 12: 126.0, 16: 180.0}
CATEGORIES = ("chat", "code", "summaries")
DRAFTER = "smollm2-135m"
TEXT = (
    "A heat pump moves heat instead of making it.\n\n"
    "```python\ndef total(values):\n    return sum(values)\n```\n\nIt takes <less> & gives more. "
)

WAYS = (
    Way(name="plain", about="One token a pass."),
    Way(name="edgespec", about="As people get it.", guess_bytes=70_000_000),
    Way(name="without-database", about="Without what was said before.", guess_bytes=70_000_000),
    Way(name="without-model", about="Look-ups alone."),
    Way(name="prompt-lookup", about="3 tokens of the prompt, drafts of 10.", is_planned=False),
    Way(
        name="fixed-4",
        about="Four guesses of the model in each pass.",
        guess_bytes=70_000_000,
        is_planned=False,
    ),
    Way(name="llama-server", about="Another program, plain.", is_peer=True),
)


@dataclass(frozen=True)
class _Habit:
    """How a way drafts: how many tokens, how surely, what a guess takes."""

    most: int
    surely: float
    guess_ms: float
    source: str


_HABITS = {
    "plain": _Habit(0, 0.0, 0.0, "target"),
    "edgespec": _Habit(5, 0.56, 4.0, DRAFTER),
    "without-database": _Habit(5, 0.5, 4.0, DRAFTER),
    "without-model": _Habit(4, 0.42, 0.0, "context"),
    "prompt-lookup": _Habit(10, 0.35, 0.0, "prompt-lookup"),
    "fixed-4": _Habit(4, 0.5, 4.5, DRAFTER),
}
_FAVOUR = {"chat": -0.08, "code": 0.1, "summaries": 0.03}


def curve_ms(rows: int) -> float:
    """T(r) of the machine that these reports tell of."""
    known = sorted(PASS_MS)
    above = next(each for each in known if each >= rows)
    below = max(each for each in known if each <= rows)
    if above == below:
        return PASS_MS[rows]
    share = (rows - below) / (above - below)
    return PASS_MS[below] + share * (PASS_MS[above] - PASS_MS[below])


def bench_report(
    ways: Sequence[Way] = WAYS,
    categories: Sequence[str] = CATEGORIES,
    num_each: int = 12,
    *,
    seed: int = 0,
    noise: float = 0.02,
    speed: float = 1.0,
    warm: str | None = None,
    **changes: object,
) -> Report:
    """A finished benchmark. Passes take T(r) / `speed`, give or take `noise`.

    Later questions are drafted better: what was said is remembered.
    """
    draws = random.Random(seed)
    asked = [(name, number) for number in range(num_each) for name in categories]
    runs = [
        _run(draws, way, f"{name}-{number}", name, place, index / len(asked), noise, speed)
        for index, (name, number) in enumerate(asked)
        for place, way in enumerate(draws.sample(list(ways), len(ways)))
    ]
    report = Report(
        schema=2,
        started="2026-12-03T09:15:00+00:00",
        machine=MachineForm(
            processor="Intel(R) Xeon(R) Platinum 8481C",
            features="AVX2 AVX512 AVX512_VNNI",
            num_threads=2,
            memory_bytes=24 * 2**30,
            system="Linux 6.1",
            read_bandwidth=31e9,
        ),
        program=ProgramForm(version="0.1.0", commit="c7542875fd", library="llama.cpp 1f2e (own)"),
        target=TargetForm(
            name="qwen2.5-coder-1.5b",
            description="qwen2 1.5B Q4_K - Medium",
            quantization="Q4_K_M",
            size_bytes=1_117_320_768,
            pass_bytes=980_000_000,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            drafter=DRAFTER,
            exactness="identical",
            settings={"kv_type_k": "bf16", "kv_type_v": "f16", "max_rows": 16},
        ),
        asked=Asked(
            suite="mixed",
            warm=warm,
            num_earlier=0,
            categories=tuple(categories),
            max_tokens=128,
            temperature=0.0,
            seed=0,
        ),
        ways=tuple(ways),
        runs=tuple(runs),
        pass_ms={rows: ms / speed for rows, ms in PASS_MS.items()},
        drift=tuple(
            Drift(after_questions=count, token_ms=53.0 / speed * (1 + 0.001 * count))
            for count in range(0, len(asked) + 1, 6)
        ),
        left_out=("chat-99: 5,000 tokens do not fit the context of 4,096",),
        is_complete=True,
    )
    return report.model_copy(update=changes)


def _run(
    draws: random.Random,
    way: Way,
    question: str,
    category: str,
    place: int,
    progress: float,
    noise: float,
    speed: float,
) -> Run:
    of_question = random.Random(question)
    num_tokens, num_prompt = of_question.randrange(90, 129), of_question.randrange(60, 700)
    prompt_ms = 4.0 * num_prompt / speed
    text = (TEXT * 6)[: 4 * num_tokens]
    about: dict[str, object] = {
        "question": question,
        "category": category,
        "way": way.name,
        "place": place,
        "num_turns": 1,
        "num_prompt_tokens": num_prompt,
        "num_tokens": num_tokens,
        "text": text,
        "load": 2.1,
    }
    if way.is_peer:
        decode_ms = (num_tokens - 1) * 88.0 / speed * draws.uniform(1 - noise, 1 + noise)
        times = {
            "request_ms": 1.1 * prompt_ms + decode_ms,
            "prompt_ms": 1.1 * prompt_ms,
            "first_token_ms": 1.1 * prompt_ms,
            "decode_ms": decode_ms,
        }
        return Run.model_validate({**about, **times})
    passes, by_source, spans = _passes(
        draws, way, num_tokens - 1, num_prompt, category, progress, noise, speed
    )
    target, drafting = sum(passes.took), sum(passes.drafting)
    small = 0.2 * len(passes.rows) / speed
    split = Split(
        target=target,
        drafters=0.9 * drafting,
        bridge=0.1 * drafting,
        lookups=0.5 * small,
        planner=0.2 * small,
        sampler=0.2 * small,
        text=0.1 * small,
    )
    decode_ms = target + drafting + small
    known: dict[str, object] = {
        "request_ms": prompt_ms + decode_ms,
        "prompt_ms": prompt_ms,
        "first_token_ms": prompt_ms + 1.0,
        "decode_ms": decode_ms,
        "target_passes": 1 + len(passes.rows),
        "by_source": by_source,
        "split": split,
        "passes": passes,
        "spans": spans,
        "scores": {"headings": 0.9} if category == "summaries" else {},
    }
    return Run.model_validate({**about, **known})


def _passes(
    draws: random.Random,
    way: Way,
    num_left: int,
    context: int,
    category: str,
    progress: float,
    noise: float,
    speed: float,
) -> tuple[Passes, dict[str, Counts], tuple[tuple[str, int], ...]]:
    habit = _HABITS[way.name]
    surely = habit.surely and habit.surely + _FAVOUR.get(category, 0.0) + 0.12 * progress
    columns: dict[str, list[object]] = {name: [] for name in Passes.model_fields}
    proposed: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    spans = [("target", 1)]
    while num_left:
        length = draws.randint(habit.most // 3, habit.most) if way.is_planned else habit.most
        length = min(length, num_left)
        is_free = habit.source == "context" or (way.name == "edgespec" and draws.random() < 0.3)
        source = draws.choice(("context", "database")) if is_free else habit.source
        estimates = [min(max(draws.gauss(surely, 0.08), 0.05), 0.97) for _ in range(length)]
        right = 0
        while right < length and draws.random() < estimates[right]:
            right += 1
        kept = min(right + 1, num_left)
        drafting = 0.0 if is_free else habit.guess_ms * length / speed
        took = curve_ms(length + 1) / speed * draws.uniform(1 - noise, 1 + noise)
        values = {
            "rows": length + 1,
            "kept": kept,
            "context": context,
            "took": took,
            "drafting": drafting,
            "plain": 53.0 / speed,
            "estimates": tuple(estimates),
        }
        for name, value in values.items():
            columns[name].append(value)
        proposed[source] += length
        accepted[source] += min(right, kept)
        spans += [(source, min(right, kept)), ("target", kept - min(right, kept))]
        num_left -= kept
        context += kept
    counts = {
        name: Counts(proposed=num, accepted=accepted[name]) for name, num in proposed.items() if num
    }
    joined: list[tuple[str, int]] = []
    for source, count in spans:
        if joined and joined[-1][0] == source:
            joined[-1] = (source, joined[-1][1] + count)
        elif count:
            joined.append((source, count))
    passes = Passes.model_validate({name: tuple(column) for name, column in columns.items()})
    return passes, counts, tuple(joined)
