"""What a training reads before it begins: who is trained, on what, and where it goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rigs import SMALL
from tiny_models import write_tiny_model
from train_support import BigramPupil, record_answers, ring_course

from edgespec.cache.database import Database, open_database
from edgespec.cache.facts import Facts
from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.forms.trimmer import TRIM, Trimmer
from edgespec.forms.trimming import AS_SHIPPED, Decision
from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.forms.words import shipped_words_id
from edgespec.gguf.trim import write_trimmed
from edgespec.learning.checkpoint import Checkpoint
from edgespec.learning.corpus import NO_TOKEN, NUM_TOP, Corpus, Said, Top
from edgespec.learning.lessons import HELD_OUT, LEAST_ANSWERS
from edgespec.learning.training import Judged, Progress, TuningOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.facts import file_fingerprint
from edgespec.machine.identity import this_machine
from edgespec.paths import user_paths
from edgespec.runtime.choice import LEAST_SPEED
from edgespec.runtime.train import _resume
from edgespec.runtime.train_subject import SubjectReader
from edgespec.types import Message

MACHINE = dataclasses.replace(this_machine(), num_threads=1)
OPTIONS = ModelOptions()
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384)


@dataclasses.dataclass
class Reading:
    """A target with recorded answers, a drafter, and what reads them."""

    target: Path
    whole: Path
    home: Path
    database: Database

    @property
    def reader(self) -> SubjectReader:
        return SubjectReader(
            self.target, user_paths(), self.database, MACHINE, OPTIONS, lambda _line: None
        )

    def decide(self, whole: Path) -> None:
        """Remember that a drafter runs as it is, so that nothing is measured."""
        facts = Facts(self.database)
        trimmer = Trimmer(user_paths().trimmed, facts, MACHINE, OPTIONS)
        form = Decision(384, AS_SHIPPED, counts=shipped_words_id(), is_whole=True)
        facts.put(TRIM, trimmer.key(whole), form.to_json())


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reading]:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    user_paths().models.mkdir()
    target = write_tiny_model(user_paths().models / "target.gguf", SMALL)
    whole = write_tiny_model(
        user_paths().models / "small.gguf", dataclasses.replace(DRAFTER, num_layers=1)
    )
    record_answers(tmp_path, target, 3 * HELD_OUT)
    with open_database(tmp_path / "edgespec.db") as database:
        yield Reading(target, whole, tmp_path, database)


def test_recorded_answers_become_a_course(reading: Reading) -> None:
    reading.decide(reading.whole)
    subject, course = reading.reader.read(reading.whole, "all")
    assert (subject.whole, subject.trimmed, subject.running) == (
        reading.whole,
        None,
        reading.whole,
    )
    assert np.array_equal(subject.kept, np.arange(384))
    assert subject.num_tokens == 384
    assert subject.fingerprints[1] == file_fingerprint(reading.whole)
    assert course.num_answers == 3 * HELD_OUT
    assert len(course.guide) == 2
    assert len(course.judge) == 1
    assert len(course.lessons) >= 2 * HELD_OUT
    assert max(max(lesson.tokens) for lesson in course.lessons) < 384


def keep_corpus(reading: Reading, num_answers: int) -> None:
    """Answers in which the target was sure of every token."""
    with Model(reading.target, ModelOptions(vocabulary_only=True)) as target:
        tokens = np.array(target.vocab.tokenize(b"The river runs to the sea."), np.int32)
    top = np.full((len(tokens), NUM_TOP), NO_TOKEN, np.int32)
    top[:, 0] = tokens
    logprobs = np.where(top == NO_TOKEN, -np.inf, 0.0).astype(np.float16)
    asked = (Message("user", "Where does the river run?"),)
    answers = [
        Said(str(number), 0, "facts", 0.0, asked, "", tokens, Top(top, logprobs), None)
        for number in range(num_answers)
    ]
    Corpus(user_paths().corpora, file_fingerprint(reading.target)).append(answers)


def test_a_corpus_is_learned_from_with_what_the_target_held_likely(reading: Reading) -> None:
    reading.decide(reading.whole)
    with pytest.raises(UsageError, match="learn corpus"):
        reading.reader.read(reading.whole, "corpus")
    keep_corpus(reading, 2 * HELD_OUT)
    _, course = reading.reader.read(reading.whole, "corpus")
    assert course.num_answers == 2 * HELD_OUT
    for lesson in (*course.lessons, *course.guide, *course.judge):
        assert lesson.soft is not None
        said = lesson.tokens[lesson.first :]
        assert len(lesson.soft.tokens) == len(said) > 0
        told = lesson.soft.probabilities.sum(1)
        assert told[0] == 1.0
        assert set(told.tolist()) <= {0.0, 1.0}
        for token, tokens, share in zip(said, lesson.soft.tokens, told, strict=True):
            assert tokens[0] == (token if share else NO_TOKEN)
    both = reading.reader.read(reading.whole, "all")[1]
    assert both.num_answers == 5 * HELD_OUT
    assert {lesson.soft is None for lesson in both.lessons} == {True, False}


def test_the_best_drafter_is_one_that_was_measured(reading: Reading) -> None:
    with pytest.raises(UsageError, match="say which with --drafter"):
        reading.reader.best_drafter()
    reading.decide(reading.whole)
    assert reading.reader.best_drafter() == reading.whole
    unsure = Decision(384, AS_SHIPPED, is_sure=False, counts=shipped_words_id(), is_whole=True)
    assert LEAST_SPEED > 1.0
    other = write_tiny_model(
        user_paths().models / "other.gguf", dataclasses.replace(DRAFTER, num_layers=1, seed=4)
    )
    facts = Facts(reading.database)
    key = Trimmer(user_paths().trimmed, facts, MACHINE, OPTIONS).key(other)
    facts.put(TRIM, key, unsure.to_json())
    assert reading.reader.best_drafter() == other  # it has the benefit of the doubt


def test_a_target_that_was_not_measured_costs_what_targets_do(reading: Reading) -> None:
    assert reading.reader.pass_ms() == USUAL_PASS_MS


def test_what_is_no_drafter_to_be_trained(reading: Reading, tmp_path: Path) -> None:
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(reading.whole, trimmed, np.arange(100, dtype=np.int32), "test")
    with pytest.raises(UsageError, match="trimmed"):
        reading.reader.read(trimmed, "all")
    hybrid = write_tiny_model(
        tmp_path / "hybrid.gguf", dataclasses.replace(SMALL, architecture="lfm2")
    )
    with pytest.raises(ModelFileError, match="its architecture is lfm2"):
        reading.reader.read(hybrid, "all")


def test_answers_that_are_too_few_or_cannot_be_read(reading: Reading) -> None:
    reading.decide(reading.whole)
    connection = reading.database.connection
    connection.execute("DELETE FROM sequences WHERE id > ?", (LEAST_ANSWERS - 1,))
    with pytest.raises(UsageError, match=f"{LEAST_ANSWERS - 1} answers of target are kept"):
        reading.reader.read(reading.whole, "all")
    connection.execute("DROP TABLE blocks")
    with pytest.raises(StorageError, match="edgespec db check"):
        reading.reader.read(reading.whole, "all")


def test_figures_of_another_guide_do_not_count(tmp_path: Path) -> None:
    course, pupil = ring_course(), BigramPupil(12)
    alone = pupil.judge(course.guide)
    trained = BigramPupil(12)
    for lesson in course.lessons:
        trained.study(lesson)
    trained.step()
    progress = Progress(30, 95, 2, 0.75, Judged(9, 5, 1.0), Judged(9, 6, 0.1), trained.lora())
    names = ("1" * 32, "2" * 32, "big", "small")
    kept = Checkpoint(*names, TuningOptions(), progress, trained.state(), course.guide_id)
    assert _resume(BigramPupil(12), kept, course, tmp_path).best == progress.best

    other = dataclasses.replace(kept, guide="of other lessons")
    resumed = _resume(pupil, other, course, tmp_path)
    assert (resumed.alone, resumed.best, resumed.best_lora) == (alone, None, None)
    assert (resumed.num_steps, resumed.num_since_best) == (30, 0)
    assert pupil.judge(course.guide) == trained.judge(course.guide) != alone

    with pytest.raises(StorageError, match="does not fit"):
        _resume(BigramPupil(13), kept, course, tmp_path)
