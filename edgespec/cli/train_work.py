"""The work behind `edgespec adapt train`; importing this loads the native library.

recorded answers -> lessons in the drafter's tokens -> training (torch) -> LoRA -> gate -> store
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.conversations import Conversations
from edgespec.cache.database import DAMAGE, Database
from edgespec.cache.facts import Facts
from edgespec.cache.sessions import recorded_answers
from edgespec.cache.tokens import VocabularyKey
from edgespec.cli.model_drafting import Renderer
from edgespec.cli.pairing import expected_speed_of
from edgespec.cli.pull_progress import human_bytes
from edgespec.cli.remembering import open_or_go_without
from edgespec.cli.signals import ending_at_once
from edgespec.cli.train import TrainingDisplay
from edgespec.cli.trimming import pass_costs
from edgespec.errors import EdgeSpecError, StorageError, UsageError
from edgespec.llama import library
from edgespec.llama.gguf_file import GgufFile
from edgespec.llama.model import Model, ModelOptions
from edgespec.measure.drafting import USUAL_PASS_MS
from edgespec.measure.facts import (
    MODEL,
    ModelFacts,
    file_fingerprint,
    known_soundness,
    model_key,
)
from edgespec.measure.machine import Machine, this_machine
from edgespec.measure.trimmed import Trimmer
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.paths import user_paths
from edgespec.reports import Report
from edgespec.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgespec.train.form import read_form
from edgespec.train.lessons import LEAST_ANSWERS, Course, course_of
from edgespec.train.lora import Lora
from edgespec.train.lora_file import About, Way, write_lora
from edgespec.train.merging import merge
from edgespec.train.serving import merged as merged_file
from edgespec.train.sessions import SessionReader
from edgespec.train.store import TrainingStore
from edgespec.train.training import (
    Arrays,
    Limits,
    Progress,
    Pupil,
    Training,
    TuningOptions,
    Watcher,
)
from edgespec.train.verdict import Verdict, judge
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.trim import file_sha256, is_trimmed, read_trim_info

MOST_ANSWERS = 4000
"""The latest answers are learned from: a few megabytes of tokens."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `edgespec adapt train` is asked for; None leaves a choice open."""

    target: Path
    drafter: Path | None
    num_steps: int | None
    seconds: float | None
    resume: bool
    num_threads: int | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, for people; `is_stopped` if there was no time to judge it."""

    line: str
    is_stopped: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Who is trained: the whole drafter, the form that runs, its head's rows, and for whom."""

    target: Path
    whole: Path
    trimmed: Path | None
    kept: NDArray[np.int32]
    num_tokens: int
    fingerprints: tuple[str, str]

    @property
    def running(self) -> Path:
        """The file that drafts."""
        return self.trimmed or self.whole


