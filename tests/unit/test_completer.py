"""Text in, text out: chunks, stops, sources, log-probabilities and counts of whole answers."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from completers import (
    AB,
    ASK,
    BRIDGE,
    END,
    LEAD,
    MODEL,
    SPACE,
    TRAIL,
    A,
    B,
    C,
    Notebook,
    Notes,
    Rig,
    completion_of,
)
from fakes import FakeDrafter, FakeTarget, certain, oracle
from hypothesis import given
from hypothesis import strategies as st

from edgespec.drafters.context import ContextDrafter
from edgespec.errors import ContextOverflowError, UsageError
from edgespec.passes import Part, Proposal
from edgespec.types import (
    TARGET,
    Chunk,
    CompletionRequest,
    Message,
    PrefillProgress,
    SamplingParams,
    Span,
)

CHAT = CompletionRequest((Message("system", "abc"), Message("user", "cab")))


def scripted(*tokens: int, drafted: bool = False) -> Rig:
    """Says `tokens`; the drafter, if any, knows them."""
    drafter = FakeDrafter(lambda text: certain(tokens[len(text) - 2 :]))  # "abc" takes two tokens
    return Rig(drafter if drafted else None, script=tokens)


BOTH = pytest.mark.parametrize("drafted", [False, True], ids=["plain", "drafted"])


def test_it_is_a_completer() -> None:
    rig = Rig()
    completer = rig.completer
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
    assert answer.is_context_full
    assert not rig.answer(CompletionRequest("abc", max_tokens=5)).is_context_full


@BOTH
def test_a_character_of_two_tokens_comes_in_one_chunk(drafted: bool) -> None:
    chunks = scripted(A, LEAD, TRAIL, B, LEAD, END, drafted=drafted).chunks()
    assert completion_of(chunks).text == "aéb\ufffd"
    assert "".join(chunk.text for chunk in chunks) == "aéb\ufffd"


def test_what_may_become_a_stop_string_is_shown_at_the_end() -> None:
    answer = scripted(A, B, END).answer(CompletionRequest("abc", stop=("bc",)))
    assert answer.text == "ab"


def assert_open(notes: Notes) -> None:
    assert not notes.closed


def test_observers_are_told_an_answer_from_before_its_first_pass_to_its_end() -> None:
    notebook = Notebook()
    rig = Rig(script=[A, B, END], observer=notebook)
    answer = rig.ask(CHAT)
    assert notebook.notes == []
    rig.target.on_pass = lambda _tokens: assert_open(notebook.notes[-1])
    for chunk in answer:
        [notes] = notebook.notes
        assert notes.closed or chunk.completion is None
    completion = rig.answer(ASK)
    first, second = notebook.notes
    assert (first.request, second.request) == (CHAT, ASK)
    assert list(first.prompt.tokens) == BRIDGE.encode_chat(CHAT.prompt)  # type: ignore[arg-type]
    assert second.prompt.prompt == "abc"
    assert second.tokens == completion.token_ids
    assert second.closed == [completion]


@BOTH
def test_observers_see_passes_cut_where_a_stop_string_was_complete(drafted: bool) -> None:
    rig = scripted(A, B, SPACE, C, A, A, A, drafted=drafted)
    notebook = Notebook()
    rig.completer._observer = notebook
    answer = rig.answer(CompletionRequest("abc", stop=("b ",)))
    [notes] = notebook.notes
    assert notes.tokens == answer.token_ids == (A, B, SPACE)
    assert [(kept.ends, kept.is_over) for kept in notes.taken][-1] == (True, True)
    assert all(len(kept.sources) == len(kept.rows) == len(kept.tokens) for kept in notes.taken)


def sources_of(notes: Notes) -> list[tuple[str, str]]:
    """Each character that the tokens of an answer make, and whose token completed it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for kept in notes.taken:
        for token, source in zip(kept.tokens, kept.sources, strict=True):
            found += [(letter, source) for letter in decoder.decode(BRIDGE.piece(token))]
    return found + [(letter, TARGET) for letter in decoder.decode(b"", final=True)]


def sources_shown(chunks: Sequence[Chunk]) -> list[tuple[str, str]]:
    """The same as chunks tell it."""
    found: list[tuple[str, str]] = []
    for chunk in chunks:
        letters = iter(chunk.text)
        for span in chunk.spans:
            assert span.length > 0
            found += [(next(letters), span.source) for _ in range(span.length)]
        assert not list(letters), "the spans add up to the text"
        neighbours = zip(chunk.spans, chunk.spans[1:], strict=False)
        assert all(one.source != other.source for one, other in neighbours)
    return found


