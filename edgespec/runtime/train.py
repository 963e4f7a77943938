"""The work behind `edgespec learn drafter`; importing this loads the native library.

recorded answers, a corpus -> lessons in the drafter's tokens -> training -> LoRA -> gate -> store
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.database import open_or_go_without
from edgespec.cache.facts import Facts
from edgespec.errors import Cancelled, StorageError, UsageError
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import file_sha256, read_trim_info
from edgespec.learning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgespec.learning.claim import ByItself
from edgespec.learning.lessons import Course
from edgespec.learning.lora import About, Lora, merge, read_lora, write_lora
from edgespec.learning.trained import merged, serving, set_aside, take_back
from edgespec.learning.training import (
    Arrays,
    Limits,
    Progress,
    Pupil,
    Show,
    Training,
    TuningOptions,
    Watcher,
)
from edgespec.learning.trainings import TrainingStore
from edgespec.learning.verdict import judge
from edgespec.llama import library
from edgespec.llama.model import ModelOptions
from edgespec.machine.facts import file_fingerprint, known_soundness
from edgespec.machine.identity import this_machine
from edgespec.models.gguf_check import check_gguf
from edgespec.paths import Paths
from edgespec.reports import Report, human_bytes
from edgespec.runtime.request import Source
from edgespec.runtime.train_subject import Subject, SubjectReader
from edgespec.signals import ending_at_once


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `edgespec learn drafter` is asked for; None leaves a choice open."""

    target: Path
    drafter: Path | None
    source: Source
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
    serves: bool = False


def train_drafter(
    request: TrainRequest,
    paths: Paths,
    show: Show,
    is_stopped: Callable[[], bool],
    report: Report,
    by_itself: ByItself | None = None,
) -> Outcome:
    """Train as asked; raises UsageError, ModelFileError, StorageError and other EdgeSpecErrors.

    A training `by_itself` raises Cancelled as soon as it is wanted no more.
    """
    check_gguf(request.target)
    library.set_verbose(request.verbose)
    machine = this_machine(request.num_threads)
    with open_or_go_without(paths.database, report) as database:
        extra = known_soundness(Facts(database), machine).use_extra_buffers
        options = ModelOptions(use_extra_buffers=extra)
        reader = SubjectReader(request.target, paths, database, machine, options, report)
        subject, course = reader.read(request.drafter or reader.best_drafter(), request.source)
        store = TrainingStore(paths.adaptations)
        served = _served(store, subject, report)
        start = _Start.of(store, subject, served, request.resume, machine.num_threads, by_itself)
        store.ensure()
        training = _begun(subject, course, start)
        keep = _keeper(subject, course, training.options, start.path)
        if by_itself is not None:
            keep = by_itself.watched(keep, start.path)
        limits = Limits.of(course, training.options, request.num_steps, request.seconds)
        if not training.run(limits, Watcher(show, keep), is_stopped):
            return Outcome(
                f"stopped after {training.progress.num_steps} steps;"
                " `edgespec learn drafter --resume` goes on",
                is_stopped=True,
            )
        progress = training.progress
        del training  # and the memory that it takes
        report("measuring what was learned")
        running = subject.running
        if served is not None:
            running = merged(store, served, subject.whole, running, file_fingerprint)
        judging = _Judging(reader.pass_ms(), options, start.num_threads)
        outcome = _judged(subject, progress, course, store, running, judging, by_itself)
        if by_itself is not None:
            start.path.unlink(missing_ok=True)  # the next one begins with what serves
        return outcome


def _served(store: TrainingStore, subject: Subject, report: Report) -> Path | None:
    """The LoRA that serves by now, the user's own or the one that ships; None if there is none."""
    try:
        return serving(store, *subject.fingerprints)
    except StorageError as error:
        report(f"begun anew: {error}")
        return None


