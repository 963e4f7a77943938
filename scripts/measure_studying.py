"""Measure a drafter that learns in place: speed, time to study, how long a request waits for it.

    python scripts/measure_studying.py SUITE MINUTES TARGET.gguf DRAFTER.gguf

Two completers of the product in one process, the drafter of one learning (`--adapt`), that of the
other not; nothing is looked up in a database. Each question (first turns, categories in turns) is
answered plainly and by both, in changing order, and then studied. Every fourth time a request comes
while the drafter studies. Prints a line for each quarter of the questions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measure_first_guess import chosen

from edgespec.bench.runner import complete
from edgespec.bench.suite import Question, read_suite
from edgespec.learning.online.student import Student
from edgespec.paths import Paths, user_paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

NUM_TOKENS = 96
NUM_QUESTIONS = 40
"""Most questions of each category."""

CATEGORIES = ("coding", "math_reasoning", "extraction", "writing", "reasoning", "stem", "qa")
_INTERRUPT_EVERY = 4
_STUDIES_S = 0.03
"""How long it studies before a request comes."""

_MOST_STUDY_S = 60.0


@dataclass(frozen=True)
class Turn:
    """One question: milliseconds of decoding each way, of studying, and of a request's wait."""

    plain_ms: float
    alone_ms: float
    learning_ms: float
    study_ms: float
    wait_ms: float | None


class Rig:
    """A completer with a folder of its own, and its student if there is one."""

    def __init__(self, options: LoadRequest, cleanup: contextlib.ExitStack) -> None:
        """Starts with what is known of the machine, and with no adaptation."""
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        user = user_paths()
        if user.database.exists():
            shutil.copy(user.database, folder)
        (folder / "cache").symlink_to(user.cache)
        paths = Paths(data=folder, cache=folder / "cache")
        loaded: Running = cleanup.enter_context(load(options, Path(options.model), paths, _say))
        assert loaded.memory is not None
        loaded.memory.is_used = loaded.memory.is_learning = False
        self.completer = loaded.completer
        readers: Sequence[Any] = loaded.completer._prompt_readers
        owners = [getattr(reader, "__self__", None) for reader in readers]
        students = [getattr(owner, "student", None) for owner in owners]
        self.student = next((one for one in students if isinstance(one, Student)), None)

    def answer(self, request: CompletionRequest) -> Completion:
        """An answer from a cache that holds the prompt."""
        start = dataclasses.replace(request, max_tokens=1, speculate=False)
        complete(self.completer, start)
        self.study()  # the token just said, so that nothing is studied meanwhile
        return complete(self.completer, request)

    def study(self) -> float:
        """Wait until it has learned all; milliseconds."""
        started = time.perf_counter()
        if self.student is not None and not self.student.wait(_MOST_STUDY_S):
            raise SystemExit("it studies for more than a minute")
        return (time.perf_counter() - started) * 1e3

    def interrupt(self, request: CompletionRequest) -> float:
        """A request comes while it studies: milliseconds until it may begin."""
        assert self.student is not None
        time.sleep(_STUDIES_S)
        started = time.perf_counter()
        self.student.begin(request.prompt)
        waited = (time.perf_counter() - started) * 1e3
        complete(self.completer, dataclasses.replace(request, max_tokens=1, speculate=False))
        return waited


def ask_in_turns(
    one: Rig,
    other: Rig,
    question: Question,
    number: int,
    then: Callable[[Rig, CompletionRequest], None] = lambda _rig, _request: None,
) -> tuple[float, float, float]:
    """Milliseconds of decoding plainly, drafted by `one`, and by `other`.

    The order changes with `number`; `then` is called after each answer. Raises AssertionError if
    answers differ.
    """
    messages = (Message("user", question.turns[0]),)
    request = CompletionRequest(messages, SamplingParams(), NUM_TOKENS)
    plainly = dataclasses.replace(request, speculate=False)
    ways = [(one, plainly), (one, request), (other, request)]
    done: dict[int, Completion] = {}
    for place in range(3):
        way = (place + number) % 3
        rig, asked = ways[way]
        done[way] = rig.answer(asked)
        then(rig, request)
    assert len({answer.token_ids for answer in done.values()}) == 1, question.id
    plain, by_one, by_other = (done[way].timings.decode_ms for way in range(3))
    return plain, by_one, by_other


def turn(alone: Rig, learning: Rig, question: Question, number: int) -> Turn:
    """Ask both, and have one study; raises AssertionError if answers differ."""
    waits: list[float] = []
    studies: list[float] = []

    def then(rig: Rig, request: CompletionRequest) -> None:
        if rig is learning:
            if number % _INTERRUPT_EVERY == 0:
                waits.append(rig.interrupt(request))
            studies.append(rig.study())

    times = ask_in_turns(alone, learning, question, number, then)
    return Turn(*times, study_ms=studies[0], wait_ms=waits[0] if waits else None)


def line(turns: Sequence[Turn], name: str) -> str:
    """A row of the table."""
    plain = sum(it.plain_ms for it in turns)
    alone = plain / sum(it.alone_ms for it in turns)
    learning = plain / sum(it.learning_ms for it in turns)
    ratios = median(it.alone_ms / it.learning_ms for it in turns)
    waits = [it.wait_ms for it in turns if it.wait_ms is not None] or [0.0]
    study = median(it.study_ms for it in turns)
    return (
        f"| {name} | {alone:.3f} | {learning:.3f} | {ratios:.3f} | {study:.0f} "
        f"| {median(waits):.1f} ({max(waits):.1f}) |"
    )


def main(suite: Path, minutes: float, target: Path, drafter: Path) -> None:
    """Ask for so many minutes, then print."""
    deadline = time.monotonic() + 60 * minutes
    options = LoadRequest(model=str(target), drafter=drafter.stem, drafter_path=drafter)
    questions = [it for it in read_suite(suite) if it.category in CATEGORIES]
    turns: list[Turn] = []
    with contextlib.ExitStack() as cleanup:
        alone = Rig(options, cleanup)
        learning = Rig(dataclasses.replace(options, adapt=True), cleanup)
        for number, question in enumerate(chosen(questions, NUM_QUESTIONS)):
            if time.monotonic() > deadline:
                break
            turns.append(turn(alone, learning, question, number))
            _say(f"{question.category} {question.id}: {turns[-1]}")
    print("| turns | alone | learning | median ratio | ms of study | ms of waiting (most) |")
    print("|---|---|---|---|---|---|")
    quarter = max(len(turns) // 4, 1)
    for start in range(0, len(turns), quarter):
        part = turns[start : start + quarter]
        print(line(part, f"{start + 1}-{start + len(part)}"))
    print(line(turns, "all"))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    places = [Path(argument) for argument in sys.argv[1:]]
    main(places[0], float(sys.argv[2]), places[2], places[3])
