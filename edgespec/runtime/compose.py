"""The composition root: the one place that builds and wires everything.

    model file -> is the library sound? -> weights -> facts of this machine
      -> context -> target -> engine(target, drafter, costs) -> completer

Importing this module loads the native library, so commands import it when they need a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.cache.pairs import PairStore
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.errors import ModelFileError
from edgespec.llama import library
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.available import available_memory
from edgespec.machine.facts import ModelFacts, known_model_facts, known_soundness
from edgespec.machine.identity import Machine, this_machine
from edgespec.models.gguf_check import check_gguf
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.reports import Report
from edgespec.runtime.drafters import Drafters
from edgespec.runtime.recording import Remembering, open_or_go_without, vocabulary_key
from edgespec.runtime.request import (
    BEST_DRAFTER,
    DEFAULT_CONTEXT,
    LOOK_UP_ONLY,
    NO_DRAFTER,
    LoadOptions,
)
from edgespec.signals import ending_at_once
from edgespec.types import SamplingParams, ServedModel

if TYPE_CHECKING:
    from edgespec.learning.online.store import AdaptationStore
    from edgespec.runtime.head_rows import Follow

_BATCH_BY_SIZE = ((2e9, 512), (4e9, 256), (9e9, 128), (float("inf"), 64))
"""Most tokens of one prefill pass by number of parameters: bounds the wait for a cancel."""


class Loaded:
    """A completer and everything behind it; closing it remembers what the drafter learned.

    `memory` is None where nothing is remembered.
    """

    def __init__(
        self,
        model: Model,
        completer: EngineCompleter,
        facts: ModelFacts,
        machine: Machine,
        memory: Remembering | None,
    ) -> None:
        """Use `load`."""
        self.model = model
        self.completer = completer
        self.facts = facts
        self.machine = machine
        self.memory = memory
        self._cleanup = contextlib.ExitStack()

    def on_close(self, cleanup: contextlib.ExitStack) -> None:
        """Take over what is to be closed, last opened first."""
        self._cleanup = cleanup

    def close(self) -> None:
        """Remember and free; may be called twice."""
        self._cleanup.close()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def load(
    options: LoadOptions,
    path: Path,
    paths: Paths,
    report: Report,
    available: Callable[[], int | None] = available_memory,
) -> Loaded:
    """Load the model at `path` and wire a completer around it; `report` gets lines for people.

    `available` tells the bytes of memory that there are for it, None where nobody can
    tell. Raises ModelFileError, NativeLibraryError, StorageError or UsageError; nothing stays open
    then.
    """
    check_gguf(path)
    library.set_verbose(options.verbose)
    machine = this_machine()
    if options.num_threads is not None:
        machine = dataclasses.replace(machine, num_threads=options.num_threads)
    with contextlib.ExitStack() as cleanup:
        free = available()
        database = cleanup.enter_context(open_or_go_without(paths.database, report))
        model = cleanup.enter_context(open_model(path, Facts(database), machine, report))
        with ending_at_once():
            facts = known_model_facts(model, Facts(database), machine, report)
            if _may_have_model(options, path, paths):
                # Both read GGUF files: much to load.
                from edgespec.runtime.fit import PairMemory
                from edgespec.runtime.form import with_drafter

                context = context_options(options, model, facts, machine)
                memory = PairMemory(free, model, context, facts.max_rows)
                options = with_drafter(
                    options, model, facts, machine, Facts(database), paths, report, memory
                )
            options = _as_trained(options, model, Facts(database), paths, report)
            adaptations = _adaptations(paths) if options.adapt else None
            follow = _follow(options, model, machine, database, paths, report)
            loaded = _wire(
                options, model, facts, machine, database, adaptations, follow, report, cleanup
            )
        loaded.on_close(cleanup.pop_all())
        return loaded


def _as_trained(
    options: LoadOptions, target: Model, store: Facts, paths: Paths, report: Report
) -> LoadOptions:
    """The options with what the drafter was trained to for this target (`edgespec adapt train`)."""
    files = options.drafter_files
    if files is None or not options.remember or not any(paths.adaptations.glob("*.lora.gguf")):
        return options
    from edgespec.runtime.distilled import as_trained  # reads GGUF files: much to load

    vocabulary = vocabulary_key(target, store).fingerprint
    trained = as_trained(files, vocabulary, paths.adaptations, report)
    return dataclasses.replace(options, drafter_files=trained)


def _adaptations(paths: Paths) -> AdaptationStore:
    from edgespec.learning.online.store import (
        AdaptationStore,  # much to load for what is seldom asked for
    )

    return AdaptationStore(paths.adaptations)


def _follow(
    options: LoadOptions,
    model: Model,
    machine: Machine,
    database: Database,
    paths: Paths,
    report: Report,
) -> Follow | None:
    """What the trimmed head of a drafter follows; None if it is not to."""
    learns = options.learn and options.remember and options.memory_at is None
    is_trimmed = options.drafter_files is not None and options.drafter_files.trimmed is not None
    if not learns or not is_trimmed or database.path is None:
        return None
    from edgespec.forms.trimmer import Trimmer
    from edgespec.runtime.head_rows import Follow, Said

    facts = Facts(database)
    trimmer = Trimmer(paths.trimmed, facts, machine, model.options, report, follows=True)
    return Follow(trimmer, Said(database.path, vocabulary_key(model, facts)), paths.adaptations)


def _may_have_model(options: LoadOptions, target: Path, paths: Paths) -> bool:
    """Whether a model may draft; for the best one on disk there must be another than the target."""
    if options.drafter == BEST_DRAFTER:
        return any(path != target for path in paths.models.rglob("*.gguf"))
    return options.drafter not in (LOOK_UP_ONLY, NO_DRAFTER)


def context_options(
    options: LoadOptions, model: Model, facts: ModelFacts, machine: Machine
) -> ContextOptions:
    """Context size, threads, batch and the KV setting that was found to be invariant."""
    trained = model.num_context_train
    num_batch = next(batch for limit, batch in _BATCH_BY_SIZE if model.num_parameters <= limit)
    num_context = options.num_context or min(DEFAULT_CONTEXT, trained)
    return ContextOptions(
        num_context=num_context,
        num_threads=machine.num_threads,
        num_batch=min(num_batch, num_context),
        type_k=facts.setting.type_k,
        type_v=facts.setting.type_v,
    )


def open_model(path: Path, store: Facts, machine: Machine, report: Report) -> Model:
    """Load weights as the library's soundness allows; raises ModelFileError, NativeLibraryError."""
    soundness = known_soundness(store, machine)
    for finding in soundness.findings:
        report(finding)
    report(f"loading {path.stem} ({path.stat().st_size / 1e6:,.0f} MB)")
    with ending_at_once():
        model = Model(path, ModelOptions(use_extra_buffers=soundness.use_extra_buffers))
    if not model.can_generate:
        kind = model.architecture
        model.close()
        raise ModelFileError(
            f"{path.name} ({kind}) cannot continue a text", "use a decoder-only language model"
        )
    return model


