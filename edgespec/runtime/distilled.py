"""A drafter as it was trained for this user: found when it loads, merged if that serves best."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgespec.errors import EdgeSpecError
from edgespec.learning.distillation.serving import merged, serving
from edgespec.learning.distillation.store import TrainingStore
from edgespec.machine.facts import file_fingerprint
from edgespec.reports import Report
from edgespec.runtime.request import DrafterFiles


def as_trained(files: DrafterFiles, target: str, folder: Path, report: Report) -> DrafterFiles:
    """`files` with what was trained of them for targets of the vocabulary `target`, if anything.

    The first time after the drafter took another form, its changes are merged into that, which
    takes seconds. What cannot be used is told in one line, and the drafter serves without.
    """
    store = TrainingStore(folder)
    try:
        found = serving(store, target, file_fingerprint(files.whole))
        if found is None:
            return files
        lora, about = found
        if about.way == "adapter":
            return dataclasses.replace(files, adapter=lora)
        file = merged(store, lora, files.whole, files.running, file_fingerprint)
        return dataclasses.replace(files, merged=file)
    except EdgeSpecError as error:
        report(f"{files.name} drafts without what it was trained: {error}")
        return files
