"""A drafter that learns from its target: what it learned is taken back, and it learns on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib

from edgespec.adapt.keeping import Keeping
from edgespec.adapt.learner import Learner
from edgespec.adapt.reading import MOST_TOKENS, NUM_SINKS, WINDOW, LessonReader
from edgespec.adapt.store import AdaptationStore, History, Pair, Saved
from edgespec.adapt.student import Student
from edgespec.adapt.version import Version
from edgespec.cli.model_drafting import BoundDrafter
from edgespec.errors import StorageError
from edgespec.llama.context import Context
from edgespec.llama.draft_model import LlamaDraftModel
from edgespec.measure.facts import file_fingerprint
from edgespec.reports import Report

_BATCH = 32
"""Tokens of a pass while studying: it bounds how long a request may wait for its end."""


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
        _fingerprint(bound),
        target_name,
        bound.drafter.name,
    )
    learner = Learner(len(bound.kept), model.num_embedding)
    saved = _load(store, pair, learner, report)
    if saved is not None:
        learner.resume(saved.state)

    def serve(version: Version) -> None:
        bound.draft_model.correct = None if version.is_none else version.apply

    if not learns:
        serve(learner.serving)
        return None
    options = dataclasses.replace(
        bound.draft_model.context.options,
        num_context=NUM_SINKS + WINDOW + MOST_TOKENS + _BATCH,
        num_batch=_BATCH,
    )
    context = cleanup.enter_context(Context(model, options))
    context.use_adapter(bound.adapter)
    reader = LessonReader(LlamaDraftModel(context, bound.feed), bound.vocabularies, bound.kept)
    history = saved.history if saved is not None else History()
    keeping = Keeping(pair, store, history, report)
    student = Student(reader, learner, context, bound.render, serve, keeping, report)
    return cleanup.enter_context(student)


def _fingerprint(bound: BoundDrafter) -> str:
    """Names what computes the hidden states: the file that runs and the LoRA beside it."""
    name = file_fingerprint(bound.draft_model.context.model.path)
    if bound.adapter is None:
        return name
    both = f"{name}|{file_fingerprint(bound.adapter.path)}"
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
