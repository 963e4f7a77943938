"""The host over a real pipe to a child that is a thread: what is asked, what comes, what dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from answer_support import GeneratedAnswer
from host_support import OPTIONS, Childhood
from hypothesis import given, settings
from hypothesis import strategies as st
from server_support import EchoCompleter, wait_until

from edgespec.errors import (
    BusyError,
    ContextOverflowError,
    EdgeSpecError,
    GrammarError,
    HostDied,
    LoadCancelled,
    ModelFileError,
    NativeLibraryError,
)
from edgespec.runtime.host import REST_S, Host, HostAnswer
from edgespec.runtime.host_messages import Load
from edgespec.runtime.prompt_files import file_name
from edgespec.types import Chunk, CompletionRequest, Constraint, Message, SamplingParams

MODEL = Path("model.gguf")
OTHER = Path("other.gguf")
LONG = CompletionRequest("x" * 2000)
Lines = list[str]


@pytest.fixture
def children(tmp_path: Path) -> Childhood:
    return Childhood(tmp_path)


@pytest.fixture
def host(children: Childhood) -> Iterator[Host]:
    with children.host() as it:
        yield it
    for name in ("host", "host keeper", "host stderr", "child"):
        wait_until(lambda name=name: name not in [each.name for each in threading.enumerate()])  # type: ignore[misc]


def load(host: Host, path: Path = MODEL, report: Callable[[str], None] = lambda _: None) -> None:
    host.load(OPTIONS, path, report)


def text_of(answer: HostAnswer) -> str:
    return "".join(chunk.text for chunk in answer)


def running(children: Childhood, host: Host, request: CompletionRequest = LONG) -> HostAnswer:
    """An answer that is under way and takes long."""
    children.completer.token_s = 0.01
    answer = host.answer(request)
    next(answer)
    return answer


def test_what_is_asked_is_answered_by_the_child(children: Childhood, host: Host) -> None:
    lines: Lines = []
    sampling = SamplingParams(temperature=0.5)
    served = host.load(OPTIONS, MODEL, lines.append, sampling)
    assert served == host.model == children.completer.model
    assert lines == ["loading model.gguf"]
    assert children.loads == [Load(OPTIONS, MODEL, children.paths, sampling)]
    request = CompletionRequest((Message("user", "Grüße"),), num_top_logprobs=2)
    here = list(EchoCompleter().answer(request))
    there = list(host.answer(request))
    assert [(c.text, c.logprobs, c.stats) for c in there] == [
        (c.text, c.logprobs, c.stats) for c in here
    ]
    assert there[-1].completion is not None
    assert there[-1].completion.text == "Grüße"
    assert children.asked == [request]
    assert host.count_tokens([Message("user", "abc")]) == 5
    assert host.count_tokens("abc") == 3
    assert host.insight() == children.completer.insight()
    assert [host.decode_token(token) for token in (97, 256, 97)] == [b"a", b"<end>", b"a"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ContextOverflowError("too long", "shorten it"), ContextOverflowError),
        (NativeLibraryError("broken"), NativeLibraryError),
        (ZeroDivisionError("oops\nno"), EdgeSpecError),
        (MemoryError(), EdgeSpecError),
    ],
)
def test_what_goes_wrong_in_the_child_is_raised_here(
    children: Childhood, host: Host, raised: Exception, told: type[EdgeSpecError]
) -> None:
    load(host)
    children.completer.fail_after = raised
    answer = host.answer(CompletionRequest("abc"))
    assert next(answer).text == "a"
    with pytest.raises(told) as caught:
        next(answer)
    assert type(caught.value) is told
    if isinstance(raised, EdgeSpecError):
        assert (caught.value.problem, caught.value.remedy) == (raised.problem, raised.remedy)
        assert str(caught.value) == str(raised)
    assert caught.value.remedy or isinstance(raised, NativeLibraryError)
    assert "\n" not in str(caught.value)
    assert list(answer) == []
    children.completer.fail_after = None
    assert text_of(host.answer(CompletionRequest("fine"))) == "fine"


def test_a_grammar_that_is_refused_says_so_before_any_text(host: Host) -> None:
    load(host)
    leaf = SamplingParams(constraint=Constraint("gbnf", "leaf"))
    with pytest.raises(GrammarError, match="root"):
        next(host.answer(CompletionRequest("a", leaf)))


def test_a_cancel_ends_an_answer_at_any_time(children: Childhood, host: Host) -> None:
    load(host)
    children.completer.prefill_s = 60.0
    children.completer.token_s = 60.0
    for delay_s in (0.0, 0.001, 0.05):
        answer = host.answer(LONG)
        time.sleep(delay_s)
        answer.cancel()
        *_, last = answer
        assert last.completion is not None
        assert last.completion.finish_reason == "cancelled"
        answer.cancel()  # it is over
    children.completer.prefill_s = children.completer.token_s = 0.0
    assert text_of(host.answer(CompletionRequest("next"))) == "next"


def test_a_thread_that_there_is_no_room_for_costs_one_answer(
    children: Childhood, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(host)

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(BusyError, match="no room"):
            text_of(host.answer(CompletionRequest("a")))
    assert text_of(host.answer(CompletionRequest("b"))) == "b"
    assert len(children.processes) == 1


def test_a_cancel_before_the_model_is_there(children: Childhood, host: Host) -> None:
    loading = threading.Event()

    def wait(_load: Load) -> None:
        loading.wait(10)

    children.before_loading = wait
    thread = threading.Thread(target=load, args=(host,))
    thread.start()
    wait_until(lambda: bool(children.loads))
    answer = host.answer(LONG)
    answer.cancel()
    loading.set()
    *_, last = answer
    assert last.completion is not None and last.completion.finish_reason == "cancelled"
    thread.join()


def test_closing_an_answer_waits_for_its_end(children: Childhood, host: Host) -> None:
    load(host)
    answer = running(children, host)
    answer.close()
    assert list(answer) == []
    assert children.completer.stopped == {1}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.booleans()), min_size=1, max_size=6))
def test_answers_that_are_open_together_do_not_mix(questions: list[tuple[str, bool]]) -> None:
    children = Childhood(Path("nowhere"))
    children.completer = Unordered()
    with children.host() as host:
        load(host)
        answers = [host.answer(CompletionRequest(text)) for text, _ in questions]
        for answer, (_, is_cancelled) in zip(answers, questions, strict=True):
            if is_cancelled:
                answer.cancel()
        for answer, (text, is_cancelled) in reversed(list(zip(answers, questions, strict=True))):
            said = text_of(answer)
            assert text.startswith(said) if is_cancelled else said == text


class Unordered(EchoCompleter):
    """Any number of answers at a time."""

    def answer(self, request: CompletionRequest) -> GeneratedAnswer:
        return EchoCompleter().answer(request)


# -- signals ----------------------------------------------------------------------------------


def test_a_signal_interrupts_the_wait_and_the_rest_still_comes(
    children: Childhood, host: Host
) -> None:
    load(host)
    children.completer.prefill_s = 60.0
    answer = host.answer(LONG)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(answer)
    assert time.monotonic() - started < 5
    answer.cancel()
    *_, last = answer
    assert last.completion is not None and last.completion.finish_reason == "cancelled"
    timer.join()


# -- death ------------------------------------------------------------------------------------


def test_a_death_ends_the_open_answers_and_the_next_one_begins_anew(
    children: Childhood, host: Host
) -> None:
    load(host)
    first, second = running(children, host), host.answer(LONG)
    children.processes[0].die(-signal.SIGSEGV)
    for answer in (first, second):
        with pytest.raises(HostDied, match="wrong memory address; ask again") as caught:
            text_of(answer)
        assert caught.value.exit_code == 6
        assert list(answer) == []
        answer.cancel()
    children.completer = EchoCompleter()
    assert text_of(host.answer(CompletionRequest("again"))) == "again"
    assert [loaded.path for loaded in children.loads] == [MODEL, MODEL]
    assert host.model == children.completer.model
    assert len(children.processes) == 2


def test_what_is_counted_after_a_death_is_counted_anew(children: Childhood, host: Host) -> None:
    load(host)
    children.processes[0].die(1)
    wait_until(lambda: "host" not in [each.name for each in threading.enumerate()])
    assert host.count_tokens([]) == 0
    assert host.decode_token(98) == b"b"


def test_who_dies_loading_is_tried_twice_and_then_rests(children: Childhood, host: Host) -> None:
    load(host)
    children.processes[0].die(-signal.SIGABRT)
    children.before_loading = lambda _load: children.processes[-1].die(-signal.SIGBUS)
    children.completer = EchoCompleter()
    for _ in range(5):  # the first may meet the death before it is known
        with pytest.raises(HostDied):
            text_of(host.answer(LONG))
    with pytest.raises(HostDied, match="memory that is not there"):
        text_of(host.answer(LONG))
    assert len(children.processes) == 3, "the first, and two tries"
    children.now += REST_S
    for _ in range(2):
        with pytest.raises(HostDied):
            text_of(host.answer(LONG))
    assert len(children.processes) == 4
    children.before_loading = lambda _load: None
    load(host)
    assert text_of(host.answer(CompletionRequest("back"))) == "back"


def test_whom_others_kill_while_it_loads_is_tried_again_and_again(
    children: Childhood, host: Host
) -> None:
    load(host)
    children.before_loading = lambda _load: children.processes[-1].kill()
    children.processes[0].die(-signal.SIGKILL)
    for _ in range(5):
        with pytest.raises(HostDied):
            text_of(host.answer(LONG))
    children.before_loading = lambda _load: None
    children.completer = EchoCompleter()
    assert text_of(host.answer(CompletionRequest("back"))) == "back"


def test_a_process_that_cannot_be_started_is_an_error(children: Childhood, host: Host) -> None:
    children.num_refused = 1
    with pytest.raises(HostDied, match="could not be started: Cannot allocate memory"):
        load(host)
    load(host)
    assert text_of(host.answer(CompletionRequest("a"))) == "a"


def test_once_closed_it_answers_nothing(children: Childhood, host: Host) -> None:
    load(host)
    host.close()
    assert children.closed == [MODEL]
    with pytest.raises(HostDied):
        next(host.answer(LONG))
    assert len(children.processes) == 1


def test_closing_cancels_and_lets_go_of_the_model(children: Childhood, host: Host) -> None:
    load(host)
    answer = running(children, host)
    host.close()
    *_, last = answer
    assert last.completion is not None and last.completion.finish_reason == "cancelled"
    assert children.closed == [MODEL]


# -- switching --------------------------------------------------------------------------------


def test_a_model_that_is_let_go_comes_back_with_the_next_question(
    children: Childhood, host: Host
) -> None:
    load(host)
    answer = running(children, host)
    assert not host.let_go(), "it answers"
    answer.close()
    assert host.let_go() and host.let_go()
    assert children.closed == [MODEL]
    assert text_of(host.answer(CompletionRequest("again"))) == "again"
    assert [each.path for each in children.loads] == [MODEL, MODEL]
    load(host)
    assert host.let_go()
    load(host)
    assert len(children.processes) == 3


def test_another_model_takes_the_place_of_the_first(children: Childhood, host: Host) -> None:
    load(host)
    closed_before: list[list[Path]] = []
    children.before_loading = lambda _load: closed_before.append([*children.closed])
    load(host, OTHER)
    assert closed_before == [[MODEL]], "its memory is free before the other one comes"
    assert text_of(host.answer(CompletionRequest("a"))) == "a"
    children.processes[0].die(-signal.SIGKILL)
    children.completer = EchoCompleter()
    while True:  # the death is soon known
        try:
            assert text_of(host.answer(CompletionRequest("b"))) == "b"
            break
        except HostDied:
            continue
    assert [each.path for each in children.loads] == [MODEL, OTHER, OTHER]


def loading(host: Host, path: Path) -> tuple[threading.Thread, list[EdgeSpecError]]:
    """A thread that loads a model, and the error that it meets."""
    errors: list[EdgeSpecError] = []

    def run() -> None:
        try:
            load(host, path)
        except EdgeSpecError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: host._loading is not None)
    return thread, errors


def test_another_model_waits_for_the_answers_and_the_next_ones_for_it(
    children: Childhood, host: Host
) -> None:
    load(host)
    children.completer.token_s = 0.001
    first = host.answer(CompletionRequest("x" * 200))
    next(first)
    thread, errors = loading(host, OTHER)
    second = host.answer(CompletionRequest("second"))
    assert len(text_of(first)) == 199
    assert text_of(second) == "second"
    thread.join()
    assert not errors
    assert [each.path for each in children.loads] == [MODEL, OTHER]


def test_a_load_that_waits_for_answers_is_taken_back(children: Childhood, host: Host) -> None:
    load(host)
    answer = running(children, host)
    thread, errors = loading(host, OTHER)
    host.cancel_load()
    answer.cancel()
    list(answer)
    thread.join()
    assert [type(error) for error in errors] == [LoadCancelled]
    children.completer.token_s = 0.0
    assert text_of(host.answer(CompletionRequest("a"))) == "a"
    assert [each.path for each in children.loads] == [MODEL]
    assert children.closed == []
    host.cancel_load()  # nothing is under way
    load(host, OTHER)


def test_a_load_under_way_is_ended_and_the_model_before_comes_back(
    children: Childhood, host: Host
) -> None:
    load(host)
    served, ended = host.model, threading.Event()

    def wait(asked: Load) -> None:
        if asked.path == OTHER:
            ended.wait(10)

    children.before_loading = wait
    thread, errors = loading(host, OTHER)
    wait_until(lambda: children.loads[-1].path == OTHER)
    host.cancel_load()
    thread.join()
    ended.set()
    assert [type(error) for error in errors] == [LoadCancelled]
    assert host.model is served
    wait_until(lambda: [each.path for each in children.loads] == [MODEL, OTHER, MODEL])
    assert text_of(host.answer(CompletionRequest("a"))) == "a"
    assert len(children.processes) == 2


def test_a_first_load_may_be_cancelled_as_well(children: Childhood, host: Host) -> None:
    ended = threading.Event()

    def wait(_load: Load) -> None:
        ended.wait(10)

    children.before_loading = wait
    thread, errors = loading(host, MODEL)
    wait_until(lambda: bool(children.loads))
    host.cancel_load()
    thread.join()
    ended.set()
    assert [type(error) for error in errors] == [LoadCancelled]
    load(host)
    assert text_of(host.answer(CompletionRequest("a"))) == "a"


def test_a_deleted_conversation_is_forgotten_on_disk_and_by_the_child(
    children: Childhood, host: Host
) -> None:
    folder = children.paths.ensure(children.paths.prompts)
    kept = [folder / file_name(name, "key") for name in ("a", "b")]
    for path in kept:
        path.write_bytes(b"")
    host.forget("a")
    assert [path.exists() for path in kept] == [False, True]
    load(host)
    host.forget("b")
    wait_until(lambda: children.forgotten == ["b"])
    assert not kept[1].exists()


def test_where_the_other_cannot_be_loaded_the_first_serves_on(
    children: Childhood, host: Host
) -> None:
    load(host)
    served = host.model

    def refuse(asked: Load) -> None:
        if asked.path == OTHER:
            raise ModelFileError("truncated", "pull it again")

    children.before_loading = refuse
    with pytest.raises(ModelFileError, match="truncated; pull it again"):
        load(host, OTHER)
    assert host.model is served
    assert text_of(host.answer(CompletionRequest("a"))) == "a"
    assert [each.path for each in children.loads] == [MODEL, OTHER, MODEL]


def test_where_the_other_kills_the_process_the_first_comes_back(
    children: Childhood, host: Host
) -> None:
    load(host)

    def crash(asked: Load) -> None:
        if asked.path == OTHER:
            children.processes[-1].die(-signal.SIGSEGV)

    children.before_loading = crash
    with pytest.raises(HostDied):
        load(host, OTHER)
    assert text_of(host.answer(CompletionRequest("a"))) == "a"
    assert children.loads[-1].path == MODEL


def test_without_a_model_an_answer_tells_why(children: Childhood, host: Host) -> None:
    def refuse(_asked: Load) -> None:
        raise ModelFileError("truncated", "pull it again")

    children.before_loading = refuse
    with pytest.raises(ModelFileError):
        load(host)
    with pytest.raises(ModelFileError, match="truncated"):
        next(host.answer(LONG))


def test_lines_reach_whoever_loaded_last(children: Childhood, host: Host) -> None:
    first: Lines = []
    second: Lines = []
    load(host, MODEL, first.append)
    load(host, OTHER, second.append)
    assert (first, second) == (["loading model.gguf"], ["loading other.gguf"])


def test_a_chunk_comes_whole(children: Childhood, host: Host) -> None:
    """Larger than the pipe holds at once."""
    load(host)
    text = "é" * 300_000

    class Large(EchoCompleter):
        def answer(self, request: CompletionRequest) -> GeneratedAnswer:
            return GeneratedAnswer(lambda _cancelled: self._all(request))

        def _all(self, request: CompletionRequest) -> Iterator[Chunk]:
            assert request.prompt == text
            yield Chunk(text)
            yield from EchoCompleter().answer(CompletionRequest(""))

    children.completer = Large()
    load(host)
    assert text_of(host.answer(CompletionRequest(text))) == text
