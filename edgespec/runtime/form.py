"""The trimmed form of the drafter that is to be loaded: found, made at first use, or given.

A trimmed file that is given as drafter runs beside the model that it was made from: that reads the
text and has the embeddings of every token.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from edgespec.errors import ChecksumError, ModelFileError
from edgespec.forms.trimmer import Trimmer
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import check_not_recurrent, file_sha256, is_trimmed, read_trim_info
from edgespec.llama.model import Model
from edgespec.machine.facts import ModelFacts, file_fingerprint
from edgespec.machine.identity import Machine
from edgespec.machine.probe import probe_single_rows
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.protocols import FactStore
from edgespec.reports import Report
from edgespec.runtime.choice import best_drafter
from edgespec.runtime.fit import PairMemory
from edgespec.runtime.request import BEST_DRAFTER, DrafterFiles, LoadOptions

_SHA256 = "sha256"
_MOST_DRIFT = 3.0
_USUAL_CONTEXT = 256
"""Tokens of context at which the cost of a pass is taken."""


def with_drafter(
    options: LoadOptions,
    target: Model,
    facts: ModelFacts,
    machine: Machine,
    store: FactStore,
    paths: Paths,
    report: Report,
    memory: PairMemory,
) -> LoadOptions:
    """The options with the drafter they ask for, in its trimmed form unless that is declined.

    One that does not fit into memory beside the target is left out, and a line tells so. A target
    that cannot roll back gets none.

    Raises ModelFileError if the drafter is no whole model, or a trimmed one without its parent,
    ChecksumError if the parent has changed.
    """
    if not target.can_roll_back:
        return dataclasses.replace(options, drafter_files=None)
    trimmer = Trimmer(
        paths.trimmed, store, machine, target.options, report, follows=options.remember
    )
    now = functools.partial(present_costs, target, facts, machine)
    if options.drafter == BEST_DRAFTER:
        fits = functools.partial(_fits, memory, report)
        usual = pass_costs(facts)
        trials = Trials(paths.trials)
        best = best_drafter(target, usual, now, ModelStore(paths), trials, trimmer, fits)
        if best is not None and not options.trim:
            best = DrafterFiles(best.whole)
        return _chosen(options, best, memory, report)
    files = options.drafter_files
    if files is None:
        return options
    check_gguf(files.whole)
    Trials(paths.trials).begin(files.whole)
    if is_trimmed(files.whole):
        files = DrafterFiles(parent_of(files.whole, store, paths), files.whole)
    if not options.trim:
        files = DrafterFiles(files.whole)
    if not _fits(memory, report, files):
        return dataclasses.replace(options, drafter_files=None)
    check_not_recurrent(GgufFile(files.whole))
    if options.trim and files.trimmed is None and _is_smaller(files.whole, target.path):
        trimmed = trimmer.trimmed(files.whole, now)
        files = DrafterFiles(files.whole, trimmed)
    return _chosen(options, files, memory, report)


def _fits(memory: PairMemory, report: Report, files: DrafterFiles) -> bool:
    """Whether there is room for both models; if not, a line tells so. Raises ModelFileError."""
    check_gguf(files.whole)
    fits = memory.fits(files)
    if not fits:
        report(f"{files.name} does not draft: {memory.describe(files)}")
    return fits


def _chosen(
    options: LoadOptions, files: DrafterFiles | None, memory: PairMemory, report: Report
) -> LoadOptions:
    """The options with the drafter that is about to be loaded; its memory is told."""
    if files is not None:
        report(f"loading the drafter {files.describe()}, {memory.describe(files)}")
    return dataclasses.replace(options, drafter_files=files)


def pass_costs(facts: ModelFacts) -> dict[int, float]:
    """T(r) of a measured target in milliseconds, by number of rows."""
    curve = CostModel(facts.table, facts.max_rows).curve_ms(_USUAL_CONTEXT)
    return dict(enumerate(curve.tolist(), start=1))


def present_costs(target: Model, facts: ModelFacts, machine: Machine) -> dict[int, float]:
    """T(r) as it is now: machines drift, and what drafting costs is about to be measured, too."""
    now = probe_single_rows(target, machine.num_threads).short_ms[1]
    drift = min(max(now / facts.table.short_ms[1], 1 / _MOST_DRIFT), _MOST_DRIFT)
    return {rows: drift * ms for rows, ms in pass_costs(facts).items()}


def parent_of(trimmed: Path, store: FactStore, paths: Paths) -> Path:
    """The model that a trimmed file was made from: beside it, or in the model folder.

    Raises ModelFileError if there is none of its name, ChecksumError if it is another one now.
    """
    info = read_trim_info(trimmed)
    assert info is not None
    name = Path(info.parent_name).name
    candidates = (trimmed.parent / name, *sorted(paths.models.rglob("*.gguf")))
    existing = [path for path in candidates if path.name == name and path.is_file()]
    for path in existing:
        if _sha256(path, store, paths) == info.parent_sha256:
            return path
    if existing:
        raise ChecksumError(
            f"{existing[0]} has changed since {trimmed.name} was trimmed from it", "trim it again"
        )
    raise ModelFileError(
        f"{trimmed} was trimmed from {info.parent_name or 'a model'}, which is not here",
        f"put that into {trimmed.parent}, or trim again",
    )


def _sha256(path: Path, store: FactStore, paths: Paths) -> str:
    """SHA-256 of a model, from the record of its pull or an earlier computation if it holds."""
    if path.is_relative_to(paths.models):
        stored = ModelStore(paths).find(str(path))
        if stored is not None and stored.verified and stored.sha256 is not None:
            return stored.sha256
    key = f"{file_fingerprint(path)}|{path.stat().st_mtime_ns}"
    known = (store.get(_SHA256, key) or {}).get("sha256")
    if isinstance(known, str):
        return known
    digest = file_sha256(path)
    store.put(_SHA256, key, {"sha256": digest})
    return digest


def _is_smaller(drafter: Path, target: Path) -> bool:
    """A drafter as large as its target will be refused: not worth the time."""
    try:
        return drafter.stat().st_size < target.stat().st_size
    except OSError:  # loading it will tell
        return False
