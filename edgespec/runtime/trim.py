"""The work behind `edgespec trim`; importing this loads the native library."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.database import DAMAGE, Database, open_or_go_without
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import latest_answers
from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.forms.counts import TokenCounts
from edgespec.forms.rows import OWN_WEIGHT
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import AS_SHIPPED, Count, Tried, count_shipped
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
from edgespec.runtime.recording import vocabulary_key
from edgespec.runtime.request import check_threads
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
        pass_ms, said = USUAL_PASS_MS, None
        if request.target is not None:
            pass_ms, said = _ask_target(request.target, database, machine, report)
        trimmer = Trimmer(paths.trimmed, store, machine, options, report)
        path, parent, choice = trimmer.trim(
            request.whole,
            request.keep,
            AS_SHIPPED if request.type_name == "none" else request.type_name,
            _counting(request.counts_file, said),
            pass_ms,
            request.out,
        )
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


def _counting(file: Path | None, said: WordCounts | None) -> Count:
    """Counts a vocabulary's tokens over the user's file, or our words, and what a target said."""
    if file is None and said is None:
        return count_shipped

    def count(tokenizer: ByteTokenizer) -> TokenCounts:
        counts = count_shipped(tokenizer) if file is None else read_counts(file, tokenizer)
        if said is None:
            return counts
        both = counts.plus(said.in_tokens(tokenizer), OWN_WEIGHT)
        return dataclasses.replace(both, origin=f"{counts.origin} and {said.origin}", is_own=True)

    return count


def _ask_target(
    path: Path, database: Database, machine: Machine, report: Report
) -> tuple[Mapping[int, float], WordCounts | None]:
    """T(r) of the target, and what it said to this user, if that is recorded."""
    store = Facts(database)
    check_gguf(path)
    with open_model(path, store, machine, report) as model:
        texts, total = [], 0
        with contextlib.suppress(*DAMAGE):  # our own counts will do
            key, tokenizer = vocabulary_key(model, store), ByteTokenizer(model.vocab)
            for said in latest_answers(database.connection, key, _MOST_TOKENS):
                total += len(said.tokens)
                texts.append(tokenizer.decode(said.tokens).decode("utf-8", "ignore"))
        origin = f"{total:,} tokens that {path.stem} said here"
        with ending_at_once():
            facts = known_model_facts(model, store, machine, report)
            costs = present_costs(model, facts, machine)
    return costs, WordCounts.of(texts, origin) if texts else None


def _check(request: TrimRequest) -> None:
    """Refuse what cannot be before anything takes time."""
    check_gguf(request.whole)
    if is_trimmed(request.whole):
        raise ModelFileError(
            f"{request.whole.name} is trimmed already", "give the model it was made from"
        )
    check_threads(request.num_threads)
    for path in (request.out, request.save_counts):
        if path is not None and not path.absolute().parent.is_dir():
            raise StorageError(f"there is no folder {path.absolute().parent}", "make it first")
    out = request.out
    if out is not None and out.exists() and not is_trimmed(out):
        raise UsageError(f"{out} exists and is no trimmed model", "give another --out")
