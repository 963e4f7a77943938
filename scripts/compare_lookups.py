"""Compare look-up drafting with others' ways to do it, on the same prompts, model and machine.

    python scripts/compare_lookups.py MODEL.gguf again|rewritten|unseen [LIMIT [MAX_TOKENS]]

edgespec        context and database drafters, as every command has them
hierarchy       Hierarchy Drafting's order (arXiv 2502.05609): context, then what the target said,
                then statistics; the first that knows anything drafts 10 tokens
prompt-lookup   the last 3 tokens, or 2, or 1, where they first stood; the 10 that followed
ngram-simple    llama-server's --spec-type of this name: the last 12 tokens, where they last stood;
                the 48 that followed, here at most as many as are batch-invariant

All run in one engine over one cache and in turns. The planner takes whatever the last three guess,
because they say that they are certain.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import get_args

from edgespec.bench.runner import complete
from edgespec.bench.suite import Question
from edgespec.bench.warm import Warm
from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.token_memory import open_token_memory
from edgespec.cli.bench_plan import warm_plan
from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.database import DatabaseDrafter, TokenIndex
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.facts import known_model_facts
from edgespec.machine.identity import this_machine
from edgespec.paths import user_paths
from edgespec.planning.cost import CostModel
from edgespec.protocols import Drafter
from edgespec.runtime.compose import context_options, open_model
from edgespec.runtime.recording import Remembering, vocabulary_key
from edgespec.runtime.request import LoadOptions
from edgespec.types import (
    Completion,
    CompletionRequest,
    Message,
    Proposal,
    SamplingParams,
    ServedModel,
)

LENGTH = 10
PLAIN = "plain"


class Lookup:
    """Copies what followed the last tokens elsewhere in the text; certain of it."""

    cost_ms = 0.0
    start_ms = 0.0
    outlook = fertility = 1.0

    def __init__(self, name: str, sizes: Sequence[int], length: int, *, latest: bool) -> None:
        """`sizes` of n-grams to look for, the first found counts; `latest` or else first place."""
        self.name = name
        self._sizes = tuple(sizes)
        self._length = length
        self._latest = latest
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}

    def begin(self, prompt: Sequence[int]) -> None:
        """Index the prompt."""
        self._text, self._places = [], {}
        self.extend(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """What followed; nothing after guesses of others."""
        for size in () if prefix else self._sizes:
            place = self._places.get(tuple(self._text[-size:]))
            if place is not None:
                return (Proposal(t, 1.0) for t in self._text[place : place + self._length])
        return iter(())

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Nothing to learn."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Append; an n-gram is indexed once something follows it."""
        for token in tokens:
            end = len(self._text)
            for size in self._sizes:
                if end >= size:
                    gram = tuple(self._text[end - size :])
                    if self._latest or gram not in self._places:
                        self._places[gram] = end
            self._text.append(token)


class FixedOrder:
    """The first of some drafters that knows anything drafts LENGTH tokens; certain of it."""

    name = "hierarchy"
    cost_ms = 0.0
    start_ms = 0.0
    outlook = fertility = 1.0

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self._drafters = tuple(drafters)

    def begin(self, prompt: Sequence[int]) -> None:
        """Begin with each."""
        for drafter in self._drafters:
            drafter.begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Guesses of the first; nothing after guesses of others."""
        for drafter in () if prefix else self._drafters:
            found = list(islice(drafter.propose(), LENGTH))
            if found:
                return (Proposal(guess.token, 1.0) for guess in found)
        return iter(())

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Nothing to learn."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Tell each."""
        for drafter in self._drafters:
            drafter.extend(tokens)


class Gate:
    """A drafter that is silent while another method is measured."""

    def __init__(self, method: str, drafter: Drafter, chosen: list[str]) -> None:
        """`chosen` holds the name of the method under way."""
        self._method, self._drafter, self._chosen = method, drafter, chosen
        self.name, self.outlook = drafter.name, 1.0
        self.cost_ms = self.start_ms = 0.0
        self.fertility = 1.0

    def begin(self, prompt: Sequence[int]) -> None:
        """Pass on."""
        if self._method in self._chosen:
            self._drafter.begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Pass on, or say nothing."""
        return self._drafter.propose(prefix) if self._method in self._chosen else iter(())

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Pass on."""
        self._drafter.learn(proposals, kept)

    def extend(self, tokens: Sequence[int]) -> None:
        """Pass on."""
        if self._method in self._chosen:
            self._drafter.extend(tokens)


