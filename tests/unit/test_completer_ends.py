"""How answers end before their time: cancelled, closed, failed; the others go on."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from completers import (
    BRIDGE,
    A,
    B,
    Notebook,
    Rig,
    alone,
    completion_of,
    drafter_of,
    said,
)
from fakes import FakeSampler, ScriptedSampler, TinyBridge

from edgespec.engine.answer import EngineAnswer
from edgespec.errors import Cancelled, EdgeSpecError, GrammarError, NativeLibraryError, UsageError
from edgespec.protocols import Sampler, Target
from edgespec.types import Completion, CompletionRequest, Constraint, SamplingParams

PATIENCE_S = 30.0


def only_chunk(answer: EngineAnswer) -> Completion:
    [chunk] = answer
    assert chunk.completion is not None
    assert chunk.completion.finish_reason == "cancelled"
    return chunk.completion


def test_an_answer_that_was_cancelled_at_birth_computes_nothing() -> None:
    notebook = Notebook()
    rig = Rig(observer=notebook)
    answer = rig.ask()
    answer.cancel()
    assert said(only_chunk(answer)) == ("", (), "cancelled")
    assert rig.target.passes == []
    assert (rig.samplers, notebook.notes) == ([], [])
    assert said(rig.answer(CompletionRequest("abc", max_tokens=3))) == said(
        alone(CompletionRequest("abc", max_tokens=3))
    )


def test_cancel_ends_the_answer_with_what_there_is() -> None:
    notebook = Notebook()
    rig = Rig(script=[A, B] * 50, observer=notebook)
    answer = rig.ask()
    seen = [next(answer) for _ in range(3)]
    answer.cancel()
    seen += answer
    completion = completion_of(seen)
    assert said(completion) == ("aba", (A, B, A), "cancelled")
    assert len(seen) == 4
    assert notebook.notes[0].closed == [completion]
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).token_ids == (A, B, A)


@pytest.mark.parametrize("place", [1, 2])
def test_one_that_waits_for_room_is_cancelled_wherever_it_waits(place: int) -> None:
    rig = Rig(script=[A, B] * 50)
    first, *waiting = [rig.ask() for _ in range(3)]
    next(first)
    num_passes = len(rig.target.passes)
    cancelled = waiting.pop(place - 1)
    cancelled.cancel()
    assert only_chunk(cancelled).stats.emitted == 0
    assert len(rig.target.passes) == num_passes
    for answer in (*waiting, first):
        assert completion_of(list(answer)).finish_reason == "length"


def test_cancel_while_the_prompt_is_tokenized_counts() -> None:
    class SlowBridge(TinyBridge):
        cancel: Callable[[], None]

        def encode(self, text: str) -> list[int]:
            self.cancel()
            return super().encode(text)

    bridge = SlowBridge()
    rig = Rig(bridge=bridge)
    answer = rig.ask()
    bridge.cancel = answer.cancel
    only_chunk(answer)
    assert rig.target.cells == []


def cancel_in_pass(rig: Rig, answer: EngineAnswer, number: int = 1) -> None:
    """Have another thread cancel `answer` while pass `number` from now on is computed."""
    count = 0

    def on_pass(_tokens: Sequence[int]) -> None:
        nonlocal count
        count += 1
        if count == number:
            thread = threading.Thread(target=answer.cancel)
            thread.start()
            thread.join(PATIENCE_S)

    rig.target.on_pass = on_pass


def test_a_cancel_from_another_thread_ends_the_pass() -> None:
    """And the answers of others go on, though their pass was ended as well."""
    request = CompletionRequest("ab", max_tokens=20)
    rig = Rig(num_context=200, num_slots=2)
    first, second = rig.ask(CompletionRequest("cc", max_tokens=50)), rig.ask(request)
    next(first), next(second)
    num_emitted = first.transcript.tokens.copy()
    cancel_in_pass(rig, first)
    chunks = list(first)
    assert completion_of(chunks).token_ids == tuple(num_emitted)
    assert said(completion_of([*second])) == said(alone(request))


def test_a_cancel_during_the_prompt_gives_an_empty_answer() -> None:
    rig = Rig(num_context=200)
    answer = rig.ask(CompletionRequest("c" * 60))
    cancel_in_pass(rig, answer, number=2)
    chunks = list(answer)
    assert [chunk.progress is None for chunk in chunks] == [False, False, True]
    assert said(completion_of(chunks)) == ("", (), "cancelled")
    assert len(rig.target.cells) == 8, "what was read stays"
    assert rig.answer(CompletionRequest("c" * 60)).timings.num_cached_tokens == 8


def test_one_that_waits_is_cancelled_though_its_own_thread_computes_for_others() -> None:
    rig = Rig(script=[A, B] * 50)
    first, waiting = rig.ask(), rig.ask()
    cancel_in_pass(rig, waiting)
    only_chunk(waiting)
    assert rig.target.passes == [], "that pass was ended, too"
    assert completion_of(list(first)).finish_reason == "length"


def test_cancel_of_what_is_over_does_nothing() -> None:
    request = CompletionRequest("ab", max_tokens=5)
    rig = Rig(num_context=200, num_slots=2)
    over, other = rig.ask(request), rig.ask(request)
    completion = completion_of(list(over))
    cancel_in_pass(rig, over)
    assert said(completion_of(list(other))) == said(completion) == said(alone(request))
    over.cancel()
    assert said(rig.answer(request)) == said(completion)


@pytest.mark.parametrize("num_taken", [0, 1, 3, 99])
def test_closing_ends_the_answer_and_frees_the_chain(num_taken: int) -> None:
    rig = Rig(script=[A, B] * 50)
    answer = rig.ask(CompletionRequest("abc", max_tokens=20))
    for _ in range(num_taken):
        next(answer, None)
    answer.close()
    answer.close()
    assert all(sampler.closed for sampler in rig.samplers)
    assert list(answer) == []
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).text == "aba"


def test_an_answer_whose_constraint_takes_long_holds_up_nobody() -> None:
    """It is compiled by the thread that waits for it; a cancel meanwhile ends it after that."""
    rig = Rig(num_slots=2, num_context=200)
    make, compiling, go_on = rig.completer._make_sampler, threading.Event(), threading.Event()

    def make_sampler(params: SamplingParams) -> Sampler:
        if params.constraint:
            compiling.set()
            assert go_on.wait(PATIENCE_S)
        return make(params)

    rig.completer._make_sampler = make_sampler
    constrained = SamplingParams(constraint=Constraint("gbnf", "x"))
    slow, other = (
        rig.ask(CompletionRequest("ab", sampling, max_tokens=6))
        for sampling in (constrained, SamplingParams())
    )
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: list(slow)[-1].completion)
        assert compiling.wait(PATIENCE_S)
        assert said(list(other)[-1].completion) == said(alone(other.request))
        go_on.set()
        assert said(waiting.result(PATIENCE_S)) == said(alone(other.request))


def test_a_constraint_that_is_refused_is_compiled_once() -> None:
    rig, asked = Rig(), []

    def make_sampler(params: SamplingParams) -> Sampler:
        asked.append(params)
        raise GrammarError("no")

    rig.completer._make_sampler = make_sampler
    refused = rig.ask(CompletionRequest("a", SamplingParams(constraint=Constraint("lark", ""))))
    with pytest.raises(GrammarError):
        next(refused)
    assert list(refused) == []
    assert len(asked) == 1


class Ending(FakeSampler):
    """A chain that has no legal token at its draw number `fail_at`."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self._fail_at = fail_at

    def sample(self, target: Target, row: int) -> int:
        if len(self.rows) == self._fail_at:
            raise GrammarError("no token is legal here")
        return super().sample(target, row)


