"""From what is asked for to a running completer, in stages that nothing changes afterwards.

    LoadRequest -> OpenTarget -> Choice -> Form -> Fit -> Running

    request  what was asked for
    target   weights as the library's soundness allows, facts of this machine, context
    choice   which model drafts, and why
    form     which of its files run
    fit      whether there is memory for both
    running  context -> target -> engine(target, drafters, costs) -> completer

Importing this module loads the native library, so commands import it when they need a model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.cache.memory import open_token_memory
from edgespec.cache.pairs import PairStore
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.llama import library
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.available import available_memory
from edgespec.machine.facts import ModelFacts, known_model_facts
from edgespec.machine.identity import Machine, this_machine
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.reports import Report
from edgespec.runtime.drafters import Drafters
from edgespec.runtime.recording import Remembering, open_or_go_without, vocabulary_key
from edgespec.runtime.request import BEST_DRAFTER, LoadRequest
from edgespec.runtime.target import (
    Home,
    OpenTarget,
    context_options,
    open_model,
    served_model,
)
from edgespec.signals import ending_at_once
from edgespec.types import SamplingParams

if TYPE_CHECKING:
    from edgespec.learning.online.adaptations import AdaptationStore
    from edgespec.runtime.form import Form
    from edgespec.runtime.head_rows import Follow


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A completer and everything behind it; closing it remembers what the drafter learned.

    `memory` is None where nothing is remembered.
    """

    completer: EngineCompleter
    model: Model
    facts: ModelFacts
    machine: Machine
    memory: Remembering | None
    _cleanup: contextlib.ExitStack = field(repr=False)

    def close(self) -> None:
        """Remember and free, last opened first; may be called twice."""
        self._cleanup.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def load(
    request: LoadRequest,
    path: Path,
    paths: Paths,
    report: Report,
    available: Callable[[], int | None] = available_memory,
) -> Running:
    """Load the model at `path` and wire a completer around it; `report` gets lines for people.

    `available` tells the bytes of memory that there are for it, None where nobody can
    tell. Raises ModelFileError, NativeLibraryError, StorageError or UsageError; nothing stays open
    then.
    """
    check_gguf(path)
    library.set_verbose(request.verbose)
    machine = this_machine(request.num_threads)
    with contextlib.ExitStack() as cleanup:
        free = available()
        home = Home(
            paths, cleanup.enter_context(open_or_go_without(paths.database, report)), report
        )
        model = cleanup.enter_context(open_model(path, home.facts, machine, report))
        with ending_at_once():
            facts = known_model_facts(model, home.facts, machine, report)
            context = context_options(request.num_context, model, facts, machine)
            target = OpenTarget(model, facts, machine, context)
            form = _drafter_form(request, target, home, free)
            return _run(request, form, target, home, cleanup)


def _drafter_form(
    request: LoadRequest, target: OpenTarget, home: Home, free: int | None
) -> Form | None:
    """Choose a drafter, its files, and whether they fit; None where only look-ups draft.

    One that does not fit into memory beside the target is left out, and a line tells so. A target
    that cannot roll back gets none. Raises ModelFileError, ChecksumError.
    """
    if not target.model.can_roll_back or not _may_have_model(request, target.model.path, home):
        return None
    # All of these read GGUF files: much to load.
    from edgespec.forms.trimmer import Trimmer
    from edgespec.runtime.choice import best_drafter, named_drafter
    from edgespec.runtime.fit import MemoryRoom
    from edgespec.runtime.form import Form, form_of, with_training

    room = MemoryRoom(free, target.model, target.context, target.facts.max_rows)

    def fits(whole: Path) -> bool:
        check_gguf(whole)
        fit = room.fit(Form(whole))
        if not fit.is_room:
            home.report(f"{whole.stem} does not draft: {fit.describe()}")
        return fit.is_room

    folder, options, follows = home.paths.trimmed, target.model.options, request.remember
    trimmer = Trimmer(folder, home.facts, target.machine, options, home.report, follows=follows)
    if request.drafter_path is None:
        store = ModelStore(home.paths)
        usual, now = target.pass_ms(), target.present_pass_ms
        choice = best_drafter(target.model, usual, now, store, trimmer, fits)
    else:
        choice = named_drafter(request.drafter_path, home.facts, home.paths)
        choice = choice if fits(choice.whole) else None
    if choice is None:
        return None
    form = form_of(choice, request, target, trimmer)
    home.report(f"loading the drafter {form.describe()}, {room.fit(form).describe()}")
    folder = home.paths.adaptations
    if request.remember and any(folder.glob("*.lora.gguf")):
        vocabulary = vocabulary_key(target.model, home.facts).fingerprint
        form = with_training(form, vocabulary, folder, home.report)
    return form


