"""Tell where the time of drafted answers goes, and what replays of the same answers say of it.

    python scripts/compare_simulated.py SUITE MINUTES TARGET.gguf DRAFTER.gguf [TRIMMED.gguf|whole]

Each question (first turns, categories in turns) is answered plainly and drafted, in turns, by the
product's own engine with a stopwatch around the target's passes, the drafter's passes and the
drafting around these. The drafter then guesses at every place of the answer, and the same engine
runs again over what was said and guessed, on a clock of its own (scripts/replay_drafts.py) with
T(r) and the cost of a guess as they just were: as the product plans, without look-ups, and each
with hindsight. So measured and simulated figures are of the same minutes and the same answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

from measure_calibration import Pair
from measure_first_guess import chosen
from record_drafts import NUM_PROPOSED, Answer, Recorder
from replay_drafts import Clock, Hindsight, Replay, TimedPlayback

from edgespec.bench.runner import complete
from edgespec.bench.suite import Question, read_suite
from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.model import ModelDrafter
from edgespec.engine.completer import EngineCompleter
from edgespec.llama.model import Model, ModelOptions
from edgespec.paths import user_paths
from edgespec.planning.credit import Credit
from edgespec.protocols import Drafter
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import BoundDrafter, open_model_drafter
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import CompletionRequest, Message, SamplingParams

P = ParamSpec("P")
T = TypeVar("T")

NUM_TOKENS = 128
CATEGORIES = (
    "coding",
    "math_reasoning",
    "extraction",
    "summarization",
    "rag",
    "qa",
    "translation",
)
NUM_QUESTIONS = 6
"""Most questions of each category."""

SIMULATED = {
    "as planned": (True, False),
    "as planned, no look-ups": (False, False),
    "hindsight": (True, True),
    "hindsight, no look-ups": (False, True),
}
"""Whether look-ups draft, and whether it is known what will be kept."""


@dataclass
class Stopwatch:
    """Milliseconds by what they went into; what runs within another counts for both."""

    ms: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def around(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """The same function, timed."""

        def timed(*arguments: P.args, **named: P.kwargs) -> T:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._add(name, started)

        return timed

    def around_each(self, name: str, call: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
        """The same generator, each step timed."""

        def timed(*arguments: P.args, **named: P.kwargs) -> Iterator[T]:
            steps = call(*arguments, **named)
            while True:
                started = time.perf_counter()
                step = next(steps, None)
                self._add(name, started)
                if step is None:
                    return
                yield step

        return timed

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """What was added since the last call."""
        taken = self.ms, self.counts
        self.ms, self.counts = {}, {}
        return taken

    def _add(self, name: str, started: float) -> None:
        self.ms[name] = self.ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3
        self.counts[name] = self.counts.get(name, 0) + 1


def attach(watch: Stopwatch, completer: EngineCompleter) -> ModelDrafter:
    """Put the stopwatch around the parts of an engine; returns its drafting model."""
    engine: Any = completer._engine
    engine._target.score = watch.around("target", engine._target.score)
    for guarded in engine._drafters:
        drafter = getattr(guarded, "drafter", guarded)
        name = "model" if isinstance(drafter, ModelDrafter) else "look-ups"
        drafter.propose = watch.around_each(name, drafter.propose)
        for part in ("begin", "extend", "learn"):
            setattr(drafter, part, watch.around(name, getattr(drafter, part)))
        if isinstance(drafter, ModelDrafter):
            model: Any = drafter._model
            model.read = watch.around("passes of the drafter", model.read)
            model.guess = watch.around("guesses", model.guess)
            found = drafter
    return found


@dataclass(frozen=True)
class Measured:
    """One question, both ways; milliseconds of decoding by part, and its tokens for the replay."""

    answer: Answer
    plain_ms: float
    drafted_ms: float
    by_part: dict[str, float]
    num_guesses: int


def measure(
    completer: EngineCompleter, watch: Stopwatch, question: Question, *, plain_first: bool
) -> Measured:
    """Answer plainly and drafted; raises AssertionError if they differ."""
    messages = (Message("user", question.turns[0]),)
    request = CompletionRequest(messages, SamplingParams(), NUM_TOKENS)
    complete(completer, dataclasses.replace(request, max_tokens=1, speculate=False))
    done = {}
    parts: dict[str, float] = {}
    counts: dict[str, int] = {}
    for speculate in (False, True) if plain_first else (True, False):
        watch.take()
        done[speculate] = complete(completer, dataclasses.replace(request, speculate=speculate))
        if speculate:
            parts, counts = watch.take()
    plain, drafted = done[False], done[True]
    assert plain.token_ids == drafted.token_ids, question.id
    prompt = tuple(completer._bridge.encode_chat(messages))
    answer = Answer(question.category, question.turns[0], prompt, plain.token_ids)
    return Measured(
        answer,
        plain.timings.decode_ms,
        drafted.timings.decode_ms,
        parts,
        counts.get("guesses", 0),
    )


def record(bound: BoundDrafter, number: int, answer: Answer) -> None:
    """Let the drafter guess at each place; its model is a `Recorder`."""
    drafter, recorder = bound.drafter, bound.drafter._model
    assert isinstance(recorder, Recorder)
    recorder.answer = number
    drafter.read_prompt((Message("user", answer.question),))
    drafter.begin(answer.prompt)
    for token in answer.tokens:
        list(islice(drafter.propose(), NUM_PROPOSED))
        drafter.extend([token])


@dataclass(frozen=True)
class Observed:
    """All questions, the drafter's guesses at their places, and what passes and guesses cost."""

    measured: tuple[Measured, ...]
    recorder: Recorder
    pass_ms: tuple[float, ...]
    guess_ms: float
    read_ms: float


