"""Check that pairs of models give the same bytes with drafts as without, drafting at every chance.

    python scripts/measure_pairs.py RESULTS.jsonl MINUTES MODEL.gguf MODEL.gguf...

Every model is target to every model, itself included, whatever their sizes. Prompts are below; each
is answered plainly and with drafts of the model and of look-ups, at temperature 0 and 0.8. The
engine is told that rows are nearly free and that the drafter costs nothing, so that it is always
asked and nearly all that it says is verified. RESULTS gets a line for each pair that is done; those
that are there are not done again, so a run that ended after MINUTES can be continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.model import ModelDrafter
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.facts import ModelFacts, known_model_facts
from edgespec.machine.identity import this_machine
from edgespec.passes import Proposal
from edgespec.paths import user_paths
from edgespec.planning.cost import CostModel, CostTable
from edgespec.protocols import Drafter
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import open_model_drafter
from edgespec.runtime.target import context_options, open_model
from edgespec.types import (
    Completion,
    CompletionRequest,
    DrafterCounts,
    Message,
    Prompt,
    SamplingParams,
    ServedModel,
)

PROMPTS = (
    "Explain in three sentences why the sea is salty.",
    "Erkläre in drei Sätzen, wie ein Leuchtturm funktioniert, und was „Größe“ dabei heißt.",
    "用三句话解释为什么天空是蓝色的。",
    "Schreibe dieses Gedicht noch einmal ab: Über allen Gipfeln ist Ruh, in allen Wipfeln spürest "
    "du kaum einen Hauch.",
    "Answer with emoji only: 🎉🚀🌊 means a party at sea. And a party in the hills? 🏔️👩‍👩‍👧‍👦🇨🇭",
    "Write a Python function that merges two sorted lists.\n\n```python\ndef merge(left, right):\n",
    "Rename `total` to `summe` and answer with the code only:\n\n"
    "def mean(values):\n\ttotal = 0\n\tfor value in values:\n\t\ttotal += value\n"
    "\treturn total / len(values)\n",
    'Give the same person as JSON with two spaces of indentation: {"name": "Zoë", "tags": ["a", '
    '"ß", "\\u4e16"], "size": {"cm": 171.5, "ok": true, "none": null}}',
    "Translate into French, Japanese and Russian: The market sells fish, bread and old books.",
    "List ten animals, one a line, each with its number and its sound in capital letters.",
)
NUM_TOKENS = 48
MOST_ROWS = 6
CONTEXT = 1024
GREEDY = SamplingParams()
WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=4711)
_NEARLY_FREE = {1: 10.0, MOST_ROWS: 10.1}


class Asked:
    """Implements `Drafter` around a model drafter that is asked at every chance."""

    cost_ms = start_ms = 0.0
    outlook = fertility = 1.0

    def __init__(self, drafter: ModelDrafter) -> None:
        self.drafter = drafter
        self.name = f"model {drafter.name}"  # the model may be called as a strategy is

    def begin(self, prompt: Sequence[int]) -> None:
        """Start an answer."""
        self.drafter.begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """What the drafter within says."""
        return self.drafter.propose(prefix)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Tell it which of its guesses were right."""
        self.drafter.learn(proposals, kept)

    def extend(self, tokens: Sequence[int]) -> None:
        """Tell it what was kept."""
        self.drafter.extend(tokens)


class Bench:
    """A target, ready to be answered by with any drafters."""

    def __init__(
        self,
        path: Path,
        store: Facts,
        cleanup: contextlib.ExitStack,
        num_context: int = CONTEXT,
    ) -> None:
        """Open and measure the model at `path`; `cleanup` closes it."""
        machine = this_machine()
        self.model: Model = cleanup.enter_context(open_model(path, store, machine, _say))
        self.facts: ModelFacts = known_model_facts(self.model, store, machine, _say)
        self.context: Context = cleanup.enter_context(
            Context(self.model, context_options(num_context, self.model, self.facts, machine))
        )

        self._plain: dict[tuple[str, SamplingParams, int], Completion] = {}

    def plain(
        self, completer: EngineCompleter, prompt: str, sampling: SamplingParams, num_tokens: int
    ) -> Completion:
        """The answer without drafts, which is the same for every drafter: asked for once."""
        key = prompt, sampling, num_tokens
        if key not in self._plain:
            self._plain[key] = ask(completer, prompt, sampling, num_tokens, speculate=False)
        return self._plain[key]

    def completer(
        self,
        drafters: Sequence[Drafter],
        readers: Sequence[Callable[[Prompt], None]],
        max_rows: int = MOST_ROWS,
    ) -> EngineCompleter:
        """A completer for which rows are nearly free, and stay so: its clock stands still."""
        rows = min(self.facts.max_rows, max_rows)
        costs = CostModel(CostTable(0, CONTEXT, _NEARLY_FREE, _NEARLY_FREE), rows)
        engine = Engine(LlamaTarget(self.context, rows), drafters, costs, lambda: 0.0)

        def make_sampler(sampling: SamplingParams) -> SamplerChain:
            return SamplerChain(sampling, self.model.vocab, self.model.num_context_train)

        served = ServedModel(self.model.path.stem, "", CONTEXT, 0, "", self.facts.exactness)
        return EngineCompleter(engine, ModelBridge(self.model), make_sampler, served, readers)


