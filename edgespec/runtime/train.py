"""The work behind `edgespec adapt train`; importing this loads the native library.

recorded answers -> lessons in the drafter's tokens -> training (torch) -> LoRA -> gate -> store
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgespec.cache.database import Database, open_or_go_without
from edgespec.cache.facts import Facts
from edgespec.errors import StorageError, UsageError
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import file_sha256, read_trim_info
from edgespec.learning.distillation.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgespec.learning.distillation.lessons import Course
from edgespec.learning.distillation.lora import Lora
from edgespec.learning.distillation.lora_file import About, Way, write_lora
from edgespec.learning.distillation.lora_merge import merge
from edgespec.learning.distillation.serving import merged as merged_file
from edgespec.learning.distillation.training import (
    Arrays,
    Limits,
    Progress,
    Pupil,
    Training,
    TuningOptions,
    Watcher,
)
from edgespec.learning.distillation.trainings import TrainingStore
from edgespec.learning.distillation.verdict import Verdict, judge
from edgespec.llama import library
from edgespec.llama.model import ModelOptions
from edgespec.machine.facts import (
    file_fingerprint,
    known_soundness,
)
from edgespec.machine.identity import Machine, this_machine
from edgespec.models.gguf_check import check_gguf
from edgespec.paths import Paths
from edgespec.reports import Report, human_bytes
from edgespec.runtime.train_subject import Subject, SubjectReader
from edgespec.signals import ending_at_once


class TrainingDisplay(Protocol):
    """Shows how far a training is."""

    def step(self, progress: Progress, share: float) -> None:
        """After each step; `share` of the limit is over."""
        ...

    def judged(self, progress: Progress) -> None:
        """After each look at held-out answers."""
        ...


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


class Work:
    """One training, on one machine, with one database."""

    def __init__(
        self,
        request: TrainRequest,
        paths: Paths,
        database: Database,
        machine: Machine,
        report: Report,
    ) -> None:
        self._request = request
        self._machine = machine
        self._report = report
        extra = known_soundness(Facts(database), machine).use_extra_buffers
        self._options = ModelOptions(use_extra_buffers=extra)
        self._reader = SubjectReader(
            request.target, paths, database, machine, self._options, report
        )
        self._store = TrainingStore(paths.adaptations)

    def run(self, display: TrainingDisplay, is_stopped: Callable[[], bool]) -> Outcome:
        """Read, train, judge, keep."""
        whole = self._request.drafter or self._reader.best_drafter()
        subject, course, num_answers = self._reader.read(whole)
        before = self._resumed(subject) if self._request.resume else None
        options = before.options if before is not None else TuningOptions()
        pupil, progress = self._pupil(subject, options), Progress()
        if before is not None:
            path = self._store.training(*subject.fingerprints)
            progress = _resume(pupil, before, course, path)
        training = Training(pupil, course, options, time.monotonic, progress)
        if not self._train(training, course, subject, display, is_stopped):
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

        from edgespec.learning.distillation.decoder import Decoder, fastest_dtype
        from edgespec.learning.distillation.pupil import TorchPupil

        torch.set_num_threads(self._machine.num_threads)
        decoder = Decoder(GgufFile(subject.whole), subject.kept, fastest_dtype())
        return TorchPupil(decoder, subject.kept, subject.num_tokens, options)

    def _train(
        self,
        training: Training,
        course: Course,
        subject: Subject,
        display: TrainingDisplay,
        is_stopped: Callable[[], bool],
    ) -> bool:
        """Train until a limit, keeping checkpoints; False if it was stopped."""
        request, path = self._request, self._store.training(*subject.fingerprints)
        self._store.ensure()

        def keep(progress: Progress, state: Arrays) -> None:
            names = (subject.target.stem, subject.whole.stem)
            pair = (*subject.fingerprints, *names)
            options, guide = training.options, course.guide_id
            write_checkpoint(Checkpoint(*pair, options, progress, state, guide), path)
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
        with self._store.scratch(destination) as name:
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
                    self._reader.pass_ms(),
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


def _resume(pupil: Pupil, checkpoint: Checkpoint, course: Course, path: Path) -> Progress:
    """Have a new pupil go on; what another guide said of it does not count.

    Raises StorageError if the checkpoint at `path` does not fit.
    """
    progress = dataclasses.replace(checkpoint.progress, num_since_best=0)
    if checkpoint.guide != course.guide_id:
        alone = pupil.judge(course.guide)
        progress = dataclasses.replace(progress, alone=alone, best=None, best_lora=None)
    try:
        pupil.restore(checkpoint.state)
    except (KeyError, ValueError) as error:
        raise StorageError(f"{path} does not fit ({error})", "train without --resume") from error
    return progress


def train_drafter(
    request: TrainRequest,
    paths: Paths,
    display: TrainingDisplay,
    is_stopped: Callable[[], bool],
    report: Report,
) -> Outcome:
    """Train as asked; raises UsageError, ModelFileError, StorageError and other EdgeSpecErrors."""
    check_gguf(request.target)
    library.set_verbose(request.verbose)
    machine = this_machine(request.num_threads)
    with open_or_go_without(paths.database, report) as database:
        return Work(request, paths, database, machine, report).run(display, is_stopped)
