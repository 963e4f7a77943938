"""Text in, text out: chunks, stops, log-probabilities and counts of whole answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence

import numpy as np
import pytest
from fakes import (
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    ScriptedSampler,
    TinyBridge,
    certain,
    make_engine,
    oracle,
)
from hypothesis import given
from hypothesis import strategies as st

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.completer import AnswerListener, EngineCompleter
from edgespec.errors import ContextOverflowError, GrammarError, UsageError
from edgespec.protocols import Completer, Drafter, Sampler
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    Message,
    SamplingParams,
    ServedModel,
)

BRIDGE = TinyBridge()
A, B, C, SPACE, AB, LEAD, TRAIL = range(BRIDGE.num_first, BRIDGE.num_vocab)
END = BRIDGE.END
MODEL = ServedModel("fake", "a pseudo-model", 64, 0, "none", "identical")
ASK = CompletionRequest("abc")
CHAT = CompletionRequest((Message("system", "abc"), Message("user", "cab")))


class Rig:
    """A completer over fakes, and the parts it was made of."""

    def __init__(
        self,
        drafter: Drafter | None = None,
        *,
        script: Sequence[int] | None = None,
        num_context: int = 64,
        bridge: TinyBridge = BRIDGE,
        listeners: Sequence[AnswerListener] = (),
    ) -> None:
        self.target = FakeTarget(num_vocab=BRIDGE.num_vocab, num_context=num_context)
        self.samplers: list[FakeSampler | ScriptedSampler] = []
        self.script = script
        engine = make_engine(self.target, drafter or FakeDrafter())
        self.completer = EngineCompleter(
            engine, bridge, self._make_sampler, MODEL, listeners=listeners
        )

    def _make_sampler(self, params: SamplingParams) -> Sampler:
        if params.temperature < 0:
            raise UsageError(f"temperature is {params.temperature}", "give at least 0")
        sampler: FakeSampler | ScriptedSampler = (
            FakeSampler(params.temperature, params.seed)
            if self.script is None
            else ScriptedSampler(self.script)
        )
        self.samplers.append(sampler)
        return sampler

    def chunks(self, request: CompletionRequest = ASK) -> list[Chunk]:
        return list(self.completer.stream(request))

    def answer(self, request: CompletionRequest = ASK) -> Completion:
        return completion_of(self.chunks(request))


def completion_of(chunks: list[Chunk]) -> Completion:
    assert all(chunk.completion is None for chunk in chunks[:-1])
    completion = chunks[-1].completion
    assert completion is not None
    return completion


def scripted(*tokens: int, drafted: bool = False) -> Rig:
    """Says `tokens`; the drafter, if any, knows them."""
    drafter = FakeDrafter(lambda text: certain(tokens[len(text) - 2 :]))  # "abc" takes two tokens
    return Rig(drafter if drafted else None, script=tokens)


BOTH = pytest.mark.parametrize("drafted", [False, True], ids=["plain", "drafted"])


def test_it_is_a_completer() -> None:
    rig = Rig()
    completer: Completer = rig.completer
    assert completer.model is MODEL
    assert completer.count_tokens(CHAT.prompt) == len(BRIDGE.encode_chat(CHAT.prompt))  # type: ignore[arg-type]
    assert completer.decode_token(A) == b"a"
    assert completer.decode_token(END) == b"<end>"


@BOTH
def test_an_end_token_ends_the_answer_and_is_not_shown(drafted: bool) -> None:
    answer = scripted(A, B, SPACE, END, C, drafted=drafted).answer()
    assert answer.text == "ab "
    assert answer.token_ids == (A, B, SPACE, END)
    assert answer.finish_reason == "stop"


@BOTH
@pytest.mark.parametrize("stop", ["b c", "b ", "c"])
def test_a_stop_string_ends_the_answer_within_a_draft(drafted: bool, stop: str) -> None:
    rig = scripted(A, B, SPACE, C, A, A, A, drafted=drafted)
    request = CompletionRequest("abc", stop=("nothing", stop))
    answer = rig.answer(request)
    assert answer.text == "ab c"[: "ab c".index(stop)]
    assert answer.token_ids == (A, B, SPACE, C)[: "ab c".index(stop) + len(stop)]
    assert answer.finish_reason == "stop"
    shown = "".join(chunk.text for chunk in rig.chunks(request))
    assert shown == answer.text


@BOTH
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 6])
def test_max_tokens_ends_the_answer(drafted: bool, max_tokens: int) -> None:
    rig = scripted(*[A, B] * 20, drafted=drafted)
    answer = rig.answer(CompletionRequest("abc", max_tokens=max_tokens))
    assert answer.token_ids == ((A, B) * 3)[:max_tokens]
    assert answer.text == "ababab"[:max_tokens]
    assert answer.finish_reason == "length"


@BOTH
@pytest.mark.parametrize("max_tokens", [None, 1000])
def test_a_full_context_ends_the_answer(drafted: bool, max_tokens: int | None) -> None:
    rig = scripted(*[A] * 100, drafted=drafted)
    answer = rig.answer(CompletionRequest("abc", max_tokens=max_tokens))
    assert len(answer.token_ids) == 64 - 2
    assert answer.finish_reason == "length"


@BOTH
def test_a_character_of_two_tokens_comes_in_one_chunk(drafted: bool) -> None:
    chunks = scripted(A, LEAD, TRAIL, B, LEAD, END, drafted=drafted).chunks()
    assert completion_of(chunks).text == "aéb\ufffd"
    assert "".join(chunk.text for chunk in chunks) == "aéb\ufffd"


def test_what_may_become_a_stop_string_is_shown_at_the_end() -> None:
    answer = scripted(A, B, END).answer(CompletionRequest("abc", stop=("bc",)))
    assert answer.text == "ab"


def test_listeners_are_told_each_answer_before_it_ends() -> None:
    told: list[tuple[CompletionRequest, Sequence[int], Completion]] = []
    rig = Rig(script=[A, B, END], listeners=[lambda *answer: told.append(answer)])
    for chunk in rig.completer.stream(CHAT):
        assert bool(told) == (chunk.completion is not None)
    completion = rig.answer(ASK)
    assert [request for request, _, _ in told] == [CHAT, ASK]
    assert told[0][1] == BRIDGE.encode_chat(CHAT.prompt)  # type: ignore[arg-type]
    assert told[1][1:] == (BRIDGE.encode("abc"), completion)


def test_listeners_are_told_what_came_before_a_cancel() -> None:
    told: list[Completion] = []
    rig = Rig(script=[A] * 50, listeners=[lambda _request, _prompt, done: told.append(done)])
    stream = rig.completer.stream(ASK)
    next(stream)
    rig.completer.cancel()
    assert completion_of(list(stream)).finish_reason == "cancelled"
    assert [done.token_ids for done in told] == [(A,)]


@given(
    st.lists(st.sampled_from([A, B, C, SPACE, AB]), min_size=1, max_size=12),
    st.lists(st.text("abc ", min_size=1, max_size=3), max_size=2).map(tuple),
    st.sampled_from([0.0, 0.8]),
    st.sampled_from([None, 1, 5, 30]),
    st.sampled_from(["oracle", "context"]),
)
def test_speculation_changes_nothing_but_the_counts(
    prompt: list[int],
    stop: tuple[str, ...],
    temperature: float,
    max_tokens: int | None,
    kind: str,
) -> None:
    sampling = SamplingParams(temperature=temperature, seed=9)
    text = b"".join(map(BRIDGE.piece, prompt)).decode()
    requests = [
        CompletionRequest(text, sampling, max_tokens, stop, num_top_logprobs=2, speculate=speculate)
        for speculate in (True, False)
    ]
    rigs = [Rig(ContextDrafter()), Rig(ContextDrafter())]
    if kind == "oracle":
        rigs = [Rig(), Rig()]
        rigs[0] = Rig(FakeDrafter(oracle(rigs[1].target)))
    both = [rig.chunks(request) for rig, request in zip(rigs, requests, strict=True)]
    answer, plain = map(completion_of, both)
    assert (answer.text, answer.token_ids, answer.finish_reason) == (
        plain.text,
        plain.token_ids,
        plain.finish_reason,
    )
    logprobs, plain_logprobs = ([p for c in chunks for p in c.logprobs] for chunks in both)
    assert logprobs == plain_logprobs
    assert rigs[0].target.cells == rigs[1].target.cells
    assert not plain.stats.by_drafter
    check_counts(both[0])


def check_counts(chunks: list[Chunk]) -> None:
    answer = completion_of(chunks)
    stats = answer.stats
    assert stats.emitted == len(answer.token_ids) == answer.timings.num_decoded_tokens
    assert stats.proposed >= stats.accepted >= 0
    assert stats.emitted == stats.target_passes + stats.accepted
    assert stats.target_passes == len(chunks) - 1
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert chunks[-1].stats == stats
    emitted = [chunk.stats.emitted for chunk in chunks]
    assert emitted == sorted(emitted)


def test_an_answer_tells_its_counts_and_times() -> None:
    rig = scripted(*[A] * 100, drafted=True)
    rig.answer(CompletionRequest("abc", max_tokens=9))
    chunks = rig.chunks(CompletionRequest("abc", max_tokens=9))
    check_counts(chunks)
    answer = completion_of(chunks)
    assert answer.stats.by_drafter.keys() == {"fake"}
    assert answer.stats.acceptance_rate == 1.0
    assert answer.stats.block_efficiency == 3.0, "one token, then two passes of four rows"
    timings = answer.timings
    assert (timings.num_prompt_tokens, timings.num_cached_tokens) == (2, 1)
    assert 0 < timings.prompt_ms <= timings.time_to_first_token_ms
    assert timings.decode_ms > 0
    assert timings.decode_tokens_per_second > 0
    assert timings.plain_token_ms == pytest.approx(10.0, rel=0.5)
    assert timings.speedup is not None
    assert all(chunk.timings is not None for chunk in chunks)


@pytest.mark.parametrize("num_top", [0, 1, 3, 1000])
def test_log_probabilities_are_those_of_the_target(num_top: int) -> None:
    rig = scripted(A, B, C, END, drafted=True)
    chunks = rig.chunks(CompletionRequest("abc", num_top_logprobs=num_top))
    logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
    text = BRIDGE.encode("abc")
    assert [logprob.token for logprob in logprobs] == [A, B, C, END]
    for logprob in logprobs:
        target = FakeTarget(num_vocab=BRIDGE.num_vocab)
        target.prefill(text)
        logits = target.logits(0).astype(np.float64)
        expected = logits[logprob.token] - math.log(np.exp(logits).sum())
        assert logprob.logprob == pytest.approx(expected, abs=1e-5)
        assert len(logprob.top) == min(num_top, BRIDGE.num_vocab)
        if num_top:
            assert logprob.top[0][0] == logits.argmax()
        text.append(logprob.token)


def test_without_being_asked_for_there_are_no_log_probabilities() -> None:
    assert all(chunk.logprobs == () for chunk in scripted(A, END).chunks())


def test_cancel_ends_the_answer_with_what_there_is() -> None:
    rig = scripted(*[A, B] * 30, drafted=True)
    seen: list[Chunk] = []
    for chunk in rig.completer.stream(ASK):
        seen.append(chunk)
        if len(seen) == 3:
            rig.completer.cancel()
    answer = completion_of(seen)
    assert answer.finish_reason == "cancelled"
    assert answer.token_ids == ((A, B) * 5)[:9]
    assert answer.text == "ababababa"
    assert len(seen) == 4
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).token_ids == (A, B, A)


def test_cancel_during_the_prompt_gives_an_empty_answer() -> None:
    rig = scripted(*[A, B] * 30)
    rig.target.on_pass = lambda _tokens: rig.completer.cancel()
    chunks = rig.chunks()
    assert len(chunks) == 1
    answer = completion_of(chunks)
    assert (answer.finish_reason, answer.text, answer.token_ids) == ("cancelled", "", ())
    assert answer.stats.emitted == 0
    rig.target.on_pass = lambda _tokens: None
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).text == "aba"


def test_cancel_while_the_prompt_is_tokenized_counts() -> None:
    class SlowBridge(TinyBridge):
        cancel: Callable[[], None]

        def encode(self, text: str) -> list[int]:
            self.cancel()
            return super().encode(text)

    bridge = SlowBridge()
    rig = Rig(bridge=bridge)
    bridge.cancel = rig.completer.cancel
    assert rig.answer().finish_reason == "cancelled"


def test_cancel_without_an_answer_does_nothing() -> None:
    rig = Rig()
    rig.completer.cancel()
    first = rig.answer()
    rig.completer.cancel()
    second = rig.answer()
    assert first.finish_reason != "cancelled"
    assert second.token_ids == first.token_ids


def test_closing_the_iterator_ends_the_answer_and_frees_the_chain() -> None:
    rig = scripted(*[A, B] * 30, drafted=True)
    stream = rig.completer.stream(ASK)
    assert [next(stream).text for _ in range(2)] == ["a", "baba"]
    assert isinstance(stream, Generator)
    stream.close()
    assert [sampler.closed for sampler in rig.samplers] == [True]
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).text == "aba"


def test_a_second_turn_reuses_the_first() -> None:
    rig = Rig(num_context=200)
    assert isinstance(CHAT.prompt, tuple)
    first = rig.answer(CompletionRequest(CHAT.prompt, max_tokens=5))
    following = CompletionRequest((*CHAT.prompt, Message("assistant", "a"), Message("user", "b")))
    answer = rig.answer(following)
    assert first.timings.num_cached_tokens == 0
    assert answer.timings.num_cached_tokens >= len(BRIDGE.encode_chat(CHAT.prompt))
    rig.completer.forget()
    again = rig.answer(following)
    assert again.timings.num_cached_tokens == 0
    assert again.token_ids == answer.token_ids
    unused = rig.answer(CompletionRequest(following.prompt, reuse_prefix=False))
    assert unused.timings.num_cached_tokens == 0


def test_dropped_turns_are_counted() -> None:
    old = (Message("user", "c" * 30), Message("assistant", "c" * 30))
    messages = (Message("system", "a"), *old, Message("user", "b"))
    rig = Rig()
    with pytest.raises(ContextOverflowError):
        rig.chunks(CompletionRequest(messages))
    answer = rig.answer(CompletionRequest(messages, overflow="drop-oldest"))
    assert answer.num_dropped_messages == 2
    assert answer.timings.num_prompt_tokens == len(BRIDGE.encode_chat((messages[0], messages[3])))


@pytest.mark.parametrize(
    "request_",
    [
        CompletionRequest("c" * 64),
        CompletionRequest(""),
        CompletionRequest("a", max_tokens=0),
        CompletionRequest("a", SamplingParams(temperature=-1.0)),
    ],
    ids=["overflow", "empty", "max_tokens", "sampling"],
)
def test_nonsense_is_refused_before_anything_is_computed(request_: CompletionRequest) -> None:
    rig = Rig()
    before = rig.answer()
    cells = list(rig.target.cells)
    with pytest.raises((ContextOverflowError, UsageError)):
        next(rig.completer.stream(request_))
    assert rig.target.cells == cells
    assert all(sampler.closed for sampler in rig.samplers)
    assert rig.answer().token_ids == before.token_ids


def test_an_error_within_the_answer_frees_the_chain() -> None:
    rig = scripted(*[A, B] * 30)
    calls = iter(range(3))

    def fail(_tokens: Sequence[int]) -> None:
        if next(calls, None) is None:
            raise GrammarError("no token is legal here")

    rig.target.on_pass = fail
    with pytest.raises(GrammarError):
        rig.chunks()
    assert [sampler.closed for sampler in rig.samplers] == [True]
    rig.target.on_pass = lambda _tokens: None
    assert rig.answer(CompletionRequest("abc", max_tokens=3)).text == "aba"
