"""`edgespec learn drafter`: teach a drafter's layers what targets said."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edgespec import signals
from edgespec.cli.loading import model_on_disk, say
from edgespec.errors import UsageError
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.paths import user_paths
from edgespec.runtime.request import SOURCES, Source, check_threads

if TYPE_CHECKING:
    from edgespec.learning.training import Progress as TrainingProgress
    from edgespec.learning.training import Show

DEFAULT_MINUTES = 30.0
_LONGEST_MINUTES = 7 * 24 * 60.0


@click.command()
@click.option(
    "--drafter",
    "name",
    metavar="D",
    help="Which model. [default: the best one on disk]",
)
@click.option(
    "--model",
    "target",
    default=DEFAULT_TARGET,
    show_default=True,
    metavar="T",
    help="For which target: what models of its vocabulary said is learned from.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(SOURCES),
    default=SOURCES[0],
    show_default=True,
    help="Answers that are recorded here, those of `edgespec learn corpus`, or both.",
)
@click.option("--steps", type=int, metavar="N", help="End after so many steps in all.")
@click.option(
    "--minutes", type=float, metavar="N", help=f"End after so long. [default: {DEFAULT_MINUTES:g}]"
)
@click.option("--resume", is_flag=True, help="Go on with the training before.")
@click.option("--threads", "num_threads", type=int, metavar="N", help="[default: physical cores]")
@click.pass_obj
def drafter(
    verbose: bool,
    /,
    name: str | None,
    target: str,
    source: Source,
    steps: int | None,
    minutes: float | None,
    resume: bool,
    num_threads: int | None,
) -> None:
    """Train a drafter on what targets said: a LoRA of its layers.

    It ends by itself when held-out answers are not guessed better any more, after --minutes or
    --steps. Ctrl-C keeps what was done for --resume. What was learned serves from then on if it
    guesses held-out answers better than the drafter without it. Needs PyTorch.
    """
    limits = _limits(steps, minutes)
    check_threads(num_threads)
    check_torch()
    target_path = model_on_disk(target)
    drafter_path = None if name is None else model_on_disk(name)
    from edgespec.runtime.train import TrainRequest, train_drafter  # loads the native library

    request = TrainRequest(
        target_path, drafter_path, source, *limits, resume, num_threads, bool(verbose)
    )
    with training_display() as show, signals.noted() as interrupt:
        outcome = train_drafter(request, user_paths(), show, lambda: interrupt() is not None, say)
    if outcome.is_stopped:
        say(outcome.line)
        raise interrupt() or KeyboardInterrupt()
    click.echo(outcome.line, err=True)


def check_torch() -> None:
    """Raises UsageError, with how to get it, if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "training needs PyTorch, which is not installed",
            "add it to EdgeSpec's environment: pip install 'edgespec[learn]'",
        )


def _limits(steps: int | None, minutes: float | None) -> tuple[int | None, float | None]:
    """Steps and seconds; raises UsageError for what makes no sense."""
    if steps is not None and steps < 1:
        raise UsageError(f"--steps is {steps}", "give at least 1")
    if minutes is not None and not 0 < minutes <= _LONGEST_MINUTES:
        raise UsageError(
            f"--minutes is {minutes:g}", f"give more than 0, {_LONGEST_MINUTES:g} at most"
        )
    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    return steps, None if minutes is None else 60.0 * minutes


@contextlib.contextmanager
def training_display() -> Iterator[Show]:
    """For stderr: a bar on a terminal, elsewhere a line where held-out answers are judged."""
    if not sys.stderr.isatty():
        yield show_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("training", total=1.0)

        def show(progress: TrainingProgress, share: float, _is_judged: bool) -> None:
            bar.update(task, completed=share, description=described(progress))

        yield show


def show_line(progress: TrainingProgress, _share: float, is_judged: bool) -> None:
    """Print how far a training is, where it was judged."""
    if is_judged:
        click.echo(described(progress), err=True)


def described(progress: TrainingProgress) -> str:
    """Steps, loss and agreement with held-out answers, in one line."""
    words = [f"training: {progress.num_steps} steps"]
    if progress.num_steps:
        words.append(f"loss {progress.loss:.3f}")
    if progress.alone is not None and progress.best is not None:
        words.append(
            f"held-out agreement {progress.best.share:.3f}, {progress.alone.share:.3f} before"
        )
    return ", ".join(words)
