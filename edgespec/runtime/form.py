"""The files with which a drafter runs: whole or trimmed, and what it was trained to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import Cancelled, EdgeSpecError
from edgespec.forms.trimmer import Trimmer
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import check_not_recurrent
from edgespec.learning.trained import merged, merged_path, serving
from edgespec.learning.trainings import TrainingStore
from edgespec.machine.facts import file_fingerprint
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.reports import Report
from edgespec.runtime.choice import Choice


@dataclass(frozen=True, slots=True)
class Form:
    """The model that drafts: the whole file, and the trimmed one that runs in its place, if any.

    One that was trained runs from `merged`, a copy of that.
    """

    whole: Path
    trimmed: Path | None = None
    merged: Path | None = None

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


@dataclass(frozen=True, slots=True)
class Trainings:
    """What drafters were trained for targets of a vocabulary, by fingerprint.

    That of the user's `own` models where it may serve, else what ships. `folder` has the files;
    `report` is told what cannot be used.
    """

    vocabulary: str
    folder: Path
    report: Report
    own: bool = True

    def of(self, form: Form, pause: Pause | None = NO_PAUSE) -> Form:
        """`form` with what was trained of it, if anything.

        After the drafter took another form, its changes are merged into that, which takes seconds;
        without a `pause` somebody waits, and it serves as it is until then. What cannot be used is
        told in one line, and the drafter serves without. Raises what `pause` raises.
        """
        store, bare = TrainingStore(self.folder), dataclasses.replace(form, merged=None)
        try:
            lora = serving(store, self.vocabulary, file_fingerprint(form.whole), own=self.own)
            if lora is None:
                return bare
            there = merged_path(store, lora, bare.running, file_fingerprint)
            if pause is None and not there.exists():
                return bare
            between = pause or NO_PAUSE
            file = merged(store, lora, form.whole, bare.running, file_fingerprint, between)
            return dataclasses.replace(form, merged=file)
        except Cancelled:
            raise
        except EdgeSpecError as error:
            self.report(f"{form.name} drafts without what it was trained: {error}")
            return bare
