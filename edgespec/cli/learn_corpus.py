"""`edgespec learn corpus`: have a target answer prompts of ours, for drafters to learn from."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from edgespec import signals
from edgespec.cli.loading import model_on_disk, say
from edgespec.errors import UsageError
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.paths import user_paths
from edgespec.runtime.request import LoadRequest

DEFAULT_TOKENS = 500_000
DEFAULT_GIGABYTES = 2.0
MOST_AT_ONCE = 16
"""As many rows as a pass may have."""
_CELLS_AN_ANSWER = 1024
"""Cells of the KV cache for each answer that is under way, its conversation included."""
_LINE_EVERY_S = 10.0


@click.command()
@click.option(
    "--model", "target", default=DEFAULT_TARGET, show_default=True, metavar="T", help="Who answers."
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=DEFAULT_TOKENS,
    show_default=True,
    metavar="N",
    help="End after so many tokens in all.",
)
@click.option("--minutes", type=float, metavar="N", help="End after so long.")
@click.option(
    "--disk",
    "gigabytes",
    type=float,
    default=DEFAULT_GIGABYTES,
    show_default=True,
    metavar="GB",
    help="End when it takes so much.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, MOST_AT_ONCE),
    default=MOST_AT_ONCE,
    show_default=True,
    metavar="N",
    help="Answers at a time.",
)
@click.option(
    "--states/--no-states",
    default=False,
    show_default=True,
    help="Keep the target's hidden states as well: twenty times the bytes.",
)
@click.option("--threads", "num_threads", type=int, metavar="N", help="[default: physical cores]")
@click.pass_obj
def corpus(
    verbose: bool,
    /,
    target: str,
    tokens: int,
    minutes: float | None,
    gigabytes: float,
    at_once: int,
    states: bool,
    num_threads: int | None,
) -> None:
    """Have a target answer prompts of ours, many at a time, for drafters to learn from.

    Kept is what it said and what it knew at each token. Ctrl-C keeps what is finished; the same
    command goes on. `edgespec learn drafter` learns from it.
    """
    for option, value in (("--minutes", minutes), ("--disk", gigabytes)):
        if value is not None and not value > 0:
            raise UsageError(f"{option} is {value:g}", "give more than 0")
    loading = LoadRequest(
        num_context=at_once * _CELLS_AN_ANSWER,
        num_threads=num_threads,
        verbose=bool(verbose),
        num_slots=at_once,
        hidden_states=states,
    )
    path = model_on_disk(target)
    from edgespec.learning.prompts import all_asked
    from edgespec.runtime.corpus import CorpusLimits, make_corpus  # loads the native library

    seconds = None if minutes is None else 60.0 * minutes
    limits = CorpusLimits(tokens, int(gigabytes * 1e9), seconds)
    with _display(tokens) as show, signals.noted() as interrupt:
        line = make_corpus(
            loading,
            path,
            all_asked(),
            limits,
            user_paths(),
            lambda progress: show(progress.num_tokens, progress.tokens_per_second),
            lambda: interrupt() is not None,
            say,
        )
    if (stopped := interrupt()) is not None:
        say(f"stopped with {line}; the same command goes on")
        raise stopped
    click.echo(line, err=True)


@contextlib.contextmanager
def _display(num_tokens: int) -> Iterator[Callable[[int, float], None]]:
    """For stderr: a bar on a terminal, elsewhere a line now and then."""
    if not sys.stderr.isatty():
        due = time.monotonic()

        def show_line(count: int, rate: float) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _LINE_EVERY_S
                click.echo(_described(count, num_tokens, rate), err=True)

        yield show_line
        return
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("answering", total=num_tokens)
        yield lambda count, rate: bar.update(
            task, completed=count, description=_described(count, num_tokens, rate)
        )


def _described(count: int, num_tokens: int, rate: float) -> str:
    told = f"answering: {count:,} of {num_tokens:,} tokens, {rate:,.0f} a second"
    return f"{told}, {(num_tokens - count) / rate / 60:.0f} min left" if rate > 0 else told
