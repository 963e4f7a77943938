"""A drafter that learns from its target: what it learned is taken back, and it learns on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import StorageError
from edgespec.learning.online.adaptations import AdaptationStore, History, Pair, Saved, read
from edgespec.learning.online.history import AdaptationHistory
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.reading import MOST_TOKENS, NUM_SINKS, WINDOW, LessonReader
from edgespec.learning.online.remap import moved
from edgespec.learning.online.student import Student
from edgespec.learning.online.version import Version
from edgespec.llama.context import Context
from edgespec.llama.draft_model import LlamaDraftModel
from edgespec.machine.facts import file_fingerprint
from edgespec.pauses import Pause
from edgespec.protocols import Observation
from edgespec.reports import Report
from edgespec.runtime.model_drafter import BoundDrafter, Running
from edgespec.runtime.observers import Observations
from edgespec.types import CompletionRequest, EncodedPrompt

_BATCH = 32
"""Tokens of a pass while studying: it bounds how long a request may wait for its end."""


class Studying:
    """Has a drafter learn between answers; goes on with what was learned when its head changes."""

    def __init__(
        self,
        bound: BoundDrafter,
        store: AdaptationStore,
        target_name: str,
        learns: bool,
        report: Report,
    ) -> None:
        """Serve what `bound` learned earlier; if it `learns`, it does so between answers.

        What cannot be read is told in one line and left alone until something better takes its
        place. Raises NativeLibraryError when there is no memory for the student's context.
        """
        self._bound = bound
        self._store = store
        self._target_name = target_name
        self._learns = learns
        self._report = report
        self.student: Student | None = None
        self._cleanup = contextlib.ExitStack()
        self.resume()

    def open(self, request: CompletionRequest, prompt: EncodedPrompt) -> Observation:
        """An answer begins (`edgespec.protocols.Observer`)."""
        student = self.student if request.record else None
        return Observations([student.open(request, prompt)] if student else [])

    @property
    def name(self) -> str:
        """What is done no more after it failed (`edgespec.runtime.idle.IdleTask`)."""
        return Student.name

    def run(self, pause: Pause) -> bool:
        """Study what was said."""
        return self.student is not None and self.student.run(pause)

    def resume(self) -> None:
        """Serve what was learned for the head as it is; only between answers."""
        with contextlib.ExitStack() as opened:
            self.student = open_student(
                self._bound, self._store, self._target_name, self._learns, self._report, opened
            )
            self._cleanup = opened.pop_all()

    def close(self) -> None:
        """Keep what was learned; may be called twice."""
        self.student = None
        self._cleanup.close()


def move_adaptations(
    store: AdaptationStore,
    before: tuple[str, NDArray[np.int32]],
    after: tuple[str, NDArray[np.int32]],
) -> None:
    """Take along what was learned for a head: its `fingerprint_of` and its rows' tokens.

    What cannot be read or written stays where it is, for that head.
    """
    for path in store.all():
        if before[0][:_IN_NAME] not in path.name:
            continue
        with contextlib.suppress(StorageError):
            saved = read(path)
            if saved.pair.drafter == before[0]:
                pair = dataclasses.replace(saved.pair, drafter=after[0])
                store.save(Saved(pair, saved.history, moved(saved.state, before[1], after[1])))
                store.delete([path])


_IN_NAME = 16
"""Digits of a drafter's fingerprint in the name of a file (`Pair.file_name`)."""


def open_student(
    bound: BoundDrafter,
    store: AdaptationStore,
    target_name: str,
    learns: bool,
    report: Report,
    cleanup: contextlib.ExitStack,
) -> Student | None:
    """Serve what `bound` learned earlier; if it `learns`, a student that does so between answers.

    What cannot be read is told in one line and left alone until something better takes its place.
    Raises NativeLibraryError when there is no memory for the student's context.
    """
    model = bound.draft_model.context.model
    pair = Pair(
        bound.vocabularies[0].fingerprint,
        fingerprint_of(bound.running),
        target_name,
        bound.drafter.name,
    )
    learner = Learner(len(bound.kept), model.num_embedding)
    saved = _load(store, pair, learner, report)
    if saved is not None:
        learner.resume(saved.state)

    def serve(version: Version) -> None:
        for model in bound.running.draft_models:
            model.correct = None if version.is_none else version.apply

    if not learns:
        serve(learner.serving)
        return None
    options = dataclasses.replace(
        bound.draft_model.context.options,
        num_sequences=1,
        num_context=NUM_SINKS + WINDOW + MOST_TOKENS + _BATCH,
        num_batch=_BATCH,
    )
    context = cleanup.enter_context(Context(model, options))
    context.use_adapter(bound.adapter)
    reader = LessonReader(LlamaDraftModel(context, bound.feed), bound.vocabularies, bound.kept)
    history = saved.history if saved is not None else History()
    keeping = AdaptationHistory(pair, store, history, report)
    student = Student(reader, learner, context, bound.render, serve, keeping)
    return cleanup.enter_context(student)


def fingerprint_of(running: Running) -> str:
    """Names what computes the hidden states: the file that runs and the LoRA beside it."""
    name = file_fingerprint(running.draft_model.context.model.path)
    if running.adapter is None:
        return name
    both = f"{name}|{file_fingerprint(running.adapter.path)}"
    return hashlib.sha256(both.encode()).hexdigest()[:32]


def _load(store: AdaptationStore, pair: Pair, learner: Learner, report: Report) -> Saved | None:
    """What was learned of this pair, if it fits."""
    try:
        saved = store.load(pair)
        if saved is not None and not learner.fits(saved.state):
            raise StorageError(
                f"{store.path(pair)} was learned for a head of another form",
                "`edgespec adapt reset` starts anew",
            )
    except StorageError as error:
        report(f"the drafter goes without what it learned: {error}")
        return None
    return saved
