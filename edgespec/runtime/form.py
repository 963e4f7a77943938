"""The files with which a drafter runs: whole or trimmed, and what it was trained to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError
from edgespec.forms.trimmer import Trimmer
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import check_not_recurrent
from edgespec.learning.distillation.serving import merged, serving
from edgespec.learning.distillation.trainings import TrainingStore
from edgespec.machine.facts import file_fingerprint
from edgespec.reports import Report
from edgespec.runtime.choice import Choice
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.target import OpenTarget


@dataclass(frozen=True, slots=True)
class Form:
    """The model that drafts: the whole file, and the trimmed one that runs in its place, if any.

    One that was trained runs from `merged`, a copy of that, or with the LoRA `adapter` beside it.
    """

    whole: Path
    trimmed: Path | None = None
    merged: Path | None = None
    adapter: Path | None = None

    @property
    def running(self) -> Path:
        """The file whose layers draft."""
        return self.merged or self.trimmed or self.whole

    @property
    def name(self) -> str:
        """How statistics call it."""
        return self.whole.stem

    def describe(self) -> str:
        """Its name and the memory that its weights take, for people."""
        return f"{self.name} ({self.running.stat().st_size / 1e6:.0f} MB)"


def form_of(choice: Choice, request: LoadRequest, target: OpenTarget, trimmer: Trimmer) -> Form:
    """The files that run, made by `trimmer` if they are missing; whole where trimming is declined.

    Raises ModelFileError if the drafter cannot forget a wrong guess.
    """
    check_not_recurrent(GgufFile(choice.whole))
    if not request.trim:
        return Form(choice.whole)
    trimmed = choice.trimmed
    if trimmed is None and _is_smaller(choice.whole, target.model.path):
        trimmed = trimmer.trimmed(choice.whole, target.present_pass_ms)
    return Form(choice.whole, trimmed)


def with_training(form: Form, vocabulary: str, folder: Path, report: Report) -> Form:
    """`form` with what was trained of it for targets of a vocabulary, by fingerprint, if anything.

    The first time after the drafter took another form, its changes are merged into that, which
    takes seconds. What cannot be used is told in one line, and the drafter serves without.
    """
    store = TrainingStore(folder)
    try:
        found = serving(store, vocabulary, file_fingerprint(form.whole))
        if found is None:
            return form
        lora, about = found
        if about.way == "adapter":
            return dataclasses.replace(form, adapter=lora)
        file = merged(store, lora, form.whole, form.running, file_fingerprint)
        return dataclasses.replace(form, merged=file)
    except EdgeSpecError as error:
        report(f"{form.name} drafts without what it was trained: {error}")
        return form


def _is_smaller(drafter: Path, target: Path) -> bool:
    """A drafter as large as its target will be refused: not worth the time."""
    try:
        return drafter.stat().st_size < target.stat().st_size
    except OSError:  # loading it will tell
        return False
