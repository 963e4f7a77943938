"""Pairs of the real models, drafting at every chance: the same bits, whatever drafts for whom."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rigs import MOST_ROWS, Asked, eager_engine

from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget
from edgespec.machine.facts import MODEL, known_model_facts, model_key
from edgespec.machine.identity import this_machine
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import open_model_drafter
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running
from edgespec.runtime.target import context_options, open_model
from edgespec.types import EncodedPrompt, Message, SamplingParams

NUM_TOKENS = 12
GREEDY = SamplingParams()
WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=4711)
GERMAN = "Erkläre in drei Sätzen, wie ein Leuchtturm funktioniert, und was „Größe“ dabei heißt."
CHINESE = "用三句话解释为什么天空是蓝色的。"
EMOJI = "Answer with emoji only: 🎉🚀🌊 means a party at sea. And a party in the hills? 🏔️👩‍👩‍👧‍👦🇨🇭"
JSON = (
    'Give the same person as JSON with two spaces of indentation: {"name": "Zoë", "tags": ["a", '
    '"ß", "\\u4e16"], "size": {"cm": 171.5, "ok": true, "none": null}}'
)


@pytest.fixture(scope="module")
def facts(real: Running) -> Iterator[Facts]:
    """What was measured of the default target is not measured again."""
    with open_in_memory() as database:
        store = Facts(database)
        store.put(MODEL, model_key(real.model, real.machine), real.facts.to_json())
        yield store


@dataclasses.dataclass
class Bench:
    """A target that answers plainly or with the drafts of a model and of look-ups."""

    engine: Engine
    context: Context
    drafter: str

    def answer(
        self, prompt: str, sampling: SamplingParams, *, speculate: bool
    ) -> tuple[list[int], list[bytes], Tally]:
        """Tokens, the logits that each was drawn from, counts; from an empty cache."""
        self.engine.forget()
        model, messages = self.context.model, (Message("user", prompt),)
        encoded = EncodedPrompt(tuple(ModelBridge(model).encode_chat(messages)), messages)
        tokens: list[int] = []
        rows: list[bytes] = []
        tally = Tally(lambda: 1.0)
        with SamplerChain(sampling, model.vocab, model.num_context_train) as sampler:
            decoding = self.engine.open(encoded, sampler, Limits(NUM_TOKENS, speculate=speculate))
            while not decoding.is_over:
                [(_, kept)] = self.engine.step([decoding])
                assert kept.error is None
                tally.take(kept)
                tokens += kept.tokens
                rows += [kept.logits(index).tobytes() for index in range(len(kept.tokens))]
            self.engine.close(decoding)
        return tokens, rows, tally


@contextlib.contextmanager
def opened(target: Path, drafter: Path, store: Facts) -> Iterator[tuple[Bench, bool]]:
    """A pair, and whether the target promises the same bits."""
    machine = this_machine()
    with contextlib.ExitStack() as cleanup:
        model = cleanup.enter_context(open_model(target, store, machine, print))
        facts = known_model_facts(model, store, machine, print)
        options = context_options(LoadRequest(num_context=1024), model, facts, machine)
        context = cleanup.enter_context(Context(model, options))
        bound = open_model_drafter(Form(drafter), context, cleanup, of_any_size=True)
        verifier = LlamaTarget(context, min(facts.max_rows, MOST_ROWS))
        asked = Asked(bound.drafter)
        engine = eager_engine(verifier, ContextDrafter(), asked, ends=True)
        yield Bench(engine, context, asked.name), facts.exactness == "identical"


@pytest.mark.parametrize(
    ("target", "drafter", "prompts"),
    [
        ("target_path", "drafter_path", (CHINESE, JSON)),
        ("drafter_path", "drafter_path", (GERMAN, EMOJI)),
        ("drafter_path", "target_path", (GERMAN,)),
    ],
    ids=["a stranger", "the target itself", "one ten times as large"],
)
def test_drafts_change_no_bit(
    request: pytest.FixtureRequest,
    facts: Facts,
    target: str,
    drafter: str,
    prompts: Sequence[str],
) -> None:
    paths: list[Path] = [request.getfixturevalue(name) for name in (target, drafter)]
    num_accepted = 0
    with opened(paths[0], paths[1], facts) as (bench, is_exact):
        for prompt in prompts:
            for sampling in (GREEDY, WARM):
                plain, plain_rows, _ = bench.answer(prompt, sampling, speculate=False)
                drafted, rows, tally = bench.answer(prompt, sampling, speculate=True)
                counts = tally.stats().by_drafter[bench.drafter]
                assert counts.proposed > 0
                num_accepted += counts.accepted
                if is_exact:
                    assert drafted == plain
                    assert rows == plain_rows
    if target == drafter and is_exact:
        assert num_accepted > 0