def simulate(
    pair: Pair, seen: Observed, answers: Sequence[Answer], how: tuple[bool, bool]
) -> list[tuple[float, float]]:
    """Milliseconds drafted and plain of each answer, learning from one to the next."""
    looks_up, knows = how
    clock = Clock()
    playback = TimedPlayback(seen.recorder.guesses, clock, seen.guess_ms, seen.read_ms)
    model = pair.drafter_over(playback)
    drafters: list[Drafter] = [ContextDrafter(), model] if looks_up else [model]
    if knows:
        drafters = [Hindsight(drafter, clock) for drafter in drafters]
    engine = Replay(
        drafters, clock, playback, seen.pass_ms, Credit(math.inf) if knows else None, NUM_TOKENS
    )
    runs = []
    for number, answer in enumerate(answers):
        model.read_prompt((Message("user", answer.question),))
        run = engine.run(number, answer)
        runs.append((run.ms, run.plain_ms))
    return runs


def print_speeds(answers: Sequence[Answer], by_name: dict[str, list[tuple[float, float]]]) -> None:
    """Plain over drafted time by category, in one column for each way."""
    print("| category | " + " | ".join(by_name) + " |")
    print("|---" * (1 + len(by_name)) + "|")
    for category in (*dict.fromkeys(answer.category for answer in answers), "overall"):
        cells = []
        for runs in by_name.values():
            of_it = [
                run
                for run, answer in zip(runs, answers, strict=True)
                if category in (answer.category, "overall")
            ]
            cells.append(f"{sum(run[1] for run in of_it) / sum(run[0] for run in of_it):.3f}")
        print(f"| {category} | " + " | ".join(cells) + " |")


def print_shares(measured: Sequence[Measured]) -> None:
    """What the time of drafted answers went into, by category."""
    names = ("target", "drafter", "bridge", "look-ups", "rest")
    print("| category | guesses | " + " | ".join(names) + " |")
    print("|---" * (2 + len(names)) + "|")
    for category in (*dict.fromkeys(one.answer.category for one in measured), "overall"):
        of_it = [one for one in measured if category in (one.answer.category, "overall")]
        shares = shares_of(of_it)
        cells = " | ".join(f"{shares[name]:.3f}" for name in names)
        print(f"| {category} | {sum(one.num_guesses for one in of_it)} | {cells} |")


