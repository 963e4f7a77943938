"""The files with which a drafter runs: whole or trimmed, and what it was trained to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.forms.trimmer import Trimmer
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import check_not_recurrent
from edgespec.learning.distillation.serving import merged, merged_path, serving
from edgespec.learning.distillation.trainings import TrainingStore
from edgespec.machine.facts import file_fingerprint
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.reports import Report
from edgespec.runtime.choice import Choice


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


def form_of(choice: Choice, trimmer: Trimmer | None) -> Form:
    """The files that run: trimmed if that was made by now, whole without a `trimmer`.

    Raises ModelFileError if the drafter cannot forget a wrong guess.
    """
    check_not_recurrent(GgufFile(choice.whole))
    if trimmer is None or choice.trimmed is not None:
        return Form(choice.whole, choice.trimmed if trimmer is not None else None)
    found = trimmer.found(choice.whole)
    return Form(choice.whole, found[0] if found is not None else None)


def with_training(
    form: Form, vocabulary: str, folder: Path, report: Report, pause: Pause | None = NO_PAUSE
) -> Form:
    """`form` with what was trained of it for targets of a vocabulary, by fingerprint, if anything.

    The first time after the drafter took another form, its changes are merged into that, which
    takes seconds; without a `pause` the LoRA runs beside it instead. What cannot be used is told in
    one line, and the drafter serves without. Raises what `pause` raises.
    """
    store = TrainingStore(folder)
    try:
        found = serving(store, vocabulary, file_fingerprint(form.whole))
        if found is None:
            return form
        lora, about = found
        is_made = merged_path(store, lora, form.running, file_fingerprint).exists()
        if about.way == "adapter" or (pause is None and not is_made):
            return dataclasses.replace(form, adapter=lora)
        between = pause or NO_PAUSE
        file = merged(store, lora, form.whole, form.running, file_fingerprint, between)
        return dataclasses.replace(form, merged=file)
    except Cancelled:
        raise
    except EdgeSpecError as error:
        report(f"{form.name} drafts without what it was trained: {error}")
        return form
