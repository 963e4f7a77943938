"""A conversation that comes back from disk says what it would have said had it never been away.

Real cells of llama.cpp, through files: logits, too, must be equal bit by bit.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rigs import (
    EXACT,
    MOST_ROWS,
    SMALL,
    Answered,
    OpenModel,
    Replay,
    WriteModel,
    ask,
    corpus_tokens,
    eager_completer,
    prefill,
)
from tiny_models import TinySpec
from tiny_models.spec import Architecture

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.errors import NativeLibraryError
from edgespec.llama.context import Context
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget, num_sequences
from edgespec.passes import Part, Stretch
from edgespec.paths import Paths
from edgespec.pauses import NO_PAUSE
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.protocols import Drafter, PromptCache
from edgespec.runtime.prompt_cache import PromptCache as FileCache
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import CompletionRequest, EncodedPrompt, Message, SamplingParams

WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, seed=11)
GREEDY = SamplingParams()


def engine(target: LlamaTarget, prompts: PromptCache | None, drafter: Drafter) -> Engine:
    costs = {1: 10.0, MOST_ROWS: 10.1}
    model = CostModel(CostTable(0, 1024, costs, costs), MOST_ROWS)
    planner = Planner([drafter], model, lambda: 1.0)
    return Engine(target, planner, lambda _token: False, lambda: 1.0, prompts)


def say(
    engine: Engine, prompt: list[int], sampling: SamplingParams, conversation: str, count: int = 24
) -> tuple[Answered, int]:
    """An answer with all its logits, and how many tokens of its prompt were known."""
    target = engine.target
    assert isinstance(target, LlamaTarget)
    said = Answered([], [], 0, 0)
    with SamplerChain(sampling, target.context.model.vocab) as sampler:
        limits = Limits(count, conversation=conversation)
        decoding = engine.open(EncodedPrompt(tuple(prompt)), sampler, limits)
        while not decoding.is_over:
            [(_, kept)] = engine.step([decoding])
            said.tokens += kept.tokens
            said.logits += [kept.logits(index).copy() for index in range(len(kept.tokens))]
            said.proposed += sum(kept.proposed.values())
        engine.close(decoding)
    return said, decoding.num_cached


@pytest.mark.parametrize("num_slots", [1, 2])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_restored_and_undisturbed_conversations_go_on_alike(
    open_model: OpenModel,
    tmp_path: Path,
    architecture: Architecture,
    sampling: SamplingParams,
    num_slots: int,
) -> None:
    spec = dataclasses.replace(SMALL, architecture=architecture, sliding_window=64, repetitive=True)
    model = open_model(spec)
    options = dataclasses.replace(
        EXACT,
        num_context=2048,
        num_sequences=num_sequences(num_slots) if num_slots > 1 else 2,
    )
    prompts = FileCache(Paths(tmp_path, tmp_path), "key", pytest.fail)
    tokens = corpus_tokens(model, 700)
    with Context(model, options) as one, Context(model, options) as other:
        disturbed = LlamaTarget(one, MOST_ROWS, num_slots)
        alone = LlamaTarget(other, MOST_ROWS, num_slots)
        there, here = (
            engine(target, cache, ContextDrafter())
            for target, cache in ((disturbed, prompts), (alone, None))
        )
        first, _ = say(there, tokens[:600], sampling, "a")
        undisturbed, _ = say(here, tokens[:600], sampling, "a")
        assert first.tokens == undisturbed.tokens
        for name in ("b", "c")[:num_slots]:
            say(there, tokens[len(name) + ord(name) : 400 + ord(name)], GREEDY, name)
            while prompts.run(NO_PAUSE):
                pass
        again = [*tokens[:600], *first.tokens, *tokens[3:40]]
        restored, num_known = say(there, again, sampling, "a")
        expected, num_kept = say(here, again, sampling, "a")
        assert num_known == num_kept == 600 + len(first.tokens) - 1
        assert restored.tokens == expected.tokens
        assert restored.proposed > 0
        assert all(map(np.array_equal, restored.logits, expected.logits))


def test_a_part_of_a_conversation_is_restored_too(open_model: OpenModel, tmp_path: Path) -> None:
    """An earlier message was edited: only what is shared is used, cut within a stretch."""
    model = open_model(dataclasses.replace(SMALL, repetitive=True))
    options = dataclasses.replace(EXACT, num_context=2048, num_sequences=2)
    prompts = FileCache(Paths(tmp_path, tmp_path), "key", pytest.fail)
    tokens = corpus_tokens(model, 1300)
    edited = [*tokens[:700], *tokens[5:60]]
    with Context(model, options) as context:
        target = LlamaTarget(context, MOST_ROWS)
        replay = Replay([], 512)
        engine_ = engine(target, prompts, replay)
        say(engine_, tokens, WARM, "a")
        say(engine_, tokens[900:1200], WARM, "b")
        restored, num_known = say(engine_, edited, WARM, "a")
        assert num_known == 700
        target.truncate(0, 0)
        alone = engine(target, None, replay)
        say(alone, tokens, WARM, "a")
        expected, _ = say(alone, edited, WARM, "a")
        assert all(map(np.array_equal, restored.logits, expected.logits))


def test_a_state_that_llama_refuses_leaves_the_slot_empty(open_model: OpenModel) -> None:
    model = open_model(SMALL)
    with Context(model, dataclasses.replace(EXACT, num_sequences=2)) as context:
        target = LlamaTarget(context, MOST_ROWS)
        prefill(target, corpus_tokens(model, 60))
        good = target.save(0)
        target.truncate(0, 0)
        for bad in (Stretch(60, b""), Stretch(60, good[0].data[:-9]), Stretch(59, good[0].data)):
            with pytest.raises(NativeLibraryError):
                target.restore(0, [bad])
            assert target.num_cached(0) == 0
        target.restore(0, good)
        target.score([Part(0, (1,))])
        target.keep(0, ())
        restored = target.logits(0).copy()
        target.truncate(0, 60)
        target.score([Part(0, (1,))])
        target.keep(0, ())
        assert np.array_equal(target.logits(0), restored)


REQUEST = LoadRequest(num_threads=1, num_context=2048)


def talk(length: int, start: str) -> tuple[Message, ...]:
    return (Message("user", f"{start} " + "and so on " * length),)


@pytest.mark.parametrize("way", ["kept", "unnamed", "record", "learn", "remember", "deleted"])
def test_a_conversation_outlives_the_process_unless_it_is_not_to(
    tmp_path: Path, write_model: WriteModel, way: str
) -> None:
    paths = Paths(tmp_path, tmp_path / "cache")
    path = write_model(TinySpec(repetitive=True))
    options = dataclasses.replace(
        REQUEST, learn=way != "learn", remember=way != "remember", idle=False
    )
    request = CompletionRequest(
        talk(150, "Once"),
        WARM,
        max_tokens=20,
        conversation=None if way == "unnamed" else "a",
        record=way != "record",
    )
    with load(options, path, paths, lambda _line: None) as running:
        first = ask(running.completer, request)
        assert not list(paths.prompts.glob("*"))
        if way == "deleted":
            running.forget("a")
    is_kept = way in ("kept", "unnamed")
    assert len(list(paths.prompts.glob("*.kv"))) == is_kept
    with load(options, path, paths, lambda _line: None) as running:
        again = ask(running.completer, request)
    assert again.token_ids == first.token_ids
    timings = again.timings
    known = timings.num_cached_tokens
    assert known == (timings.num_prompt_tokens - 1 if is_kept else 0)


def test_the_rest_of_a_cut_answer_is_that_of_one_that_was_not(open_model: OpenModel) -> None:
    model = open_model(dataclasses.replace(SMALL, vocabulary="bpe", repetitive=True))
    question = CompletionRequest(talk(3, "Tell"), max_tokens=120)
    with Context(model, EXACT) as context:
        whole = ask(eager_completer(LlamaTarget(context, MOST_ROWS), ContextDrafter()), question)
        for count in (1, 7, 40, 90):
            context.clear()
            completer = eager_completer(LlamaTarget(context, MOST_ROWS), ContextDrafter())
            cut = ask(completer, dataclasses.replace(question, max_tokens=count))
            if not cut.text:
                continue
            said = (*talk(3, "Tell"), Message("assistant", cut.text))
            rest = ask(
                completer,
                CompletionRequest(said, max_tokens=120 - count, continue_final_message=True),
            )
            assert cut.text + rest.text == whole.text
