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
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.cache.database import open_or_go_without
from edgespec.cache.facts import PairStore
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.grammar.compiler import GrammarCompiler
from edgespec.llama import library
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.embedder import Embedder
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.available import available_memory
from edgespec.machine.curves import Kernels, kernels_of
from edgespec.machine.facts import ModelFacts, model_key, starting_facts
from edgespec.machine.identity import Machine, build_record, this_machine
from edgespec.machine.probe import ROWS
from edgespec.models.gguf_check import check_gguf
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.planning.planner import Planner
from edgespec.protocols import Observer
from edgespec.reports import Report
from edgespec.runtime.drafters import Drafters
from edgespec.runtime.idle import IdleTask, IdleWorker, LateTask
from edgespec.runtime.insights import Insights
from edgespec.runtime.measuring import CostKeeper, ProveReading, ProveRows
from edgespec.runtime.observers import Observers
from edgespec.runtime.prompt_cache import PromptCache, prompt_key
from edgespec.runtime.recording import Remembering, vocabulary_key
from edgespec.runtime.request import BEST_DRAFTER, LoadRequest
from edgespec.runtime.target import (
    Home,
    OpenTarget,
    context_options,
    num_slots,
    open_model,
    pass_costs,
    served_model,
)
from edgespec.signals import ending_at_once
from edgespec.types import SamplingParams

