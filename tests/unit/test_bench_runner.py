"""Paired runs over the real engine with a pseudo-model: fair, comparable, complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from answer_support import GeneratedAnswer
from fakes import (
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    TinyBridge,
    make_engine,
    oracle,
)

from edgespec.bench.report import figures
from edgespec.bench.runner import Pair, Run, Stoppable, run_suite
from edgespec.bench.suite import Question
from edgespec.engine.answer import EngineAnswer
from edgespec.engine.completer import EngineCompleter
from edgespec.errors import GrammarError
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    Insight,
    Message,
    SamplingParams,
    ServedModel,
    SpeculationStats,
    Timings,
)

GREEDY = SamplingParams()
NUM_VOCAB = TinyBridge().num_vocab


class Recording(EngineCompleter):
    """The real completer, which also notes what it was asked."""

    def __init__(self, target: FakeTarget, drafter: FakeDrafter) -> None:
        model = ServedModel("fake", "", target.num_context, 0, "fake", "identical")
        super().__init__(make_engine(target, drafter), TinyBridge(), lambda _: FakeSampler(), model)
        self.requests: list[CompletionRequest] = []

    def answer(self, request: CompletionRequest) -> EngineAnswer:
        self.requests.append(request)
        return super().answer(request)


def recording(num_context: int = 400) -> tuple[Recording, FakeTarget]:
    target = FakeTarget(num_vocab=NUM_VOCAB, num_context=num_context)
    return Recording(target, FakeDrafter(oracle(target))), target


def ask(*turns: str, category: str = "a") -> Question:
    return Question("-".join(turns), category, turns)


def measured(pair: Pair) -> tuple[Run, Run]:
    return pair.plain, pair.speculative


def test_both_ways_say_the_same_and_only_one_is_drafted() -> None:
    completer, _ = recording()
    [pair] = run_suite(completer, [ask("ab a b")], GREEDY, 40)
    plain, fast = measured(pair)
    assert pair.identical
    assert plain.emitted == fast.emitted == plain.num_tokens + 1
    assert (plain.proposed, plain.accepted) == (0, 0)
    assert plain.passes == plain.emitted
    assert fast.passes < plain.passes
    assert fast.accepted == fast.emitted - fast.passes > 0


def test_the_prompt_is_prefilled_before_either_is_timed() -> None:
    """One token first; then both runs find all of the prompt but its last token in the cache."""
    completer, _ = recording()
    list(run_suite(completer, [ask("ab a b")], GREEDY, 40))
    warm, first, second = completer.requests
    assert (warm.max_tokens, warm.speculate) == (1, False)
    assert first.prompt == second.prompt == warm.prompt
    assert (first.max_tokens, second.max_tokens) == (40, 40)
    assert all(request.reuse_prefix for request in completer.requests)


def test_who_goes_first_alternates() -> None:
    completer, _ = recording()
    questions = [ask(letter) for letter in "abca"]
    list(run_suite(completer, questions, GREEDY, 8))
    order = [request.speculate for request in completer.requests]
    assert order == [False, False, True, False, True, False] * 2


def test_turns_follow_each_other_with_the_plain_answer_between() -> None:
    completer, _ = recording()
    [pair] = run_suite(completer, [ask("a", "b", "c")], GREEDY, 6)
    last = completer.requests[-1].prompt
    assert isinstance(last, tuple)
    assert [message.role for message in last] == ["user", "assistant"] * 2 + ["user"]
    assert [message.content for message in last if message.role == "user"] == ["a", "b", "c"]
    assert pair.identical
    assert pair.num_prompt_tokens > 3 * len("a")
    first_turn = completer.requests[0].prompt
    assert first_turn == (Message("user", "a"),)


def test_sampling_reaches_every_request() -> None:
    completer, _ = recording()
    warm = SamplingParams(temperature=0.8, seed=3)
    list(run_suite(completer, [ask("a")], warm, 4))
    assert {request.sampling for request in completer.requests} == {warm}


def test_what_does_not_fit_is_left_out_and_the_rest_goes_on() -> None:
    completer, _ = recording(num_context=40)
    questions = [ask("a"), ask("b " * 60), ask("c")]
    pairs = list(run_suite(completer, questions, GREEDY, 4))
    assert [pair.question for pair in pairs] == [questions[0], questions[2]]


def test_a_turn_that_does_not_fit_leaves_out_the_question() -> None:
    completer, _ = recording(num_context=40)
    assert list(run_suite(completer, [ask("a", "b " * 60)], GREEDY, 4)) == []


def test_other_errors_end_the_run() -> None:
    target = FakeTarget(num_vocab=NUM_VOCAB)
    model = ServedModel("fake", "", target.num_context, 0, "fake", "identical")

    def refuse(_sampling: SamplingParams) -> FakeSampler:
        raise GrammarError("no")

    completer = EngineCompleter(make_engine(target), TinyBridge(), refuse, model)
    with pytest.raises(GrammarError):
        next(iter(run_suite(completer, [ask("a")], GREEDY, 4)))


def test_nothing_is_measured_before_it_is_asked_for() -> None:
    """Lazy: whoever stops after a pair has it, and nothing more was computed."""
    completer, _ = recording()
    pairs = run_suite(completer, [ask("a"), ask("b")], GREEDY, 4)
    next(pairs)
    assert len(completer.requests) == 3


def test_a_stop_ends_the_answer_under_way_and_all_that_follow() -> None:
    completer, target = recording()
    stoppable = Stoppable(completer)
    target.on_pass = lambda _tokens: stoppable.stop()
    pairs = list(run_suite(stoppable, [ask("ab a b"), ask("c")], GREEDY, 40))
    assert stoppable.model is completer.model
    assert stoppable.decode_token(5) == b"a"
    assert stoppable.count_tokens([Message("user", "a")]) == completer.count_tokens(
        [Message("user", "a")]
    )
    assert [run.emitted for pair in pairs for run in measured(pair)] == [0, 0, 0, 0]


class Scripted:
    """Implements `Completer`: answers are made up by `script` from the request."""

    def __init__(self, script: Callable[[CompletionRequest], Sequence[int]]) -> None:
        self.model = ServedModel("scripted", "", 100, 0, "none", "near-ties")
        self._script = script

    def answer(self, request: CompletionRequest) -> GeneratedAnswer:
        return GeneratedAnswer(lambda _cancelled: self._say(request))

    def _say(self, request: CompletionRequest) -> Iterator[Chunk]:
        tokens = tuple(self._script(request))
        timings = Timings(5.0, 2.0 * (len(tokens) - 1), 5.0, 7, 6, len(tokens))
        stats = SpeculationStats(len(tokens), len(tokens), {})
        completion = Completion("text", tokens, "length", timings, stats)
        yield Chunk("te", timings=timings, stats=stats)
        yield Chunk("xt", timings=timings, stats=stats, completion=completion)

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        return len(text)

    def insight(self) -> Insight:
        return Insight({1: 2.0}, 0)

    def decode_token(self, token: int) -> bytes:
        return bytes([token])


def test_a_difference_in_any_turn_is_told() -> None:
    def differ_at_the_end(request: CompletionRequest) -> list[int]:
        return [1, 2, 3 if len(request.prompt) == 1 or request.speculate else 4]

    same, different = run_suite(Scripted(differ_at_the_end), [ask("a"), ask("a", "b")], GREEDY, 3)
    assert same.identical
    assert not different.identical
    assert not figures([same, different]).identical


def test_a_shorter_answer_is_a_difference() -> None:
    completer = Scripted(lambda request: [1, 2] if request.speculate else [1, 2, 3])
    [pair] = run_suite(completer, [ask("a")], GREEDY, 3)
    assert not pair.identical


def test_only_decoding_is_timed() -> None:
    """Two turns of 3 tokens, 2 ms for each token after the first, 5 ms of prefill left out."""
    [pair] = run_suite(Scripted(lambda _: [1, 2, 3]), [ask("a", "b")], GREEDY, 3)
    for run in measured(pair):
        assert run.num_tokens == 4
        assert run.decode_s == pytest.approx(0.008)
        assert run.tokens_per_second == pytest.approx(500.0)
    assert pair.num_prompt_tokens == 14


def test_an_answer_of_one_token_has_no_speed() -> None:
    [pair] = run_suite(Scripted(lambda _: [1]), [ask("a")], GREEDY, 3)
    assert (pair.plain.num_tokens, pair.plain.tokens_per_second) == (0, 0.0)