class Work:
    """One training, on one machine, with one database."""

    def __init__(
        self, request: TrainRequest, database: Database, machine: Machine, report: Report
    ) -> None:
        self._request = request
        self._database = database
        self._facts = Facts(database)
        self._machine = machine
        self._report = report
        extra = known_soundness(self._facts, machine).use_extra_buffers
        self._options = ModelOptions(use_extra_buffers=extra)
        self._store = TrainingStore(user_paths().adaptations)

    def run(self, display: TrainingDisplay, is_stopped: Callable[[], bool]) -> Outcome:
        """Read, train, judge, keep."""
        whole = self._request.drafter or self._best_drafter()
        subject, course, num_answers = self._read(whole)
        before = self._resumed(subject) if self._request.resume else None
        options = before.options if before is not None else TuningOptions()
        pupil = self._pupil(subject, options)
        if before is not None:
            _restore(pupil, before, self._store.training(*subject.fingerprints))
        progress = before.progress if before is not None else Progress()
        progress = dataclasses.replace(progress, num_since_best=0)
        training = Training(pupil, course, options, time.monotonic, progress)
        if not self._train(training, subject, options, display, is_stopped):
            return Outcome(
                f"stopped after {training.progress.num_steps} steps;"
                " `edgespec adapt train --resume` goes on",
                is_stopped=True,
            )
        del pupil
        best = training.progress.best_lora
        assert best is not None  # every training is judged at least once
        about = self._about(subject, training.progress.num_steps, num_answers)
        return self._decided(subject, best, about, course)

    def _best_drafter(self) -> Path:
        """The one that `auto` would take, by what was measured of the models on disk."""
        folder, target = user_paths().trimmed, self._request.target
        trimmer = Trimmer(folder, self._facts, self._machine, self._options)
        speeds = {}
        for stored in ModelStore(user_paths()).list():
            if stored.path != target and stored.size_bytes < target.stat().st_size:
                with contextlib.suppress(EdgeSpecError):  # nobody asked for it by name
                    form = trimmer.form(stored.path)
                    if form is not None:
                        speeds[stored.path] = expected_speed_of(form)
        if not speeds:
            raise UsageError("no drafter was measured yet", "say which with --drafter")
        return max(speeds, key=lambda path: speeds[path])

    def _read(self, whole: Path) -> tuple[Subject, Course, int]:
        """Who is trained, and on what."""
        check_gguf(whole)
        if is_trimmed(whole):
            raise UsageError(f"{whole.name} is trimmed", "give the model it was made from")
        read_form(GgufFile(whole))  # refuses what cannot be trained before anything takes time
        folder = user_paths().trimmed
        trimmer = Trimmer(folder, self._facts, self._machine, self._options, self._report)
        with ending_at_once():
            trimmed = trimmer.trimmed(whole, self._pass_ms)
        only_words = ModelOptions(vocabulary_only=True)
        with contextlib.ExitStack() as opened:
            with ending_at_once():
                target = opened.enter_context(Model(self._request.target, only_words))
                drafter = opened.enter_context(Model(whole, only_words))
            vocabularies = ByteTokenizer(target.vocab), ByteTokenizer(drafter.vocab)
            num_tokens = drafter.vocab.num_tokens
            info = read_trim_info(trimmed) if trimmed is not None else None
            kept = np.arange(num_tokens, dtype=np.int32) if info is None else info.kept
            key = VocabularyKey(vocabularies[0].fingerprint, target.vocab.num_tokens)
            course, num_answers = self._course(vocabularies, drafter, key)
        fingerprints = (key.fingerprint, file_fingerprint(whole))
        subject = Subject(self._request.target, whole, trimmed, kept, num_tokens, fingerprints)
        return subject, course, num_answers

    def _course(
        self, vocabularies: tuple[ByteTokenizer, ByteTokenizer], drafter: Model, key: VocabularyKey
    ) -> tuple[Course, int]:
        conversations = Conversations(self._database.connection)
        reader = SessionReader(
            vocabularies,
            Renderer(drafter),
            lambda name: [(turn.role, turn.content) for turn in conversations.messages(name)],
        )
        try:
            answers = list(recorded_answers(self._database.connection, key, MOST_ANSWERS))
            read = list(reader.read_all((a.tokens, a.context, a.conversation) for a in answers))
        except DAMAGE as error:
            raise StorageError(
                f"the database cannot be read ({error})", "run `edgespec db check`"
            ) from error
        if len(read) < LEAST_ANSWERS:
            raise UsageError(
                f"{len(read)} answers of {self._request.target.stem} are recorded, too few to learn"
                f" from",
                f"chat on until there are {LEAST_ANSWERS}",
            )
        return course_of(read), len(read)

    def _pass_ms(self) -> Mapping[int, float]:
        """T(r) of the target if it was measured."""
        words = ModelOptions(self._options.use_extra_buffers, vocabulary_only=True)
        with Model(self._request.target, words) as model:
            known = self._facts.get(MODEL, model_key(model, self._machine))
        facts = ModelFacts.from_json(known) if known is not None else None
        return USUAL_PASS_MS if facts is None else pass_costs(facts)

    def _resumed(self, subject: Subject) -> Checkpoint:
        path = self._store.training(*subject.fingerprints)
        if not path.exists():
            raise UsageError(
                f"no training of {subject.whole.stem} for {subject.target.stem} was begun",
                "leave out --resume",
            )
        found = read_checkpoint(path)
        if (found.target, found.drafter) != subject.fingerprints:
            raise StorageError(f"{path} is of another pair of models", "train without --resume")
        return found

    def _pupil(self, subject: Subject, options: TuningOptions) -> Pupil:
        import torch  # an extra, and seconds to load

        from edgespec.train.decoder import Decoder, fastest_dtype
        from edgespec.train.pupil import TorchPupil

        torch.set_num_threads(self._machine.num_threads)
        decoder = Decoder(GgufFile(subject.whole), subject.kept, fastest_dtype())
        return TorchPupil(decoder, subject.kept, subject.num_tokens, options)

    def _train(
        self,
        training: Training,
        subject: Subject,
        options: TuningOptions,
        display: TrainingDisplay,
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Train until a limit, keeping checkpoints; False if it was stopped."""
        request, path = self._request, self._store.training(*subject.fingerprints)
        self._store.ensure()

        def keep(progress: Progress, state: Arrays) -> None:
            names = (subject.target.stem, subject.whole.stem)
            kept = Checkpoint(*subject.fingerprints, *names, options, progress, state)
            write_checkpoint(kept, path)
            display.judged(progress)

        def told(progress: Progress, seconds: float) -> None:
            shares = [seconds / request.seconds] if request.seconds is not None else []
            if request.num_steps is not None:
                shares.append(progress.num_steps / request.num_steps)
            display.step(progress, max(shares, default=0.0))

        limits = Limits(request.num_steps, request.seconds)
        return training.run(limits, Watcher(told, keep), is_stopped)

    def _about(self, subject: Subject, num_steps: int, num_answers: int) -> About:
        info = read_trim_info(subject.trimmed) if subject.trimmed is not None else None
        sha256 = file_sha256(subject.whole) if info is None else info.parent_sha256
        names = (subject.target.stem, subject.whole.stem)
        return About(
            *subject.fingerprints, *names, sha256, "merged", num_steps, num_answers, 0, 0.0, 0.0
        )

    def _decided(self, subject: Subject, lora: Lora, about: About, course: Course) -> Outcome:
        """The gate: keep what was learned if it may serve."""
        self._report("measuring what was learned")
        destination = self._store.lora(*subject.fingerprints)
        scratch_name = f".{destination.name}."
        with tempfile.TemporaryDirectory(prefix=scratch_name, dir=self._store.folder) as name:
            candidate, merged = Path(name, "candidate.gguf"), Path(name, "merged.gguf")
            architecture = GgufFile(subject.whole).architecture
            write_lora(lora, about, architecture, candidate)
            merge(lora, subject.whole, subject.running, merged)
            forms: dict[Way | None, tuple[Path, Path | None]] = {
                None: (subject.running, None),
                "adapter": (subject.running, candidate),
                "merged": (merged, None),
            }
            with ending_at_once():
                verdict = judge(
                    subject.whole,
                    forms,
                    course.judge,
                    self._pass_ms(),
                    self._options,
                    self._machine.num_threads,
                )
            if verdict.way is None:
                return Outcome(f"{_told(subject, verdict)}; it is kept out")
            about = dataclasses.replace(
                about,
                way=verdict.way,
                num_judged=verdict.num_judged,
                share_alone=verdict.alone.share,
                share_trained=verdict.ways[verdict.way].share,
            )
            write_lora(lora, about, architecture, destination)
        if verdict.way == "merged":
            merged_file(self._store, destination, subject.whole, subject.running, file_fingerprint)
        size = human_bytes(destination.stat().st_size)
        return Outcome(f"{_told(subject, verdict)}; it serves from now on ({verdict.way}, {size})")


def _told(subject: Subject, verdict: Verdict) -> str:
    ways = ", ".join(
        f"{figures.share:.3f} {way} at {figures.token_ms:.1f} ms"
        for way, figures in verdict.ways.items()
    )
    return (
        f"of {verdict.num_judged:,} held-out tokens {subject.whole.stem} guesses"
        f" {verdict.alone.share:.3f} as it was at {verdict.alone.token_ms:.1f} ms each, {ways}"
    )


def _restore(pupil: Pupil, checkpoint: Checkpoint, path: Path) -> None:
    try:
        pupil.restore(checkpoint.state)
    except (KeyError, ValueError) as error:
        raise StorageError(f"{path} does not fit ({error})", "train without --resume") from error


def carry_out(
    request: TrainRequest,
    display: TrainingDisplay,
    is_stopped: Callable[[], bool],
    report: Report,
) -> Outcome:
    """Train as asked; raises UsageError, ModelFileError, StorageError and other EdgeSpecErrors."""
    check_gguf(request.target)
    library.set_verbose(request.verbose)
    machine = this_machine()
    if request.num_threads is not None:
        machine = dataclasses.replace(machine, num_threads=request.num_threads)
    with open_or_go_without(user_paths().database, report) as database:
        return Work(request, database, machine, report).run(display, is_stopped)