def outcome(answer: EngineAnswer) -> tuple[str, type[BaseException] | None]:
    """The text, and the error that ended it."""
    text = ""
    try:
        for chunk in answer:
            text += chunk.text
    except (EdgeSpecError, MemoryError) as error:
        assert list(answer) == [], "an error is raised once"
        return text, type(error)
    return text, None


@pytest.mark.parametrize("fail_at", range(7))
@pytest.mark.parametrize("drafted", [False, True])
def test_a_grammar_that_ends_fails_its_answer_alone(fail_at: int, drafted: bool) -> None:
    """What it said before is shown, drafted or not."""
    request = CompletionRequest("ab", max_tokens=20)
    notebook = Notebook()
    rig = Rig(
        drafter_of("oracle" if drafted else "none"),
        num_context=200,
        num_slots=2,
        observer=notebook,
    )
    make = rig.completer._make_sampler

    def make_sampler(params: SamplingParams) -> Sampler:
        return Ending(fail_at) if params.constraint else make(params)

    rig.completer._make_sampler = make_sampler
    constrained = SamplingParams(constraint=Constraint("gbnf", "x"))
    failing = rig.ask(CompletionRequest("ab", constrained, max_tokens=20))
    other = rig.ask(request)
    expected = alone(request)
    bytes_before = b"".join(map(BRIDGE.piece, expected.token_ids[:fail_at]))
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes_before)
    assert outcome(failing) == (text, GrammarError)
    assert outcome(other) == (expected.text, None)
    num_said = {notes.request.sampling.constraint: len(notes.tokens) for notes in notebook.notes}
    assert num_said == {constrained.constraint: fail_at, None: len(expected.token_ids)}
    assert [notes.closed[0] is None for notes in notebook.notes] == [False, True]


