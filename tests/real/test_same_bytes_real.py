"""The first promise on the default model: with and without speculation the answers are the same.

Every pair starts from the same cache: an answer of one token leaves the prompt there, and both
answers reuse it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from rigs import prefill, score

from edgespec.engine.completer import EngineCompleter
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.target import LlamaTarget
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running
from edgespec.runtime.target import context_options
from edgespec.types import Completion, CompletionRequest, Constraint, Message, SamplingParams

MAX_TOKENS = 48
GREEDY = SamplingParams()
WARM = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=20)
CANCELLED_S = 1.0
"""Ten times the promise of 100 ms: the machine may be busy."""

CODE = """\
def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)
"""
PARAGRAPH = """\
The harbour of the town was built for sailing ships. When steam came, the ships grew too long for
it, and the trade went to the city at the mouth of the river. For sixty years the quays stood empty.
Today small boats lie there in summer, the warehouses are flats and workshops, and on Saturdays a
market sells fish, bread and old books. Nobody in the town wants the big ships back.
"""
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"town": {"type": "string"}, "empty_years": {"type": "integer"}},
        "required": ["town", "empty_years"],
        "additionalProperties": False,
    }
)
STORY = """\
Anna kept the lighthouse on the northern point. Every evening she climbed the stairs, cleaned the
lamp, wound the clockwork and wrote the weather into the book. In the winter of the great ice no
ship came for eleven weeks. She wrote the weather all the same, and beneath it what she had seen: a
fox on the frozen bay, a light that might have been a star, the prints of somebody who had walked
around the tower in the night and gone away again. When the ice broke, the first boat brought flour,
paraffin and a letter. The letter said that the light was to be put out for good, because the ships
now steered by radio. Anna read it twice. Then she climbed the stairs, cleaned the lamp, wound the
clockwork and wrote the weather into the book.
"""


def say(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def varied(**changes: object) -> Callable[[SamplingParams], SamplingParams]:
    return lambda sampling: dataclasses.replace(sampling, **changes)  # type: ignore[arg-type]


CASES: dict[str, tuple[str, Callable[[SamplingParams], SamplingParams]]] = {
    "code edit": (f"Rename `values` to `numbers`. Answer with the code only.\n\n{CODE}", varied()),
    "summary": (f"Summarize in two sentences:\n\n{PARAGRAPH}", varied()),
    "translation": ("Translate into French: The market sells fish, bread and old books.", varied()),
    "schema": (
        f"Fill in as JSON.\n\n{PARAGRAPH}",
        varied(constraint=Constraint("json_schema", SCHEMA)),
    ),
    "penalties": (
        "List ten animals, one a line.",
        varied(repeat_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.3),
    ),
    "German": ("Erkläre in drei Sätzen, wie ein Leuchtturm funktioniert.", varied()),
}


@dataclass(frozen=True)
class Pair:
    """One question answered plainly and with speculation."""

    plain: Completion
    drafted: Completion


def ask(completer: EngineCompleter, request: CompletionRequest) -> Completion:
    """The completion; what was streamed must be its text."""
    chunks = list(completer.answer(request))
    completion = chunks[-1].completion
    assert completion is not None
    assert "".join(chunk.text for chunk in chunks) == completion.text
    return completion


def ask_both_ways(completer: EngineCompleter, request: CompletionRequest) -> Pair:
    ask(completer, dataclasses.replace(request, max_tokens=1, speculate=False))
    drafted = ask(completer, dataclasses.replace(request, speculate=True))
    plain = ask(completer, dataclasses.replace(request, speculate=False))
    for completion in (drafted, plain):
        timings = completion.timings
        assert timings.num_cached_tokens == timings.num_prompt_tokens - 1
    return Pair(plain, drafted)


def check_promise(pair: Pair, completer: EngineCompleter) -> None:
    """Equal token by token, or told to be equal up to near-ties."""
    assert pair.plain.stats.proposed == 0
    assert pair.plain.stats.target_passes == len(pair.plain.token_ids)
    exactness = completer.model.exactness
    if exactness == "identical":
        assert pair.drafted.token_ids == pair.plain.token_ids
        assert pair.drafted.text == pair.plain.text
        assert pair.drafted.finish_reason == pair.plain.finish_reason
    else:
        assert exactness == "near-ties"
        for completion in (pair.plain, pair.drafted):
            assert completion.finish_reason in ("stop", "length")
            assert 0 < len(completion.token_ids) <= MAX_TOKENS


@pytest.fixture(scope="module")
def completer(real: Running) -> EngineCompleter:
    return real.completer


@pytest.fixture(scope="module")
def pair_of(completer: EngineCompleter) -> Callable[[str, float], Pair]:
    """The answers to one case at one temperature, asked for once."""
    pairs: dict[tuple[str, float], Pair] = {}

    def answer(case: str, temperature: float) -> Pair:
        if (case, temperature) not in pairs:
            text, vary = CASES[case]
            sampling = vary(GREEDY if temperature == 0 else WARM)
            request = CompletionRequest(say(text), sampling, max_tokens=MAX_TOKENS)
            pairs[case, temperature] = ask_both_ways(completer, request)
        return pairs[case, temperature]

    return answer


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("case", CASES)
def test_short_prompts(
    pair_of: Callable[[str, float], Pair],
    completer: EngineCompleter,
    case: str,
    temperature: float,
) -> None:
    pair = pair_of(case, temperature)
    check_promise(pair, completer)
    if case == "schema" and pair.plain.finish_reason == "stop":
        assert json.loads(pair.plain.text).keys() == {"town", "empty_years"}


def test_drafts_are_really_kept(pair_of: Callable[[str, float], Pair]) -> None:
    """The answers that copy from their prompt are drafted, and take fewer passes for it."""
    drafted = [pair_of(case, 0.0).drafted.stats for case in ("code edit", "summary")]
    assert sum(stats.accepted for stats in drafted) > 0
    for stats in drafted:
        assert stats.emitted == stats.target_passes + stats.accepted
        assert stats.by_drafter.keys() <= {"context", "database", "grammar"}


def test_warm_answers_are_no_greedy_ones(pair_of: Callable[[str, float], Pair]) -> None:
    """Otherwise the tests at temperature 0.8 would show nothing more than those at 0."""
    cases = ("German", "penalties", "summary")
    greedy = [pair_of(case, 0.0).plain.token_ids for case in cases]
    assert greedy != [pair_of(case, 0.8).plain.token_ids for case in cases]


def prompt_of(completer: EngineCompleter, num_tokens: int) -> tuple[Message, ...]:
    """A request to copy out a text, cut to the longest of at most `num_tokens` tokens."""
    words = itertools.islice(itertools.cycle(STORY.split(" ")), num_tokens)
    request = "Write out this text from its beginning, word for word:\n\n"
    longest: tuple[Message, ...] = ()
    for count, _ in enumerate(chosen := list(words), start=1):
        prompt = say(request + " ".join(chosen[:count]))
        if completer.count_tokens(prompt) > num_tokens:
            return longest
        longest = prompt
    raise AssertionError(f"fewer than {num_tokens} tokens")


@pytest.mark.parametrize(
    ("num_tokens", "sampling"), [(478, GREEDY), (800, WARM)], ids=["across 512", "beyond 512"]
)
def test_contexts_on_both_sides_of_512_tokens(
    completer: EngineCompleter, num_tokens: int, sampling: SamplingParams
) -> None:
    """From 512 tokens on, attention over one row may take another kernel than over several."""
    prompt = prompt_of(completer, num_tokens)
    request = CompletionRequest(prompt, sampling, max_tokens=MAX_TOKENS)
    pair = ask_both_ways(completer, request)
    check_promise(pair, completer)
    num_prompt = pair.plain.timings.num_prompt_tokens
    assert num_tokens - 10 < num_prompt <= num_tokens
    assert num_prompt + len(pair.plain.token_ids) > 512


@pytest.mark.parametrize("num_cached", [60, 500])
def test_the_claimed_rows_have_the_bits_of_single_rows(real: Running, num_cached: int) -> None:
    """What the probe found on made-up contexts holds for text, at row counts it did not try.

    Nothing is claimed where the model is said to be equal up to near-ties.
    """
    num_rows = real.facts.max_rows if real.facts.exactness == "identical" else 1
    text = ModelBridge(real.model).encode(STORY * 4)
    options = context_options(LoadRequest(num_context=1024), real.model, real.facts, real.machine)
    with Context(real.model, options) as context:
        target = LlamaTarget(context, num_rows)
        prefill(target, text[:num_cached])
        alone = []
        for token in text[num_cached : num_cached + num_rows]:
            score(target, [token])
            alone.append(target.logits(0).copy())
        for rows in {2, 3, 5, 7, 11, num_rows} & set(range(num_rows + 1)):
            target.truncate(0, num_cached)
            score(target, text[num_cached : num_cached + rows])
            for row in range(rows):
                assert np.array_equal(target.logits(row), alone[row]), (rows, row)


def converse(completer: EngineCompleter, bridge: ModelBridge, speculate: bool) -> list[Completion]:
    """Two turns from an empty cache; the second prefills what is new and nothing else."""
    completer.forget()
    first_prompt = say(f"What does this function do?\n\n{CODE}")
    request = CompletionRequest(first_prompt, WARM, MAX_TOKENS, speculate=speculate)
    first = ask(completer, request)
    assert first.timings.num_cached_tokens == 0
    cached = [*bridge.encode_chat(first_prompt), *first.token_ids[:-1]]
    turns = (
        *first_prompt,
        Message("assistant", first.text),
        Message("user", "Write it with sum()."),
    )
    second = ask(completer, dataclasses.replace(request, prompt=turns))
    prompt = bridge.encode_chat(turns)
    shared = len(list(itertools.takewhile(lambda ab: ab[0] == ab[1], zip(cached, prompt))))  # noqa: B905
    assert second.timings.num_prompt_tokens == len(prompt)
    assert second.timings.num_cached_tokens == shared
    assert shared > len(bridge.encode_chat(first_prompt))
    return [first, second]


def test_a_second_turn_prefills_only_what_is_new(completer: EngineCompleter, real: Running) -> None:
    bridge = ModelBridge(real.model)
    plain = converse(completer, bridge, speculate=False)
    drafted = converse(completer, bridge, speculate=True)
    for one, other in zip(plain, drafted, strict=True):
        check_promise(Pair(one, other), completer)


@pytest.fixture
def long_prompt(completer: EngineCompleter) -> tuple[Message, ...]:
    """One that takes many seconds to read, and that no other test asks."""
    prompt = say("Who is Anna?\n\n" + STORY * 30)
    assert 4000 < completer.count_tokens(prompt) < completer.model.num_context
    return prompt


def test_cancel_while_a_long_prompt_is_read(
    completer: EngineCompleter, long_prompt: tuple[Message, ...]
) -> None:
    completer.forget()
    asked = time.monotonic()
    cancelled_at: list[float] = []
    answer = completer.answer(CompletionRequest(long_prompt, max_tokens=MAX_TOKENS))

    def cancel() -> None:
        cancelled_at.append(time.monotonic())
        answer.cancel()

    timer = threading.Timer(1.0, cancel)
    timer.start()
    *_, last = answer
    returned = time.monotonic()
    completion = last.completion
    assert completion is not None
    timer.join()
    assert asked < cancelled_at[0]
    assert returned - cancelled_at[0] < CANCELLED_S
    assert completion.finish_reason == "cancelled"
    assert completion.token_ids == ()
    assert completion.text == ""
    after = ask(completer, CompletionRequest(say("Say yes."), max_tokens=4))
    assert after.finish_reason in ("stop", "length")
    assert after.token_ids


def chunks_until_cancelled(completer: EngineCompleter) -> Iterator[str]:
    request = CompletionRequest(say("Count from one to a thousand."), max_tokens=1000)
    answer = completer.answer(request)
    for index, chunk in enumerate(answer):
        if index == 3:
            answer.cancel()
        yield chunk.text
        if chunk.completion is not None:
            assert chunk.completion.finish_reason == "cancelled"
            assert chunk.completion.stats.target_passes == 4


def test_cancel_while_an_answer_is_written(completer: EngineCompleter) -> None:
    """No pass follows the one in which it was cancelled, and what was said stays said."""
    text = "".join(chunks_until_cancelled(completer))
    assert text
    assert completer.model.exactness in ("identical", "near-ties")
