"""Record what a target answers and what drafters guess at each place of it, for replays.

    python research/record_drafts.py answers TARGET SUITE.jsonl OUT.npz CATEGORY=COUNT...
    python research/record_drafts.py guesses TARGET ANSWERS.npz DRAFTER TRIMMED|whole OUT.npz

The answers are greedy and plain. At each of their places the drafter guesses greedily until
NUM_PROPOSED tokens of the target can be proposed; each guess is recorded under a hash of the
drafter's last tokens, so that `Playback` can stand for the model in a replay
(research/replay_drafts.py), whatever is asked there and when.
"""

from __future__ import annotations

import contextlib
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np

from edgespec.bench.runner import completion_of
from edgespec.bench.suite import read_suite, select
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.draft_model import LlamaDraftModel
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.passes import Kept, PassRecord
from edgespec.paths import user_paths
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import open_model_drafter
from edgespec.runtime.request import NO_DRAFTER, LoadRequest
from edgespec.runtime.running import load
from edgespec.types import TARGET, CompletionRequest, EncodedPrompt, Message, SamplingParams

NUM_PROPOSED = 6
MAX_TOKENS = 112
_KEY_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, its prompt in target tokens, and what the target answered."""

    category: str
    question: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def encoded(self) -> EncodedPrompt:
        """The prompt as drafters get it."""
        return EncodedPrompt(self.prompt, (Message("user", self.question),))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One guess: the drafter's token and its probability."""

    token: int
    probability: float


def key_of(answer: int, cells: Sequence[int]) -> int:
    """The name of the state of a drafter that follows an answer: a hash of its last tokens."""
    data = array("i", (answer, *cells[-_KEY_TOKENS:])).tobytes()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


class Recorder:
    """Implements `DraftModel` around another one, and keeps what it guesses."""

    def __init__(self, model: LlamaDraftModel) -> None:
        self.answer = 0
        self.guesses: dict[int, Recorded] = {}
        self._model = model
        self._cells: list[int] = []

    @property
    def num_context(self) -> int:
        """As the model has."""
        return self._model.num_context

    @property
    def num_bytes(self) -> int:
        """As the model has."""
        return self._model.num_bytes

    def read(self, tokens: Sequence[int]) -> None:
        """Pass on."""
        self._model.read(tokens)
        self._cells.extend(tokens)

    def truncate(self, num_tokens: int) -> None:
        """Pass on."""
        self._model.truncate(num_tokens)
        del self._cells[num_tokens:]

    def guess(self) -> tuple[int, float]:
        """Pass on, and record."""
        guess = self._model.guess()
        self.guesses[key_of(self.answer, self._cells)] = Recorded(*guess)
        return guess


class Playback:
    """Implements `DraftModel` from what was recorded; `answer` is the number of the one under way.

    A state that was never reached (behind a wrong guess of another drafter) gives some guess, which
    no target keeps.
    """

    num_context, num_bytes = 1 << 20, 0

    def __init__(self, guesses: dict[int, Recorded]) -> None:
        self.answer = 0
        self._guesses = guesses
        self._any = list(guesses.values())
        self._cells: list[int] = []

    def read(self, tokens: Sequence[int]) -> None:
        """Append."""
        self._cells.extend(tokens)

    def truncate(self, num_tokens: int) -> None:
        """Cut."""
        del self._cells[num_tokens:]

    def guess(self) -> tuple[int, float]:
        """What was recorded."""
        key = key_of(self.answer, self._cells)
        found = self._guesses.get(key) or self._any[key % len(self._any)]
        return found.token, found.probability


