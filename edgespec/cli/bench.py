"""`edgespec bench`: speculation against plain decoding, side by side, on a suite of prompts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.cli.loading import load_completer
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    sampling_options,
)
from edgespec.errors import ContextOverflowError, StorageError, UsageError

if TYPE_CHECKING:
    from edgespec.bench.runner import Pair
    from edgespec.bench.suite import Question
    from edgespec.bench.warm import Warm, WarmPlan
    from edgespec.protocols import Completer
    from edgespec.runtime.running import Running
    from edgespec.types import SamplingParams, ServedModel


@click.command()
@load_options
@sampling_options(default_temperature=0.0)
@click.option(
    "--suite",
    metavar="S",
    help="Our own (chat, code, edits, summaries, grounded, translation, mathematics, json, german, "
    "chinese, tools, outline; mixed: two questions of each; all), or files of JSON lines; several "
    "with commas. [default: mixed]",
)
@click.option(
    "--warm",
    type=click.Choice(["again", "rewritten", "unseen", "week"]),
    help="Measure with a memory of earlier answers: to the same prompts, to pairs of prompts on "
    "the same matter (--suite takes a file of pairs), to others, or of the days before in a week "
    "of one user (--suite takes a file of days).",
)
@click.option("--others", metavar="S", help="Asked before --warm unseen. [default: 200 of our own]")
@click.option("--categories", metavar="C,..", help="Only these categories.")
@click.option("--limit", type=int, metavar="N", help="At most N questions of each category.")
@click.option(
    "--max-tokens",
    type=int,
    default=128,
    show_default=True,
    help="Of each answer, where the question has no number of its own.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option("--json", "json_file", metavar="OUT", help="Write all figures to this file.")
@click.pass_obj
def bench(verbose: bool, /, json_file: str | None, **values: Any) -> None:  # noqa: ANN401
    """Measure each prompt with and without speculation and compare the answers.

    Only decoding is timed. Nothing that was ever learned is used; what --warm learns is dropped.
    --warm unseen compares with the same drafters without memory, all else with plain decoding.
    """
    loading = dataclasses.replace(
        collect_loading(values, bool(verbose)), remember=False, idle=False
    )
    sampling = collect_sampling(values, values.pop("seed"))
    check_max_tokens(values["max_tokens"], least=2)
    asked = _asked(values)
    pairs: list[Pair] = []
    complete = False
    with _memory_folder(asked) as memory_at:
        loading = dataclasses.replace(loading, memory_at=memory_at)
        with load_completer(loading, sampling) as loaded:
            model = loaded.completer.model
            try:
                _measure(loaded, asked, sampling, values["max_tokens"], pairs)
                complete = True
            finally:  # what was measured before Ctrl-C is not lost
                if pairs:
                    about = _about(model, sampling, asked, complete)
                    _report(pairs, model, about, json_file)


def _asked(values: dict[str, Any]) -> WarmPlan | tuple[Question, ...]:
    """The plan of a warm run, or the questions of a cold one; raises UsageError."""
    from edgespec.bench.plan import MIXED, cold_questions, warm_plan

    if values["limit"] is not None and values["limit"] < 1:
        raise UsageError(f"--limit is {values['limit']}", "give at least 1")
    categories = [name.strip() for name in (values["categories"] or "").split(",") if name.strip()]
    warm: Warm | None = values["warm"]
    if warm is not None:
        return warm_plan(warm, values["suite"], categories, values["limit"], values["others"])
    if values["others"] is not None:
        raise UsageError("--others is for --warm unseen", "leave it out")
    return cold_questions(values["suite"] or MIXED, categories, values["limit"])


@contextlib.contextmanager
def _memory_folder(asked: WarmPlan | tuple[Question, ...]) -> Iterator[Path | None]:
    """Where a warm run keeps its memory, for as long as it lasts."""
    if isinstance(asked, tuple):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="edgespec-bench-") as folder:
        yield Path(folder) / "edgespec.db"


def _report(
    pairs: list[Pair], model: ServedModel, about: dict[str, object], json_file: str | None
) -> None:
    """Print the table and write the file; failing at one does not prevent the other."""
    try:
        _print_table(pairs, model, about)
    finally:
        if json_file:
            _write_json(json_file, pairs, about)


def _measure(
    loaded: Running,
    asked: WarmPlan | tuple[Question, ...],
    sampling: SamplingParams,
    max_tokens: int,
    pairs: list[Pair],
) -> None:
    """Append to `pairs` what is measured, telling on stderr how far it is.

    In a thread: Python runs signal handlers between byte codes of the main thread, and one that
    waits inside llama.cpp would notice a signal only when the pass is over.
    """
    from edgespec.bench.runner import Stoppable

    completer = Stoppable(loaded.completer)
    questions = asked if isinstance(asked, tuple) else asked.questions
    stopped = threading.Event()

    def say(line: str) -> None:
        if stopped.is_set():
            raise _Stopped
        click.echo(line, err=True)

    def measure() -> None:
        with contextlib.suppress(_Stopped):
            for pair in _suite(completer, loaded, asked, sampling, max_tokens, say):
                if stopped.is_set():  # cut short: it is no measurement
                    return
                pairs.append(pair)
                _show_progress(pair, len(pairs), len(questions))

    with ThreadPoolExecutor(1) as pool:  # leaving it waits until the thread is out of llama.cpp
        try:
            pool.submit(measure).result()
        finally:
            stopped.set()
            completer.stop()
    num_left_out = len(questions) - len(pairs)
    if not pairs:
        raise ContextOverflowError("no question fits the context", "use a larger --context")
    if num_left_out:
        subject = "question does" if num_left_out == 1 else "questions do"
        click.echo(f"{num_left_out} {subject} not fit the context: left out", err=True)


class _Stopped(Exception):
    """The run was stopped while it learned."""


def _suite(
    completer: Completer,
    loaded: Running,
    asked: WarmPlan | tuple[Question, ...],
    sampling: SamplingParams,
    max_tokens: int,
    say: Callable[[str], None],
) -> Iterator[Pair]:
    from edgespec.bench.runner import run_suite
    from edgespec.bench.warm import run_warm

    if isinstance(asked, tuple):
        return run_suite(completer, asked, sampling, max_tokens)
    if loaded.memory is None:
        raise StorageError("there is no place for a database", "free space for temporary files")
    return run_warm(completer, loaded.memory, asked, sampling, max_tokens, say)


def _show_progress(pair: Pair, done: int, total: int) -> None:
    same = "same bytes" if pair.identical else "DIFFERENT"
    ratio = pair.speculative.tokens_per_second / max(pair.plain.tokens_per_second, 1e-9)
    question = f"{pair.question.category} {pair.question.id}"
    click.echo(f"[{done}/{total}] {question}: {ratio:.2f}x, {same}", err=True)


def _print_table(pairs: list[Pair], model: ServedModel, about: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    from edgespec.bench.report import table_rows

    against = "empty t/s" if about["warm"] == "unseen" else "plain t/s"
    headings = ("category", "questions", against, "t/s", "speed-up", "tau", "accepted", "same")
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("category", "same") else "right")
    for name, value in table_rows(pairs):
        table.add_row(
            name,
            str(value.questions),
            f"{value.plain_tokens_per_second:.2f}",
            f"{value.tokens_per_second:.2f}",
            f"{value.speedup:.3f}",
            f"{value.block_efficiency:.2f}",
            f"{value.acceptance_rate:.2f}",
            "yes" if value.identical else "NO",
        )
    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, markup=False, highlight=False)
    heading = f"{model.name}, drafter {model.drafter}, promise: {model.exactness}"
    console.print(heading, soft_wrap=True)
    if model.settings["provisional"]:
        rows = f"{model.settings['max_rows']} rows a pass are proved so far"
        console.print(f"{rows}: `edgespec doctor` measures the rest", soft_wrap=True)
    console.print(table)


def _about(
    model: ServedModel,
    sampling: SamplingParams,
    asked: WarmPlan | tuple[Question, ...],
    complete: bool,
) -> dict[str, object]:
    return {
        "warm": None if isinstance(asked, tuple) else asked.warm,
        "earlier_questions": 0 if isinstance(asked, tuple) else len(asked.earlier),
        "model": model.name,
        "drafter": model.drafter,
        "exactness": model.exactness,
        "settings": dict(model.settings),
        "sampling": dataclasses.asdict(sampling),
        "complete": complete,
    }


def _write_json(name: str, pairs: list[Pair], about: dict[str, object]) -> None:
    from edgespec.bench.report import as_json

    try:
        text = json.dumps(as_json(pairs, about), indent=2)
        Path(name).expanduser().write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write {name}: {error.strerror or error}", "choose another file"
        ) from error