def methods(tiers: Sequence[TokenIndex], max_rows: int) -> dict[str, list[Drafter]]:
    """The drafters of each method."""
    fixed = FixedOrder([ContextDrafter(), *(DatabaseDrafter([tier]) for tier in tiers)])
    return {
        "edgespec": [ContextDrafter(), DatabaseDrafter(tiers)],
        "hierarchy": [fixed],
        "prompt-lookup": [Lookup("prompt-lookup", (3, 2, 1), LENGTH, latest=False)],
        "ngram-simple": [Lookup("ngram-simple", (12,), min(48, max_rows - 1), latest=True)],
    }


class Rig:
    """A completer whose drafters are those of the method chosen last."""

    def __init__(self, model_path: Path, folder: Path, cleanup: contextlib.ExitStack) -> None:
        """`folder` is for the token database; what was measured of the model is the user's."""
        machine = this_machine()
        facts_database = cleanup.enter_context(open_database(user_paths().database))
        model = cleanup.enter_context(open_model(model_path, Facts(facts_database), machine, print))
        facts = known_model_facts(model, Facts(facts_database), machine, print)
        options = context_options(LoadOptions(), model, facts, machine)
        context = cleanup.enter_context(Context(model, options))
        database = cleanup.enter_context(open_database(folder / "compared.db"))
        opened = open_token_memory(database, vocabulary_key(model, Facts(database)))
        assert opened is not None
        self.memory = cleanup.enter_context(Remembering(opened, print))
        self._chosen: list[str] = []
        by_method = methods(self.memory.tiers, facts.max_rows)
        self.names = tuple(by_method)
        gates = [
            Gate(name, drafter, self._chosen)
            for name, drafters in by_method.items()
            for drafter in drafters
        ]
        engine = Engine(
            LlamaTarget(context, facts.max_rows),
            gates,
            CostModel(facts.table, facts.max_rows),
            time.perf_counter,
        )
        self.completer = EngineCompleter(
            engine,
            ModelBridge(model),
            lambda sampling: SamplerChain(sampling, model.vocab, model.num_context_train),
            served_model(model_path, context),
            listeners=[self.memory],
        )

    def answer(self, method: str, request: CompletionRequest) -> Completion:
        """Answer by one method; with any other name, nothing is drafted."""
        self._chosen[:] = [method]
        return complete(self.completer, request)

    def learn(self, questions: Sequence[Question], max_tokens: int) -> None:
        """Ask each question and remember the answers; then remember nothing more."""
        self.memory.is_learning = True
        for question in questions:
            self.answer("edgespec", request_of(question, max_tokens))
        self.memory.is_learning = False
        self.memory.flush()


def request_of(question: Question, max_tokens: int) -> CompletionRequest:
    """The first turn of a question, to be answered greedily."""
    return CompletionRequest((Message("user", question.turns[0]),), SamplingParams(), max_tokens)


def served_model(path: Path, context: Context) -> ServedModel:
    """What nobody looks at here."""
    return ServedModel(path.stem, "", context.num_context, 0, "several", "identical")


def compare(rig: Rig, questions: Sequence[Question], max_tokens: int) -> dict[str, list[float]]:
    """Tokens per second of each method on each question; raises if an answer differs."""
    speeds: dict[str, list[float]] = {name: [] for name in (PLAIN, *rig.names)}
    names = tuple(speeds)
    for number, question in enumerate(questions):
        request = request_of(question, max_tokens)
        rig.answer(PLAIN, replace(request, max_tokens=1))  # prefills once for all
        start = number % len(names)
        answers = {name: rig.answer(name, request) for name in names[start:] + names[:start]}
        assert len({answer.token_ids for answer in answers.values()}) == 1, question.id
        if len(answers[PLAIN].token_ids) > 1:  # answers of one token have no speed
            for name, answer in answers.items():
                speeds[name].append(answer.timings.decode_tokens_per_second)
        print(f"[{number + 1}/{len(questions)}] {question.id}", file=sys.stderr)
    return speeds


def main(arguments: Sequence[str]) -> None:
    """Learn, measure, print a table."""
    kinds: dict[str, Warm] = {kind: kind for kind in get_args(Warm)}
    model, warm = Path(arguments[0]), kinds[arguments[1]]
    limit = int(arguments[2]) if len(arguments) > 2 else None
    max_tokens = int(arguments[3]) if len(arguments) > 3 else 128
    plan = warm_plan(warm, None, (), limit, None)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as cleanup:
        rig = Rig(model, Path(folder), cleanup)
        rig.learn(plan.earlier, max_tokens)
        speeds = compare(rig, plan.questions, max_tokens)
    plain = fmean(speeds[PLAIN])
    for name, values in speeds.items():
        print(f"{name:<14} {fmean(values):8.2f} tokens/s  {fmean(values) / plain:6.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