def save_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write answers as npz, without pickles."""
    columns = {
        "category": np.array([answer.category for answer in answers]),
        "question": np.array([answer.question for answer in answers]),
    }
    for name in ("prompt", "tokens"):
        rows: list[tuple[int, ...]] = [getattr(answer, name) for answer in answers]
        columns[name] = np.array([token for row in rows for token in row], dtype=np.int32)
        columns[f"{name}_ends"] = np.cumsum([len(row) for row in rows])
    np.savez_compressed(path, **columns)  # type: ignore[arg-type]


def load_answers(path: Path) -> list[Answer]:
    """What `save_answers` wrote."""
    with np.load(path) as data:
        rows = {
            name: np.split(data[name], data[f"{name}_ends"][:-1]) for name in ("prompt", "tokens")
        }
        return [
            Answer(str(category), str(question), tuple(prompt.tolist()), tuple(tokens.tolist()))
            for category, question, prompt, tokens in zip(
                data["category"], data["question"], rows["prompt"], rows["tokens"], strict=True
            )
        ]


def save_guesses(path: Path, guesses: dict[int, Recorded]) -> None:
    """Write guesses as npz."""
    np.savez_compressed(
        path,
        key=np.array(list(guesses), dtype=np.uint64),
        token=np.array([guess.token for guess in guesses.values()], dtype=np.int32),
        probability=np.array([guess.probability for guess in guesses.values()], dtype=np.float32),
    )


def load_guesses(path: Path) -> dict[int, Recorded]:
    """What `save_guesses` wrote."""
    with np.load(path) as data:
        columns = (data[name].tolist() for name in ("key", "token", "probability"))
        return {key: Recorded(*guess) for key, *guess in zip(*columns, strict=True)}


def record_answers(target: Path, suite: Path, out: Path, counts: dict[str, int]) -> None:
    """Let the target answer `counts` questions of each category."""
    questions = read_suite(suite)
    chosen = [
        question
        for category, count in counts.items()
        for question in select(questions, [category], count)
    ]
    options = LoadRequest(model=str(target), drafter=NO_DRAFTER, remember=False, learn=False)
    answers = []
    with load(options, target, user_paths(), _report) as loaded:
        bridge = ModelBridge(loaded.model)
        for question in chosen:
            messages = (Message("user", question.turns[0]),)
            request = CompletionRequest(messages, SamplingParams(), MAX_TOKENS, speculate=False)
            tokens = completion_of(loaded.completer.answer(request)).token_ids
            prompt = tuple(bridge.encode_chat(messages))
            answers.append(Answer(question.category, question.turns[0], prompt, tokens))
            _report(f"{question.category} {question.id}: {len(tokens)} tokens")
            save_answers(out, answers)


def record_guesses(target: Path, answers: Sequence[Answer], files: Form, out: Path) -> None:
    """Let a drafter guess at each place of the answers."""
    with contextlib.ExitStack() as cleanup:
        num_threads = this_machine().num_threads
        model = cleanup.enter_context(Model(target, ModelOptions()))
        context = cleanup.enter_context(Context(model, ContextOptions(4096, num_threads)))
        bound = open_model_drafter(files, context, cleanup, of_any_size=True)
        recorder = Recorder(bound.weights.draft_model)
        bound.drafter.use([recorder])  # to listen in
        for number, answer in enumerate(answers):
            recorder.answer = number
            started = time.perf_counter()
            session = bound.drafter.open(answer.encoded)
            for token in answer.tokens:
                list(islice(session.propose(), NUM_PROPOSED))
                session.learn(Kept((token,), (TARGET,), (0,), PassRecord(1, 1, 0, 0.0)))
            session.close()
            _report(f"{answer.category} {number}: {time.perf_counter() - started:.1f} s")
            save_guesses(out, recorder.guesses)


def _report(line: str) -> None:
    print(line, file=sys.stderr)


def main(arguments: Sequence[str]) -> None:
    """Record one or the other."""
    what, target, first, *rest = arguments
    if what == "answers":
        counts = {name: int(count) for name, _, count in (item.partition("=") for item in rest[1:])}
        record_answers(Path(target), Path(first), Path(rest[0]), counts)
    else:
        files = Form(Path(rest[0]), None if rest[1] == "whole" else Path(rest[1]))
        record_guesses(Path(target), load_answers(Path(first)), files, Path(rest[2]))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1:])