def shares_of(measured: Sequence[Measured]) -> dict[str, float]:
    """Parts of the time of drafted answers; they sum up to 1."""
    sums: dict[str, float] = {}
    for one in measured:
        for name, ms in one.by_part.items():
            sums[name] = sums.get(name, 0.0) + ms
    total = sum(one.drafted_ms for one in measured)
    drafter = sums.get("passes of the drafter", 0.0) + sums.get("guesses", 0.0)
    shares = {
        "target": sums["target"],
        "drafter": drafter,
        "bridge": sums.get("model", 0.0) - drafter,
        "look-ups": sums.get("look-ups", 0.0),
    }
    shares["rest"] = total - sum(shares.values())
    return {name: ms / total for name, ms in shares.items()}


def observe(
    questions: Sequence[Question], minutes: float, options: LoadRequest, files: Form
) -> Observed:
    """Measure for so many minutes, and record."""
    deadline = time.monotonic() + 60 * minutes
    watch, measured = Stopwatch(), []
    with contextlib.ExitStack() as cleanup:
        loaded = cleanup.enter_context(load(options, Path(options.model), user_paths(), _say))
        engine: Any = loaded.completer._engine
        drafter = attach(watch, loaded.completer)
        bound = open_model_drafter(files, engine.target.context, cleanup, of_any_size=True)
        recorder = Recorder(bound.draft_model)
        bound.drafter._model = recorder
        for number, question in enumerate(questions):
            if time.monotonic() > deadline:
                break
            one = measure(loaded.completer, watch, question, plain_first=number % 2 == 0)
            measured.append(one)
            record(bound, number, one.answer)
            _say(f"{question.category} {question.id}: {one.plain_ms / one.drafted_ms:.2f}")
        context = int(median(len(it.answer.prompt) + NUM_TOKENS // 2 for it in measured))
        pass_ms = tuple(engine._costs.curve_ms(context).tolist())
        return Observed(tuple(measured), recorder, pass_ms, drafter._guess_ms, drafter._read_ms)


def main(suite: Path, minutes: float, target: Path, files: Form) -> None:
    """Measure, simulate, print."""
    options = LoadRequest(
        model=str(target),
        drafter=files.name,
        drafter_path=files.trimmed or files.whole,
        remember=False,
        learn=False,
        trim=files.trimmed is not None,
    )
    questions = [question for question in read_suite(suite) if question.category in CATEGORIES]
    seen = observe(chosen(questions, NUM_QUESTIONS), minutes, options, files)
    num_guesses = sum(it.num_guesses for it in seen.measured)
    spent = sum(it.by_part.get("model", 0.0) for it in seen.measured)
    print(f"T(r), ms: {', '.join(f'{ms:.1f}' for ms in seen.pass_ms)}")
    print(f"a guess {seen.guess_ms:.2f} ms, a token read with others {seen.read_ms:.2f} ms;")
    print(f"{num_guesses} guesses took {spent / max(num_guesses, 1):.2f} ms each, all in")
    print_shares(seen.measured)
    answers = [it.answer for it in seen.measured]
    columns = {"measured": [(it.drafted_ms, it.plain_ms) for it in seen.measured]}
    vocabulary = ModelOptions(vocabulary_only=True)
    with Model(target, vocabulary) as one, Model(files.whole, vocabulary) as other:
        pair = Pair(one, other)
        for name, how in SIMULATED.items():
            columns[name] = simulate(pair, seen, answers, how)
    print_speeds(answers, columns)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    whole = Path(sys.argv[4])
    form = sys.argv[5] if len(sys.argv) > 5 else "whole"
    trimmed = None if form == "whole" else Path(form)
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), Form(whole, trimmed))
