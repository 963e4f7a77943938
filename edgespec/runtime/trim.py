"""The work behind `edgespec trim`; importing this loads the native library."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.database import DAMAGE, Database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import latest_answers
from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.forms.counts import TokenCounts
from edgespec.forms.decision import Wanted
from edgespec.forms.rows import OWN_WEIGHT
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import AS_SHIPPED, Tried, count_shipped
from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.forms.words import WordCounts, read_counts
from edgespec.gguf.trim import is_trimmed
from edgespec.llama import library
from edgespec.llama.model import ModelOptions
from edgespec.machine.facts import known_model_facts, known_soundness
from edgespec.machine.identity import Machine, this_machine
from edgespec.models.gguf_check import check_gguf
from edgespec.paths import Paths
from edgespec.reports import Report
from edgespec.runtime.recording import open_or_go_without, vocabulary_key
from edgespec.runtime.target import open_model, present_costs
from edgespec.signals import ending_at_once
from edgespec.vocab.tokenizer import ByteTokenizer

_MOST_TOKENS = 1_000_000
"""The latest tokens of a target that count."""


@dataclass(frozen=True, slots=True)
class TrimRequest:
    """What `edgespec trim` is asked for; None leaves a choice open."""

    whole: Path
    keep: int | None = None
    type_name: str | None = None
    target: Path | None = None
    counts_file: Path | None = None
    out: Path | None = None
    save_counts: Path | None = None
    num_threads: int | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The trimmed file and what was found out on the way; sizes in bytes."""

    path: Path
    parent: Path
    num_kept: int
    num_tokens: int
    type_name: str
    coverage: float
    origin: str
    num_bytes: int
    parent_bytes: int
    tried: tuple[Tried, ...]


def trim(request: TrimRequest, paths: Paths, report: Report) -> Trimmed:
    """Trim as asked; raises UsageError, ModelFileError, StorageError and other EdgeSpecErrors."""
    _check(request)
    library.set_verbose(request.verbose)
    machine = this_machine(request.num_threads)
    with open_or_go_without(paths.database, report) as database:
        store = Facts(database)
        options = ModelOptions(use_extra_buffers=known_soundness(store, machine).use_extra_buffers)
        counter = _Counter(request)
        pass_ms = USUAL_PASS_MS
        if request.target is not None:
            pass_ms = _ask_target(request.target, counter, database, machine, report)
        folder = paths.trimmed
        trimmer = Trimmer(folder, store, machine, options, report, ending_at_once)
        kind = AS_SHIPPED if request.type_name == "none" else request.type_name
        count = counter if counter.is_own else count_shipped
        wanted = Wanted(request.keep, kind, count, pass_ms)
        path, parent, choice = trimmer.trim(request.whole, wanted, request.out)
    if request.save_counts is not None:
        parent.counts.save(request.save_counts)
    return Trimmed(
        path,
        request.whole,
        choice.num_kept,
        parent.num_tokens,
        choice.type_name,
        parent.counts.coverage(choice.num_kept),
        parent.counts.origin,
        path.stat().st_size,
        request.whole.stat().st_size,
        choice.tried,
    )


class _Counter:
    """Counts a vocabulary's tokens over the user's file, or our words; and what a target said."""

    def __init__(self, request: TrimRequest) -> None:
        self._file = request.counts_file
        self.said: WordCounts | None = None

    @property
    def is_own(self) -> bool:
        """Whether the counts are not just those that came with EdgeSpec."""
        return self._file is not None or self.said is not None

    def __call__(self, tokenizer: ByteTokenizer) -> TokenCounts:
        """Count; raises UsageError for a file of another vocabulary."""
        counts = (
            count_shipped(tokenizer) if self._file is None else read_counts(self._file, tokenizer)
        )
        if self.said is None:
            return counts
        both = counts.plus(self.said.in_tokens(tokenizer), OWN_WEIGHT)
        origin = f"{counts.origin} and {self.said.origin}"
        return dataclasses.replace(both, origin=origin, is_own=True)


def _ask_target(
    path: Path, counter: _Counter, database: Database, machine: Machine, report: Report
) -> Mapping[int, float]:
    """T(r) of the target; `counter` gets what it said to this user, if that is recorded."""
    store = Facts(database)
    check_gguf(path)
    with open_model(path, store, machine, report) as model:
        piece = ByteTokenizer(model.vocab).piece
        texts, total = [], 0
        with contextlib.suppress(*DAMAGE):  # our own counts will do
            key = vocabulary_key(model, store)
            for said in latest_answers(database.connection, key, _MOST_TOKENS):
                total += len(said.tokens)
                texts.append(b"".join(map(piece, said.tokens)).decode("utf-8", "ignore"))
        if texts:
            counter.said = WordCounts.of(texts, f"{total:,} tokens that {path.stem} said here")
        with ending_at_once():
            facts = known_model_facts(model, store, machine, report)
            return present_costs(model, facts, machine)


def _check(request: TrimRequest) -> None:
    """Refuse what cannot be before anything takes time."""
    check_gguf(request.whole)
    if is_trimmed(request.whole):
        raise ModelFileError(
            f"{request.whole.name} is trimmed already", "give the model it was made from"
        )
    if request.num_threads is not None and not 1 <= request.num_threads <= 1024:
        raise UsageError(f"{request.num_threads} threads make no sense", "give 1 to 1024")
    for path in (request.out, request.save_counts):
        if path is not None and not path.absolute().parent.is_dir():
            raise StorageError(f"there is no folder {path.absolute().parent}", "make it first")
    out = request.out
    if out is not None and out.exists() and not is_trimmed(out):
        raise UsageError(f"{out} exists and is no trimmed model", "give another --out")