@given(
    st.lists(st.sampled_from([A, B, SPACE, AB, LEAD, TRAIL]), min_size=2, max_size=30),
    st.sets(st.integers(0, 29)),
    st.lists(st.text("ab é", min_size=1, max_size=3), max_size=2).map(tuple),
)
def test_spans_name_the_sources_of_every_character(
    script: list[int], wrong: set[int], stop: tuple[str, ...]
) -> None:
    """Wherever drafts go wrong, also between the bytes of a character or within a stop string."""

    def guess(text: Sequence[int]) -> Iterator[Proposal]:
        for place in range(len(text) - 2, len(script)):
            yield Proposal(C if place in wrong else script[place], 1.0)

    notebook = Notebook()
    rig = Rig(FakeDrafter(guess, name="known"), script=script, observer=notebook)
    chunks = rig.chunks(CompletionRequest("abc", max_tokens=len(script), stop=stop))
    shown = sources_shown(chunks)
    assert shown == sources_of(notebook.notes[0])[: len(shown)]
    assert "".join(letter for letter, _ in shown) == completion_of(chunks).text


def test_a_character_is_of_the_source_that_completes_it() -> None:
    script = [A, B, LEAD, TRAIL, B, END]
    known = {2: LEAD, 4: B}
    drafter = FakeDrafter(
        lambda text: [Proposal(known[len(text) - 2], 1.0)] if len(text) - 2 in known else []
    )
    drafter.name = "known"
    chunks = Rig(drafter, script=script).chunks()
    assert [chunk.spans for chunk in chunks if chunk.text] == [
        (Span(1, TARGET),),
        (Span(1, TARGET),),
        (Span(1, TARGET),),
        (Span(1, "known"),),
    ]
    assert completion_of(chunks).text == "abéb"


def test_reading_a_long_prompt_tells_how_far_it_is() -> None:
    rig = Rig(num_context=200)
    request = CompletionRequest("c" * 30, max_tokens=2)
    chunks = rig.chunks(request)
    told = [chunk.progress for chunk in chunks if chunk.progress is not None]
    assert told == [PrefillProgress(count, 30, 0) for count in (0, 8, 16, 24)]
    assert all(not chunk.text and chunk.timings is not None for chunk in chunks[:4])
    assert [chunk.progress for chunk in chunks[4:]] == [None] * 3
    assert told[0].left_ms is None, "nobody knows before the first pass"
    assert told[1].token_ms > 0
    assert told[1].left_ms == pytest.approx((30 - 8) * told[1].token_ms)
    assert rig.completer.insight().read_token_ms is not None
    longer = rig.chunks(CompletionRequest("c" * 50, max_tokens=2))
    assert [chunk.progress for chunk in longer][:4] == [
        PrefillProgress(30, 50, 30),
        PrefillProgress(38, 50, 30),
        PrefillProgress(46, 50, 30),
        None,
    ]


@pytest.mark.parametrize("said", ["", "a", "b ca"])
def test_an_assistants_message_can_be_continued(said: str) -> None:
    """It goes on as an answer does that has said so much."""
    assert isinstance(CHAT.prompt, tuple)
    begun = (*CHAT.prompt, Message("assistant", said))
    rig = Rig(num_context=200)
    answer = rig.answer(CompletionRequest(begun, max_tokens=9, continue_final_message=True))
    asked = [*BRIDGE.encode_chat(CHAT.prompt), *BRIDGE.encode(said)]
    assert answer.timings.num_prompt_tokens == len(asked)
    expected: list[int] = []
    while len(expected) < 9 and END not in expected:
        expected.append(rig.target.next_token([*asked, *expected]))
    assert list(answer.token_ids) == expected
    ended = rig.answer(CompletionRequest(begun, max_tokens=9))
    assert ended.timings.num_prompt_tokens == len(asked) + 2, "its turn is over otherwise"


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
    # A stop string may be complete with a draft's token, whose pass then gives none of its own.
    assert stats.emitted - stats.target_passes - stats.accepted in (0, -1)
    assert stats.target_passes == sum(chunk.progress is None for chunk in chunks) - 1
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert chunks[-1].stats == stats
    emitted = [chunk.stats.emitted for chunk in chunks]
    assert emitted == sorted(emitted)


