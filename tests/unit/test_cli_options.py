"""Options, signals and small parts of the command line, without a model."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from edgespec import signals
from edgespec.cli.group import Ended, cli
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    memory_options,
    sampling_options,
)
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.runtime.request import MOST_CONTEXT, LoadRequest
from edgespec.types import SamplingParams


def parse(*arguments: str, temperature: float = 0.0) -> tuple[LoadRequest, SamplingParams]:
    """What a command with the shared options makes of `arguments`."""
    taken: list[tuple[LoadRequest, SamplingParams]] = []

    @click.command()
    @load_options
    @memory_options
    @sampling_options(default_temperature=temperature)
    def command(**values: object) -> None:
        loading = collect_loading(values, verbose=True)
        sampling = collect_sampling(values, seed=11)
        assert values == {}, "every option belongs to one of the two"
        taken.append((loading, sampling))

    result = CliRunner().invoke(command, arguments)
    if result.exception is not None:
        raise result.exception
    return taken[0]


def test_defaults() -> None:
    loading, sampling = parse(temperature=0.7)
    assert loading == LoadRequest(model=DEFAULT_TARGET, drafter="auto", verbose=True)
    assert loading.num_context is None
    assert loading.num_threads is None
    assert loading.remember and loading.learn
    expected = SamplingParams(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05, seed=11)
    assert sampling == expected


def test_every_option_reaches_its_field() -> None:
    options = {
        "--temperature": "0.5",
        "--top-k": "7",
        "--top-p": "0.25",
        "--min-p": "0.125",
        "--typical-p": "0.75",
        "--repeat-penalty": "1.5",
        "--frequency-penalty": "-0.5",
        "--presence-penalty": "0.375",
        "--penalty-last-n": "99",
        "--dry-multiplier": "0.625",
        "--model": "m.gguf",
        "--drafter": "none",
        "--context": "4096",
        "--threads": "3",
    }
    words = [word for pair in options.items() for word in pair]
    loading, sampling = parse(*words)
    assert sampling == SamplingParams(
        temperature=0.5,
        top_k=7,
        top_p=0.25,
        min_p=0.125,
        typical_p=0.75,
        repeat_penalty=1.5,
        frequency_penalty=-0.5,
        presence_penalty=0.375,
        penalty_last_n=99,
        dry_multiplier=0.625,
        seed=11,
    )
    assert loading == LoadRequest("m.gguf", "none", 4096, 3, verbose=True)


@pytest.mark.parametrize(
    ("words", "remember", "learn"),
    [
        (("--no-learn",), True, False),
        (("--incognito",), False, False),
        (("--incognito", "--no-learn"), False, False),
    ],
)
def test_what_is_remembered_can_be_left_alone(
    words: tuple[str, ...], remember: bool, learn: bool
) -> None:
    loading, _ = parse(*words)
    assert (loading.remember, loading.learn) == (remember, learn)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("--context", "63"), "63"),
        (("--context", "-1"), "-1"),
        (("--context", str(MOST_CONTEXT + 1)), str(MOST_CONTEXT + 1)),
        (("--threads", "0"), "0 threads"),
        (("--threads", "1025"), "1025 threads"),
    ],
)
def test_nonsense_is_refused_with_the_value(words: tuple[str, ...], value: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(*words)
    assert value in refused.value.problem
    assert refused.value.remedy


def test_the_limits_themselves_are_fine() -> None:
    for words in (("--context", "64"), ("--context", str(MOST_CONTEXT)), ("--threads", "1024")):
        parse(*words)


def test_max_tokens() -> None:
    for allowed in (None, 1, 10**9):
        check_max_tokens(allowed)
    for refused in (0, -5):
        with pytest.raises(UsageError, match=f"--max-tokens is {refused}; give at least 1"):
            check_max_tokens(refused)
    with pytest.raises(UsageError, match="at least 2"):
        check_max_tokens(1, least=2)


def test_every_command_takes_the_same_loading_options() -> None:
    for name in ("run", "chat", "serve", "bench"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {option for p in command.params for option in p.opts}
        assert {"--model", "--drafter", "--context", "--threads", "--temperature"} <= options


# How a command ends


@pytest.fixture
def failing() -> Iterator[list[BaseException]]:
    """A subcommand that raises what is put into the list."""
    causes: list[BaseException] = []

    @click.command("failing")
    def command() -> None:
        raise causes[0]

    cli.add_command(command)
    yield causes
    del cli.commands["failing"]


@pytest.mark.parametrize(
    "cause", [KeyboardInterrupt(), signals.Terminated(), BrokenPipeError(32, "Broken pipe")]
)
def test_click_does_not_get_to_see_how_a_command_was_ended(
    failing: list[BaseException], cause: BaseException
) -> None:
    failing.append(cause)
    with pytest.raises(Ended) as ended:
        cli.main(["failing"], standalone_mode=False)
    assert ended.value.cause is cause


@pytest.mark.parametrize("cause", [UsageError("a", "b"), EdgeSpecError("c"), ValueError("d")])
def test_other_errors_pass(failing: list[BaseException], cause: BaseException) -> None:
    failing.append(cause)
    with pytest.raises(type(cause)) as raised:
        cli.main(["failing"], standalone_mode=False)
    assert raised.value is cause


# Signals, in programs of their own: each changes the handlers of its whole process


def program(body: str) -> tuple[int, list[str], list[str]]:
    """Exit status, lines of stdout and of stderr of a small program over `signals`."""
    head = """
        import os, signal, sys, threading, time
        from edgespec import signals
        INT, TERM = signal.SIGINT, signal.SIGTERM
        def send(number): os.kill(os.getpid(), number)
    """
    script = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_the_first_signal_raises_and_those_that_follow_do_not_disturb(number: str) -> None:
    status, printed, said = program(f"""
        signals.raise_once()
        with signals.ending_at_once():
            pass  # what it changed is as before
        try:
            send({number})
            time.sleep(60)
        except KeyboardInterrupt as interrupt:
            print(type(interrupt).__name__)
            send(INT), send(TERM), send(INT)
            print("unwound")
    """)
    expected = {"INT": "KeyboardInterrupt", "TERM": "Terminated"}
    assert (status, printed, said) == (0, [expected[number], "unwound"], [])


def test_a_second_signal_ends_an_unwinding_that_hangs() -> None:
    status, printed, said = program("""
        signals._PATIENCE_S = 0.0
        signals.raise_once()
        try:
            send(INT)
        except KeyboardInterrupt:
            print("hanging", flush=True)
            time.sleep(0.01)
            send(TERM)
            time.sleep(60)
        print("never")
    """)
    assert (status, printed, said) == (128 + signal.SIGTERM, ["hanging"], [signals.STOPPED])


def test_ignored_signals_stay_ignored() -> None:
    status, printed, said = program("""
        signal.signal(INT, signal.SIG_IGN)
        signals.raise_once()
        send(INT)
        with signals.ending_at_once():
            send(INT)
        print("alive", flush=True)
        try:
            send(TERM)
        except signals.Terminated:
            send(INT)
            print("terminated", signal.getsignal(INT) is signal.SIG_IGN)
    """)
    assert (status, printed, said) == (0, ["alive", "terminated True"], [])


@pytest.mark.parametrize("number", ["INT", "TERM"])
def test_ending_at_once_runs_nothing_more(number: str) -> None:
    status, printed, said = program(f"""
        signals.raise_once()
        try:
            with signals.ending_at_once():
                send({number})
                time.sleep(60)
        finally:
            print("never", flush=True)
    """)
    code = 128 + getattr(signal, f"SIG{number}")
    assert (status, printed, said) == (code, [], [signals.STOPPED])


def test_a_callback_of_c_code_cannot_swallow_the_signal() -> None:
    """What ending at once is for: raising there would print a traceback and go on."""
    call = textwrap.dedent("""
        import ctypes
        compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        numbers = (ctypes.c_int * 2)(2, 1)
        def callback(_a, _b):
            send(TERM)
            return 0
        def sort():
            ctypes.CDLL(None).qsort(numbers, 2, 4, compare(callback))
        signals.raise_once()
    """)
    status, printed, said = program(call + "sort()\nprint('went on')")
    assert (status, printed) == (0, ["went on"])
    assert "Traceback (most recent call last):" in said
    status, printed, said = program(
        call + "with signals.ending_at_once():\n    sort()\nprint('went on')"
    )
    assert (status, printed, said) == (128 + signal.SIGTERM, [], [signals.STOPPED])


def test_a_command_that_is_over_ignores_signals() -> None:
    status, printed, said = program("""
        signals.raise_once()
        signals.ignore()
        send(INT), send(TERM)
        print("over")
    """)
    assert (status, printed, said) == (0, ["over"], [])


def test_in_another_thread_or_without_our_handlers_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def handlers() -> list[object]:
        with signals.ending_at_once():
            return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert handlers() == before
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(handlers()))
    thread.start()
    thread.join()
    assert found == before


def test_a_main_that_is_interrupted_while_it_imports() -> None:
    """Before there is any command: the group's module itself gets the signal."""
    status, printed, said = program("""
        import sys
        from edgespec.cli.main import main
        class Importing:
            def find_spec(self, name, path=None, target=None):
                if name == "edgespec.cli.group":
                    send(TERM)
        sys.meta_path.insert(0, Importing())
        main(["--version"])
    """)
    assert (status, printed, said) == (143, [], [signals.STOPPED])
