"""The thread that studies between answers: when it works, when it stops, what it keeps."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes import told
from toy_vocabularies import TOYS

from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.learning.online.adaptations import AdaptationStore, History, Pair
from edgespec.learning.online.correction import Floats
from edgespec.learning.online.gate import ALONE
from edgespec.learning.online.history import AdaptationHistory
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.reading import LessonReader
from edgespec.learning.online.student import MOST_ANSWERS, Student
from edgespec.learning.online.version import Version
from edgespec.passes import Kept
from edgespec.protocols import Observation
from edgespec.runtime.idle import IdleWorker
from edgespec.runtime.observers import Observers
from edgespec.types import (
    Completion,
    CompletionRequest,
    EncodedPrompt,
    SpeculationStats,
    Timings,
)
from edgespec.vocab.tokenizer import ByteTokenizer

TARGET, DRAFTER = (ByteTokenizer(TOYS[name]()) for name in ("bpe", "bpe-other"))
NUM_ROWS, WIDTH = DRAFTER.vocab.num_tokens, 8
KEPT = np.arange(NUM_ROWS, dtype=np.int32)
PAIR = Pair("a" * 32, "b" * 32, "target", "drafter")
TEXT = TARGET.encode(b"the tokenizer is lower than the lowest").tokens
PATIENCE_S = 30.0


class Rows:
    """Implements `edgespec.passes.Scores`: row i says `tokens[i]`."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens

    def logits(self, row: int) -> Floats:
        logits = np.zeros(TARGET.vocab.num_tokens, dtype=np.float32)
        logits[self._tokens[row]] = 5.0
        return logits

    def hidden_state(self, row: int) -> Floats:
        return self.logits(row)[:WIDTH]


def kept(tokens: Sequence[int]) -> Kept:
    """What a pass gave."""
    return dataclasses.replace(told(tokens), scores=Rows(tokens))


@dataclass
class Slow:
    """Implements `ScoringModel` and `Interruptible`: waits at `gate` while it reads, if told to."""

    waits: bool = False
    fails: bool = False
    reads: list[list[int]] = field(default_factory=list)
    is_reading: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    aborted: bool = False

    def score(self, tokens: Sequence[int], first: int) -> Iterator[tuple[Floats, Floats]]:
        self.reads.append(list(tokens))
        self.is_reading.set()
        if self.fails:
            raise NativeLibraryError("llama.cpp cannot compute")
        if self.waits:
            assert self.go_on.wait(PATIENCE_S)
        if self.aborted:
            raise Cancelled
        random = np.random.default_rng(3)
        head = random.normal(0, 1, (NUM_ROWS, WIDTH)).astype(np.float32)
        states = random.normal(0, 1, (NUM_ROWS, WIDTH)).astype(np.float32)
        for token in tokens[first:]:
            yield head @ states[token], states[token]

    def abort(self) -> None:
        self.aborted = True
        self.go_on.set()

    def resume(self) -> None:
        self.aborted = False


@dataclass
class Rig:
    """A student, and what it is made of and says."""

    model: Slow
    student: Student
    idle: IdleWorker
    served: list[Version]
    lines: list[str]

    def answer(self, prompt: str = "a", tokens: Sequence[int] = TEXT) -> None:
        """One request and its answer."""
        self.say(self.begin(prompt), tokens)

    def begin(self, prompt: str) -> Observation:
        return self.observers.open(CompletionRequest(prompt), EncodedPrompt((1,), prompt))

    @property
    def observers(self) -> Observers:
        return Observers([self.idle, self.student])

    def say(self, lesson: Observation, tokens: Sequence[int] = TEXT) -> None:
        """An answer, to its end: a pass that reads, and two that say something."""
        half = len(tokens) // 2
        for part in ((), tokens[:half], tokens[half:]):
            lesson.take(kept(part))
        timings = Timings(0, 0, 0, 1, 0, len(tokens))
        lesson.close(Completion("", tuple(tokens), "stop", timings, SpeculationStats()))

    def wait(self) -> None:
        assert self.idle.wait(PATIENCE_S)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.idle.close()
        self.student.close()