def test_one_whose_chain_cannot_be_built_fails_alone() -> None:
    notebook = Notebook()
    rig = Rig(num_context=200, num_slots=3, observer=notebook)
    request = CompletionRequest("ab", max_tokens=20)
    answers = [rig.ask(request), rig.ask(CompletionRequest("a", SamplingParams(-1.0)))]
    answers.append(rig.ask(request))
    assert [outcome(answer) for answer in answers] == [
        (alone(request).text, None),
        ("", UsageError),
        (alone(request).text, None),
    ]
    assert [len(notes.taken) > 0 for notes in notebook.notes] == [True, False, True]
    assert all(len(notes.closed) == 1 for notes in notebook.notes)


@pytest.mark.parametrize("error", [NativeLibraryError("llama_decode returned -3"), MemoryError()])
def test_whatever_fails_a_pass_fails_those_that_are_open_and_no_others(
    error: NativeLibraryError | MemoryError,
) -> None:
    rig = Rig(script=[A, B] * 50, num_context=100, num_slots=2)
    calls = iter(range(5))

    def fail(_tokens: Sequence[int]) -> None:
        if next(calls, None) is None:
            raise error

    rig.target.on_pass = fail
    request = CompletionRequest("abc", max_tokens=30)
    answers = [rig.ask(request) for _ in range(2)]
    outcomes = [outcome(answer) for answer in answers]
    rig.target.on_pass = lambda _tokens: None
    assert [kind for _, kind in outcomes] == [type(error)] * 2
    assert all(len(text) >= 3 and ("ab" * 15).startswith(text) for text, _ in outcomes)
    assert all(sampler.closed for sampler in rig.samplers)
    assert rig.answer(request).text == "ab" * 15


def test_an_interrupt_is_raised_to_whoever_computes() -> None:
    """In the middle of drawing: the completer goes on with the next answer."""

    class Interrupted(ScriptedSampler):
        def sample(self, target: Target, row: int) -> int:
            if len(self.rows) == 3:
                raise KeyboardInterrupt
            return super().sample(target, row)

    notebook = Notebook()
    rig = Rig(script=[A, B] * 50, num_slots=2, num_context=200, observer=notebook)
    make = rig.completer._make_sampler
    rig.completer._make_sampler = lambda _params: Interrupted([A, B] * 50)
    request = CompletionRequest("abc", max_tokens=30)
    answer, other = rig.ask(request), rig.ask(request)
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    answer.close()
    assert completion_of(list(other)).finish_reason == "cancelled"
    assert all(len(notes.closed) == 1 and notes.closed[0] for notes in notebook.notes)
    rig.completer._make_sampler = make
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).text == "aba"


def test_a_target_that_is_aborted_by_others_goes_on() -> None:
    rig = Rig(num_context=200)
    aborts = iter([True, False] * 100)

    def on_pass(_tokens: Sequence[int]) -> None:
        if next(aborts):
            raise Cancelled

    rig.target.on_pass = on_pass
    request = CompletionRequest("ab", max_tokens=20)
    assert said(rig.answer(request)) == said(alone(request))