if TYPE_CHECKING:
    from edgespec.pauses import Pause
    from edgespec.runtime.form import Form, Trainings
    from edgespec.runtime.head_rows import Follow
    from edgespec.runtime.selection import FormSearch, Selection
    from edgespec.runtime.ways import EngineWays


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A completer and everything behind it; closing it remembers what the drafter learned.

    `memory` is None where nothing is remembered, `prompts` also where the target cannot forget
    tokens. `idle` works while no answer is under way. `engine`, `drafters` and `home` are what ways
    to answer are made of.
    """

    completer: EngineCompleter
    model: Model
    facts: ModelFacts
    machine: Machine
    memory: Remembering | None
    idle: IdleWorker
    prompts: PromptCache | None
    engine: Engine
    drafters: Drafters
    home: Home
    _cleanup: contextlib.ExitStack = field(repr=False)

    def forget(self, conversation: str) -> None:
        """Delete what was computed of a conversation; from any thread."""
        self.completer.disown(conversation)
        if self.prompts is not None:
            self.prompts.forget(conversation)

    def ways(self, names: Sequence[str], forms: Mapping[str, Path]) -> EngineWays:
        """Ways to answer by name, and such with other files of models, as they draft by now.

        Raises ModelFileError or ChecksumError for a file that is no drafter.
        """
        from edgespec.runtime.choice import named_drafter  # reads GGUF files: much to load
        from edgespec.runtime.form import Form
        from edgespec.runtime.ways import EngineWays

        choices = {
            name: named_drafter(path, self.home.facts, self.home.paths)
            for name, path in forms.items()
        }
        chosen = {name: Form(choice.whole, choice.trimmed) for name, choice in choices.items()}
        return EngineWays(self.engine, self.drafters, names, chosen, self._cleanup)

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
    observers: Sequence[Observer] = (),
) -> Running:
    """Load the model at `path` and wire a completer around it; `report` gets lines for people.

    Nothing is measured but the soundness of a library that was never used before, while weights
    load, and half a second of invariance (`starting_facts`); the rest is done in idle time.
    `available` tells the bytes of memory that there are for it, None where nobody can tell;
    `observers` are told of answers. Raises ModelFileError, NativeLibraryError, NetworkError,
    StorageError or UsageError; nothing stays open then.
    """
    check_gguf(path)
    library.set_verbose(request.verbose)
    machine = this_machine(request.num_threads)
    with contextlib.ExitStack() as cleanup, Trials(paths.trials).loading(path):
        free = available()
        database = cleanup.enter_context(open_or_go_without(paths.database, report))
        home = Home(paths, database, report)
        model = open_model(path, home.facts, machine, report, request.workers)
        cleanup.enter_context(model)
        with ending_at_once():
            facts = starting_facts(model, home.facts, machine, _kernels(), report)
            context = context_options(request, model, facts, machine)
            target = OpenTarget(model, facts, machine, context)
            return _Wiring(request, target, home, free, cleanup).run(observers)


def _kernels() -> Kernels:
    """Whose kernels this build of the library uses."""
    has_gpu, features = library.supports_gpu_offload(), library.build_features()
    return kernels_of(features, is_own_build=bool(build_record()), has_gpu=has_gpu)


class _Wiring:
    """Chooses a drafter for an open target, and builds everything over both."""

    def __init__(
        self,
        request: LoadRequest,
        target: OpenTarget,
        home: Home,
        num_free: int | None,
        cleanup: contextlib.ExitStack,
    ) -> None:
        self._request = request
        self._target = target
        self._home = home
        self._num_free = num_free
        self._cleanup = cleanup
        self._costs = CostModel(target.facts.table, ROWS[-1])
        self._weighing: FormSearch | None = None

    def run(self, others: Sequence[Observer]) -> Running:
        """Build context, target, engine and completer; takes `cleanup` over."""
        request, target, home, cleanup = self._request, self._target, self._home, self._cleanup
        selection = self._selection()
        form = self._form(selection) if selection is not None else None
        context = cleanup.enter_context(Context(target.model, target.context))
        memory = _open_memory(request, target.model, home, cleanup)
        drafters = Drafters(
            request,
            form,
            context,
            PairStore(home.database, "calibrations"),
            PairStore(home.database, "ngram_caches"),
            memory.tiers_of if memory else None,
            home.report,
            cleanup,
            _follow(request, target, home, self._trainings),
        )
        bridge = ModelBridge(target.model)
        embedder = Embedder(target.model, target.context)
        cleanup.callback(embedder.close)
        slots = num_slots(request, target.model)
        max_rows = target.facts.max_rows if request.exact else ROWS[-1]
        verifier = LlamaTarget(context, max_rows, slots)
        planner = Planner(drafters.all, self._costs, time.perf_counter)
        prompts = _prompts(request, target, home)
        engine = Engine(verifier, planner, bridge.is_end, time.perf_counter, prompts)
        if prompts is not None:
            cleanup.callback(prompts.close, engine.keep_prompts)
        proving = ProveRows(target, home.facts, verifier.prove)
        reading = ProveReading(target, home.facts, verifier.prove_reading)
        grammars = GrammarCompiler(target.model.vocab)
        idle = self._idle(proving, reading, drafters, prompts, grammars, selection, form)
        insights = Insights(lambda: proving.facts, lambda: idle.doing)
        observers = [idle, memory, insights, *others]

        def make_sampler(sampling: SamplingParams) -> SamplerChain:
            constraint = sampling.constraint
            matcher = grammars.compile(constraint) if constraint is not None else None
            num_context = target.model.num_context_train
            return SamplerChain(sampling, target.model.vocab, num_context, matcher)

        completer = EngineCompleter(
            engine,
            bridge,
            make_sampler,
            served_model(target, context.num_context, drafters.name, embedder.most_tokens),
            Observers([each for each in observers if each is not None]),
            insights.complete,
            embedder.read,
        )
        idle.start()
        return Running(
            completer,
            target.model,
            target.facts,
            target.machine,
            memory,
            idle,
            prompts,
            engine,
            drafters,
            home,
            cleanup.pop_all(),
        )

    def _selection(self) -> Selection | None:
        """The stages of a model that drafts; None where only look-ups may draft.

        For the best one on disk there must be another than the target.
        """
        request = self._request
        may_be = request.drafter_path is not None
        if request.drafter == BEST_DRAFTER:
            may_be = self._has_others()
        if not may_be or not self._target.model.can_roll_back:
            return None
        return self._opened_selection()

    def _has_others(self) -> bool:
        path = self._target.model.path
        return any(other != path for other in self._home.paths.models.rglob("*.gguf"))

    def _opened_selection(self) -> Selection:
        from edgespec.runtime.selection import Selection  # reads GGUF files: much to load

        request, target, home = self._request, self._target, self._home
        return Selection(request, target, home, self._num_free, self._trainings())

    def _trainings(self) -> Trainings:
        """What drafters were trained for this target; without a memory only what ships."""
        from edgespec.runtime.form import Trainings

        home, vocabulary = self._home, vocabulary_key(self._target.model, self._home.facts)
        folder, own = home.paths.adaptations, self._request.remember
        return Trainings(vocabulary.fingerprint, folder, home.report, own)

    def _form(self, selection: Selection) -> Form | None:
        """The drafter that is about to be loaded; its memory is told."""
        fit = selection.fit(pass_costs(self._costs))
        if fit.form is not None:
            selection.trials.begin(fit.form.whole)
            self._home.report(f"loading the drafter {fit.form.describe()}, {fit.describe()}")
        return fit.form

    def _idle(
        self,
        proving: ProveRows,
        reading: ProveReading,
        drafters: Drafters,
        prompts: PromptCache | None,
        grammars: GrammarCompiler,
        selection: Selection | None,
        form: Form | None,
    ) -> IdleWorker:
        """What is done while nobody waits: the surest things first."""
        target, facts = self._target, self._home.facts
        keeper = CostKeeper(target, facts, self._costs, proving)
        tasks: list[IdleTask] = [proving, keeper, drafters.following]
        if num_slots(self._request, target.model) > 1:
            tasks.insert(0, reading)  # others wait for whole prompts as long as it is not known
        if not self._request.idle:
            tasks = []
        elif (weighing := self._weigher(selection, form, drafters)) is not None:
            tasks.append(weighing)
        if self._request.idle and self._request.num_slots > 1:  # the others would wait for it
            tasks.append(grammars)
        if prompts is not None:  # whatever else is done, an answer may wait for its memory
            tasks.insert(0, prompts)
        if (training := self._training(drafters)) is not None:
            tasks.append(training)  # the last, since it takes minutes
        self._cleanup.callback(keeper.keep)
        return self._cleanup.enter_context(IdleWorker(self._home.report, tasks))

    def _weigher(
        self, selection: Selection | None, form: Form | None, drafters: Drafters
    ) -> IdleTask | None:
        """Weighs models that could draft, now or when there is one; None where none may."""
        if selection is not None:
            return self._search(selection, form, drafters)
        if self._request.drafter != BEST_DRAFTER or not self._target.model.can_roll_back:
            return None

        def search() -> IdleTask | None:
            if not self._has_others():
                return None
            return self._search(self._opened_selection(), None, drafters)

        return LateTask("drafters that come are weighed", search)

    def _training(self, drafters: Drafters) -> IdleTask | None:
        """Has the model that drafts learn by itself; None if it is not to, or there is no torch."""
        request, target, home = self._request, self._target, self._home
        path = home.database.path
        learns = request.learn and request.remember and request.memory_at is None
        if (
            not (request.idle and learns)
            or path is None
            or importlib.util.find_spec("torch") is None
        ):
            return None
        from edgespec.runtime.idle_training import IdleTraining, Learning

        vocabulary = vocabulary_key(target.model, home.facts)
        num_threads = target.machine.num_threads
        learning = Learning(target.model.path, vocabulary, path, home.paths, num_threads)

        def serve(pause: Pause) -> None:
            if self._weighing is not None:
                self._weighing.serve_learned(pause)

        training = IdleTraining(learning, lambda: drafters.form, serve, home.report)
        self._cleanup.callback(training.close)
        return training

    def _search(self, selection: Selection, form: Form | None, drafters: Drafters) -> FormSearch:
        from edgespec.runtime.selection import FormSearch

        def pass_ms() -> Mapping[int, float]:
            return pass_costs(self._costs)

        self._weighing = FormSearch(selection, pass_ms, form, drafters.exchange)
        return self._weighing


def _prompts(request: LoadRequest, target: OpenTarget, home: Home) -> PromptCache | None:
    """Where conversations are kept computed; None if nothing is to be, or cannot be."""
    is_wanted = request.remember and request.memory_at is None
    if not is_wanted or not target.model.can_roll_back:
        return None
    options = target.context
    key = prompt_key(
        model_key(target.model, target.machine),
        options.type_k,
        options.type_v,
        options.flash_attention,
        options.num_batch,
    )
    return PromptCache(home.paths, key, home.report, learns=request.learn)


def _follow(
    request: LoadRequest, target: OpenTarget, home: Home, trainings: Callable[[], Trainings]
) -> Callable[[], Follow] | None:
    """Makes what the trimmed head of a drafter follows; None if it is not to."""
    learns = request.learn and request.remember and request.memory_at is None
    path = home.database.path
    if not learns or path is None:
        return None

    def follow() -> Follow:
        from edgespec.forms.trimmer import Trimmer
        from edgespec.runtime.head_rows import Follow

        folder, options = home.paths.trimmed, target.model.options
        trimmer = Trimmer(folder, home.facts, target.machine, options, home.report, follows=True)
        return Follow(trimmer, path, vocabulary_key(target.model, home.facts), trainings())

    return follow


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