def _read_checkpoint(subject: Subject, path: Path) -> Checkpoint:
    if not path.exists():
        raise UsageError(
            f"no training of {subject.whole.stem} for {subject.target.stem} was begun",
            "leave out --resume",
        )
    found = read_checkpoint(path)
    if (found.target, found.drafter) != subject.fingerprints:
        raise StorageError(f"{path} is of another pair of models", "train without --resume")
    return found


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a training begins, and how it computes: `clock` gives its seconds.

    With the checkpoint `before` at `path` if there is one, else with the `lora` that serves, if
    that changes the same matrices; one that `is_lenient` does without what does not fit.
    """

    path: Path
    before: Checkpoint | None
    lora: Lora | None
    num_threads: int
    clock: Callable[[], float]
    is_lenient: bool

    @staticmethod
    def of(
        store: TrainingStore,
        subject: Subject,
        served: Path | None,
        resume: bool,
        num_threads: int,
        by_itself: ByItself | None,
    ) -> _Start:
        """As it was asked for, or by itself, when all was read."""
        lora = read_lora(served)[0] if served is not None else None
        if by_itself is None:
            path = store.training(*subject.fingerprints)
            before = _read_checkpoint(subject, path) if resume else None
            return _Start(path, before, lora, num_threads, time.monotonic, False)
        by_itself.begin()
        store.drop_abandoned()
        path, before = store.idle(*subject.fingerprints), None
        with contextlib.suppress(UsageError, StorageError):
            before = _read_checkpoint(subject, path)
        return _Start(path, before, lora, max(num_threads - 1, 1), time.thread_time, True)


def _begun(subject: Subject, course: Course, start: _Start) -> Training:
    """A training; raises StorageError if what is to be gone on with does not fit."""
    import torch  # an extra, and seconds to load

    from edgespec.learning.decoder import Decoder, fastest_dtype
    from edgespec.learning.pupil import TorchPupil

    torch.set_num_threads(start.num_threads)
    decoder = Decoder(GgufFile(subject.whole), subject.kept, fastest_dtype())
    before = start.before
    options = before.options if before is not None else TuningOptions()
    pupil = TorchPupil(decoder, subject.kept, subject.num_tokens, options)
    progress = Progress()
    try:
        if before is not None:
            progress = _resume(pupil, before, course, start.path)
    except StorageError:
        if not start.is_lenient:
            raise
        return _begun(subject, course, dataclasses.replace(start, before=None))
    if before is None and start.lora is not None:
        with contextlib.suppress(ValueError):  # of another form: it begins with nothing
            pupil.adopt(start.lora)
    return Training(pupil, course, options, start.clock, progress)


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


def _keeper(
    subject: Subject, course: Course, options: TuningOptions, path: Path
) -> Callable[[Progress, Arrays], None]:
    """Writes checkpoints to `path`."""
    pair = (*subject.fingerprints, subject.target.stem, subject.whole.stem)
    guide = course.guide_id

    def keep(progress: Progress, state: Arrays) -> None:
        write_checkpoint(Checkpoint(*pair, options, progress, state, guide), path)

    return keep


@dataclass(frozen=True, slots=True)
class _Judging:
    """With what drafters are judged: T(r) of the target, and how they are loaded."""

    pass_ms: Mapping[int, float]
    options: ModelOptions
    num_threads: int


def _judged(
    subject: Subject,
    progress: Progress,
    course: Course,
    store: TrainingStore,
    served: Path,
    judging: _Judging,
    by_itself: ByItself | None,
) -> Outcome:
    """The gate: keep what was learned if it may serve in place of the file `served`."""
    lora = progress.best_lora
    assert lora is not None  # every training is judged at least once
    whole, running = subject.whole, subject.running
    with store.scratch() as folder:
        candidate = Path(folder, "merged.gguf")
        merge(lora, whole, running, candidate)
        with ending_at_once():
            verdict = judge(
                whole,
                served,
                candidate,
                course.judge,
                judging.pass_ms,
                judging.options,
                judging.num_threads,
            )
    told = (
        f"of {verdict.num_judged:,} held-out tokens {whole.stem} guesses"
        f" {verdict.share_alone:.3f} as it was, {verdict.share_trained:.3f} as trained"
    )
    if not verdict.serves:
        return Outcome(f"{told}; it is kept out")
    info = read_trim_info(running)
    about = About(
        *subject.fingerprints,
        subject.target.stem,
        whole.stem,
        file_sha256(whole) if info is None else info.parent_sha256,
        progress.num_steps,
        course.num_answers,
        verdict.num_judged,
        verdict.share_alone,
        verdict.share_trained,
        by_itself is not None,
    )
    path = store.lora(*subject.fingerprints)
    if by_itself is not None:
        by_itself.require()
        set_aside(store, path)
    write_lora(lora, about, GgufFile(whole).architecture, path)
    merged(store, path, whole, running, file_fingerprint)
    size = human_bytes(path.stat().st_size)
    if by_itself is not None and not by_itself.is_wanted():
        take_back(store, path)
        raise Cancelled
    return Outcome(f"{told}; it serves from now on ({size})", serves=True)