def test_an_answer_tells_its_counts_and_times() -> None:
    rig = scripted(*[A] * 100, drafted=True)
    rig.answer(CompletionRequest("abc", max_tokens=17))
    chunks = rig.chunks(CompletionRequest("abc", max_tokens=17))
    check_counts(chunks)
    answer = completion_of(chunks)
    assert answer.stats.by_drafter.keys() == {"fake"}
    assert answer.stats.acceptance_rate == 1.0
    assert answer.stats.block_efficiency == 17 / 5, "one token, then four passes of four rows"
    timings = answer.timings
    assert (timings.num_prompt_tokens, timings.num_cached_tokens) == (2, 1)
    assert 0 < timings.prompt_ms <= timings.time_to_first_token_ms
    assert timings.decode_ms > 0
    assert timings.decode_tokens_per_second > 0
    assert timings.plain_token_ms is not None and timings.plain_token_ms > 0
    assert timings.speedup is not None
    assert all(chunk.timings is not None for chunk in chunks)


@pytest.mark.parametrize("num_top", [0, 1, 3, 1000])
def test_log_probabilities_are_those_of_the_target(num_top: int) -> None:
    rig = scripted(A, B, C, END, drafted=True)
    chunks = rig.chunks(CompletionRequest("abc", num_top_logprobs=num_top))
    logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
    text = BRIDGE.encode("abc")
    assert [logprob.token for logprob in logprobs] == [A, B, C], "the end has no text"
    for logprob in logprobs:
        target = FakeTarget(num_vocab=BRIDGE.num_vocab)
        target.score([Part(0, tuple(text))])
        logits = target.logits(0).astype(np.float64)
        expected = logits[logprob.token] - math.log(np.exp(logits).sum())
        assert logprob.logprob == pytest.approx(expected, abs=1e-5)
        assert len(logprob.top) == min(num_top, BRIDGE.num_vocab)
        if num_top:
            assert logprob.top[0][0] == logits.argmax()
        text.append(logprob.token)


def test_without_being_asked_for_there_are_no_log_probabilities() -> None:
    assert all(chunk.logprobs == () for chunk in scripted(A, END).chunks())


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
        next(rig.ask(request_))
    assert rig.target.cells == cells
    assert all(sampler.closed for sampler in rig.samplers)
    assert rig.answer().token_ids == before.token_ids


def test_log_probabilities_go_with_the_text_that_is_told() -> None:
    """None of a stop string, nor of the end; of what is held back they come with its text."""
    rig = scripted(A, B, A, B, C, A, END)
    chunks = rig.chunks(CompletionRequest("abc", num_top_logprobs=0, stop=("bca",)))
    logprobs = [logprob.token for chunk in chunks for logprob in chunk.logprobs]
    assert "".join(chunk.text for chunk in chunks) == "aba"
    assert logprobs == [A, B, A]
    text, num_logprobs = "", 0
    for chunk in chunks:
        text += chunk.text
        num_logprobs += len(chunk.logprobs)
        assert len(text) == num_logprobs
    assert completion_of(chunks).stop_string == "bca"


def test_what_prompts_are_as_text_and_tokens() -> None:
    completer = scripted(END).completer
    chat = CompletionRequest((Message("user", "ab"),))
    assert completer.encode(chat) == tuple(BRIDGE.encode_chat([Message("user", "ab")]))
    assert completer.render(chat) == "<usr>ab<end><ast>"
    assert completer.render(CompletionRequest("ab")) == "ab"
    assert completer.tokenize("ab") == tuple(BRIDGE.encode("ab"))


def test_a_prompt_may_be_tokens() -> None:
    rig = scripted(A, END)
    assert completion_of(rig.chunks(CompletionRequest("", prompt_tokens=(A, B)))).text == "a"
    with pytest.raises(UsageError, match="the prompt has a token 999"):
        rig.chunks(CompletionRequest("", prompt_tokens=(A, 999)))


def test_vectors_are_read_in_turns_with_answers() -> None:
    turns: list[str] = []

    def read(tokens: Sequence[int]) -> Iterator[tuple[float, ...] | None]:
        for _ in tokens:
            turns.append("read")
            yield None
            turns.append("come back")
        yield (1.0, 0.0)

    rig = Rig(read_vector=read, script=(A, B, END))
    answer = rig.ask()
    first = next(answer)
    with ThreadPoolExecutor(1) as pool:
        vector = pool.submit(rig.completer.embed, (A, B)).result(10)
    assert vector == (1.0, 0.0)
    assert turns == ["read", "come back"] * 2
    assert completion_of([first, *answer]).text == "ab"
    for tokens in ((), (A,) * 99):
        with pytest.raises(UsageError, match="send 1 to 9"):
            rig.completer.embed(tokens)
    with pytest.raises(UsageError):
        Rig().completer.embed((A,))