def _wire(
    options: LoadOptions,
    model: Model,
    facts: ModelFacts,
    machine: Machine,
    database: Database,
    adaptations: AdaptationStore | None,
    follow: Follow | None,
    report: Report,
    cleanup: contextlib.ExitStack,
) -> Loaded:
    """Build context, target, engine and completer over an open model."""
    context = cleanup.enter_context(Context(model, context_options(options, model, facts, machine)))
    memory = _open_memory(options, model, database, report, cleanup)
    tiers = memory.tiers if memory else ()
    learned = PairStore(database, "calibrations"), PairStore(database, "ngram_caches")
    drafters = Drafters(options, context, *learned, tiers, report, cleanup, adaptations, follow)
    engine = Engine(
        LlamaTarget(context, facts.max_rows),
        drafters.all,
        CostModel(facts.table, facts.max_rows),
        time.perf_counter,
        drafters.watchers,
    )

    def make_sampler(sampling: SamplingParams) -> SamplerChain:
        return SamplerChain(sampling, model.vocab, model.num_context_train)

    served = _served_model(model, context, facts, drafters.name)
    completer = EngineCompleter(
        engine,
        ModelBridge(model),
        make_sampler,
        served,
        drafters.prompt_readers,
        [*([memory] if memory else []), *drafters.listeners],
    )
    return Loaded(model, completer, facts, machine, memory)


def _open_memory(
    options: LoadOptions,
    model: Model,
    database: Database,
    report: Report,
    cleanup: contextlib.ExitStack,
) -> Remembering | None:
    """The token memory of the model's vocabulary; None if there is to be none, or can be none."""
    facts = Facts(database)
    if options.memory_at is not None:
        database = cleanup.enter_context(open_or_go_without(options.memory_at, report))
    elif not options.remember:
        return None
    if database.path is None:
        return None
    memory = open_token_memory(database, vocabulary_key(model, facts), learn=options.learn)
    return cleanup.enter_context(Remembering(memory, report)) if memory else None


def _served_model(model: Model, context: Context, facts: ModelFacts, drafter: str) -> ServedModel:
    options = context.options
    return ServedModel(
        name=model.path.stem,
        description=model.description,
        num_context=context.num_context,
        size_bytes=model.num_bytes,
        drafter=drafter,
        exactness=facts.exactness,
        settings={
            "model": str(model.path),
            "drafter": drafter,
            "context": context.num_context,
            "threads": options.num_threads,
            "batch": options.num_batch,
            "kv_type_k": options.type_k,
            "kv_type_v": options.type_v,
            "flash_attention": options.flash_attention,
            "extra_buffers": model.options.use_extra_buffers,
            "max_rows": facts.max_rows,
            "library": library.build_id(),
        },
    )