def made(model: Slow, store: AdaptationStore | None = None) -> Rig:
    served: list[Version] = []
    lines: list[str] = []
    student = Student(
        LessonReader(model, (TARGET, DRAFTER), KEPT),
        Learner(NUM_ROWS, WIDTH),
        model,
        lambda prompt: DRAFTER.encode(str(prompt).encode()).tokens,
        served.append,
        AdaptationHistory(PAIR, store, History(), lines.append),
    )
    return Rig(model, student, IdleWorker(lines.append, [student]), served, lines)


def test_an_answer_is_studied_after_it_ended() -> None:
    rig = made(Slow())
    with rig:
        lesson = rig.begin("a")
        lesson.take(kept(TEXT))
        assert rig.model.reads == []
        lesson.close(None)  # an error ended it: nothing is to be learned
        rig.answer()
        rig.wait()
        tokens = DRAFTER.encode(b"".join(map(TARGET.piece, TEXT))).tokens
        assert rig.model.reads == [[*DRAFTER.encode(b"a").tokens, *tokens[:-1]]]
        assert len(rig.served) == 2  # what served at first, and after the answer
    assert rig.lines == []


def test_what_serves_comes_to_serve_between_answers() -> None:
    rig = made(Slow())
    with rig:
        assert rig.served[0].is_none
        for _ in range(40):
            rig.answer()
            rig.wait()
    assert not rig.served[-1].is_none


def test_a_request_stops_a_reading_and_it_is_read_again() -> None:
    model = Slow(waits=True)
    rig = made(model)
    with rig:
        rig.answer()
        assert model.is_reading.wait(PATIENCE_S)
        lesson = rig.begin("b")  # ends the pass: else it would wait for ever
        assert len(model.reads) == 1
        assert not model.aborted
        model.waits = False
        rig.say(lesson)
        rig.wait()
        assert [read[0] for read in model.reads] == [
            DRAFTER.encode(prompt).tokens[0] for prompt in (b"a", b"a", b"b")
        ]


def test_nothing_is_studied_while_any_answer_is_written() -> None:
    rig = made(Slow())
    with rig:
        lesson = rig.begin("b")
        rig.answer()
        lesson.take(kept(TEXT))
        assert not rig.idle.wait(0.05)
        assert rig.model.reads == []
        lesson.close(None)
        rig.wait()
        assert len(rig.model.reads) == 1


def test_only_the_latest_answers_wait() -> None:
    model = Slow(waits=True)
    rig = made(model)
    with rig:
        for number in range(MOST_ANSWERS + 5):
            rig.answer(chr(ord("a") + number))
        model.waits = False
        model.go_on.set()
        rig.wait()
        firsts = [read[0] for read in model.reads]
        latest = [DRAFTER.encode(chr(ord("a") + n).encode()).tokens[0] for n in range(5, 21)]
        assert firsts[-MOST_ANSWERS + 1 :] == latest[1:]


@pytest.mark.parametrize("tokens", [[], TEXT[:1]])
def test_short_answers_do_no_harm(tokens: list[int]) -> None:
    rig = made(Slow())
    with rig:
        rig.answer(tokens=tokens)
        rig.wait()
    assert rig.lines == []


def test_a_failure_is_told_once_and_ends_it() -> None:
    rig = made(Slow(fails=True))
    with rig:
        for _ in range(3):
            rig.answer()
            rig.wait()
    assert len(rig.model.reads) == 1
    assert rig.lines == ["the drafter learns no more in this run: llama.cpp cannot compute"]


def test_what_was_learned_is_kept_at_the_end(tmp_path: Path) -> None:
    store = AdaptationStore(tmp_path)
    rig = made(Slow(), store)
    with rig:
        rig.answer()
        rig.wait()
        assert store.load(PAIR) is None
    saved = store.load(PAIR)
    assert saved is not None
    assert saved.history.num_answers == 1
    assert saved.state.way == ALONE


def test_without_answers_nothing_is_written(tmp_path: Path) -> None:
    store = AdaptationStore(tmp_path / "adaptations")
    with made(Slow(), store) as rig:
        rig.begin("a").close(None)
    assert not store.folder.exists()