def _may_have_model(request: LoadRequest, target: Path, home: Home) -> bool:
    """Whether a model may draft; for the best one on disk there must be another than the target."""
    if request.drafter == BEST_DRAFTER:
        return any(path != target for path in home.paths.models.rglob("*.gguf"))
    return request.drafter_path is not None


def _run(
    request: LoadRequest,
    form: Form | None,
    target: OpenTarget,
    home: Home,
    cleanup: contextlib.ExitStack,
) -> Running:
    """Build context, target, engine and completer over an open model; takes `cleanup` over."""
    model, facts, report = target.model, target.facts, home.report
    context = cleanup.enter_context(Context(model, target.context))
    memory = _open_memory(request, model, home, cleanup)
    drafters = Drafters(
        request,
        form,
        context,
        PairStore(home.database, "calibrations"),
        PairStore(home.database, "ngram_caches"),
        memory.tiers if memory else (),
        report,
        cleanup,
        _adaptations(home.paths) if request.adapt else None,
        _follow(request, form, target, home),
    )
    engine = Engine(
        LlamaTarget(context, facts.max_rows),
        drafters.all,
        CostModel(facts.table, facts.max_rows),
        time.perf_counter,
        drafters.watchers,
    )

    def make_sampler(sampling: SamplingParams) -> SamplerChain:
        return SamplerChain(sampling, model.vocab, model.num_context_train)

    completer = EngineCompleter(
        engine,
        ModelBridge(model),
        make_sampler,
        served_model(target, context.num_context, drafters.name),
        drafters.prompt_readers,
        [*([memory] if memory else []), *drafters.listeners],
    )
    return Running(completer, model, facts, target.machine, memory, cleanup.pop_all())


def _adaptations(paths: Paths) -> AdaptationStore:
    from edgespec.learning.online.adaptations import AdaptationStore  # seldom asked for

    return AdaptationStore(paths.adaptations)


def _follow(
    request: LoadRequest, form: Form | None, target: OpenTarget, home: Home
) -> Follow | None:
    """What the trimmed head of a drafter follows; None if it is not to."""
    learns = request.learn and request.remember and request.memory_at is None
    is_trimmed = form is not None and form.trimmed is not None
    if not learns or not is_trimmed or home.database.path is None:
        return None
    from edgespec.forms.trimmer import Trimmer
    from edgespec.runtime.head_rows import Follow, Said

    folder, options = home.paths.trimmed, target.model.options
    trimmer = Trimmer(folder, home.facts, target.machine, options, home.report, follows=True)
    said = Said(home.database.path, vocabulary_key(target.model, home.facts))
    return Follow(trimmer, said, home.paths.adaptations)


def _open_memory(
    request: LoadRequest, model: Model, home: Home, cleanup: contextlib.ExitStack
) -> Remembering | None:
    """The token memory of the model's vocabulary; None if there is to be none, or can be none."""
    database = home.database
    if request.memory_at is not None:
        database = cleanup.enter_context(open_or_go_without(request.memory_at, home.report))
    elif not request.remember:
        return None
    if database.path is None:
        return None
    key = vocabulary_key(model, home.facts)
    memory = open_token_memory(database, key, learn=request.learn)
    return cleanup.enter_context(Remembering(memory, home.report)) if memory else None