@dataclass
class PairResult:
    """What came of one pair: answers that were equal, and drafted tokens by drafter."""

    target: str
    drafter: str
    exactness: str
    num_answers: int = 0
    num_equal: int = 0
    num_tokens: int = 0
    proposed: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: str, plain: Completion, drafted: Completion) -> None:
        """Compare two answers to one prompt."""
        self.num_answers += 1
        self.num_tokens += len(drafted.token_ids)
        ends = [(it.token_ids, it.text.encode(), it.finish_reason) for it in (plain, drafted)]
        self.num_equal += ends[0] == ends[1]
        if ends[0] != ends[1]:
            self.differing.append(case)
        for name, counts in drafted.stats.by_drafter.items():
            self._count(name.split(" ")[0], counts)

    def _count(self, kind: str, counts: DrafterCounts) -> None:
        self.proposed[kind] = self.proposed.get(kind, 0) + counts.proposed
        self.accepted[kind] = self.accepted.get(kind, 0) + counts.accepted

    def __str__(self) -> str:
        drafted = ", ".join(
            f"{kind} {self.accepted[kind]} of {self.proposed[kind]}"
            for kind in sorted(self.proposed)
        )
        return (
            f"{self.target} <- {self.drafter}: {self.num_equal} of {self.num_answers} equal "
            f"({self.exactness}), {self.num_tokens} tokens, kept: {drafted}, {self.seconds:.0f} s"
        )


def check_pair(
    bench: Bench, drafter: Path, prompts: Sequence[str] = PROMPTS, num_tokens: int = NUM_TOKENS
) -> PairResult:
    """Answer every prompt plainly and with drafts, at both temperatures."""
    started = time.monotonic()
    result = PairResult(bench.model.path.stem, drafter.stem, bench.facts.exactness)
    with contextlib.ExitStack() as cleanup:
        model = open_model_drafter(Form(drafter), bench.context, cleanup, of_any_size=True).drafter
        completer = bench.completer([ContextDrafter(), Asked(model)], [model.read_prompt])
        for number, prompt in enumerate(prompts):
            for sampling in (GREEDY, WARM):
                plain = bench.plain(completer, prompt, sampling, num_tokens)
                drafted = ask(completer, prompt, sampling, num_tokens, speculate=True)
                result.add(f"{number} at {sampling.temperature}", plain, drafted)
        completer.forget()  # the next engine begins with an empty cache
    result.seconds = time.monotonic() - started
    return result


def ask(
    completer: EngineCompleter,
    prompt: str,
    sampling: SamplingParams,
    num_tokens: int,
    *,
    speculate: bool,
) -> Completion:
    """One answer, from the same cache as any other to its prompt: that is read whole before."""
    request = CompletionRequest(
        (Message("user", prompt),), sampling, num_tokens, speculate=speculate
    )
    completer.forget()
    for _ in completer.answer(dataclasses.replace(request, max_tokens=1, speculate=False)):
        pass
    *_, last = completer.answer(request)
    assert last.completion is not None
    return last.completion


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def main(results: Path, minutes: float, models: Sequence[Path]) -> None:
    """Do what is not done yet, for so many minutes; prints a line for each pair."""
    deadline = time.monotonic() + 60 * minutes
    done = set()
    if results.exists():
        lines = map(json.loads, results.read_text().splitlines())
        done = {(line["target"], line["drafter"]) for line in lines}
    with open_database(user_paths().database) as database:
        for target in models:
            missing = [path for path in models if (target.stem, path.stem) not in done]
            with contextlib.ExitStack() as cleanup:
                bench = Bench(target, Facts(database), cleanup) if missing else None
                for drafter in missing:
                    assert bench is not None
                    result = check_pair(bench, drafter)
                    print(result, flush=True)
                    with results.open("a") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
                    if time.monotonic() + 1.5 * result.seconds > deadline:
                        return


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), float(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
