"""`edgespec bench`: speculation against plain decoding, side by side, on a suite of prompts."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.cli.answering import InThread
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
    from edgespec.protocols import Completer
    from edgespec.types import SamplingParams, ServedModel


@click.command()
@load_options
@sampling_options(default_temperature=0.0)
@click.option(
    "--suite", "suite_file", metavar="FILE", help="JSON lines. [default: our own prompts]"
)
@click.option("--categories", metavar="C,..", help="Only these categories.")
@click.option("--limit", type=int, metavar="N", help="At most N questions of each category.")
@click.option("--max-tokens", type=int, default=128, show_default=True, help="Of each answer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option("--json", "json_file", metavar="OUT", help="Write all figures to this file.")
@click.pass_obj
def bench(verbose: bool, /, json_file: str | None, **values: Any) -> None:  # noqa: ANN401
    """Measure each prompt with and without speculation and compare the answers.

    Only decoding is timed. The drafter starts without anything it learned in earlier runs.
    """
    from edgespec.bench.suite import select

    loading = dataclasses.replace(collect_loading(values, bool(verbose)), remember=False)
    sampling = collect_sampling(values, values.pop("seed"))
    check_max_tokens(values["max_tokens"], least=2)
    if values["limit"] is not None and values["limit"] < 1:
        raise UsageError(f"--limit is {values['limit']}", "give at least 1")
    names = [name.strip() for name in (values["categories"] or "").split(",")]
    questions = select(
        _suite(values["suite_file"]), [name for name in names if name], values["limit"]
    )
    pairs: list[Pair] = []
    complete = False
    with load_completer(loading, sampling) as loaded:
        model = loaded.completer.model
        try:
            _measure(loaded.completer, questions, sampling, values["max_tokens"], pairs)
            complete = True
        finally:  # what was measured before Ctrl-C is not lost
            if pairs:
                _report(pairs, model, _about(model, sampling, complete), json_file)


def _report(
    pairs: list[Pair], model: ServedModel, about: dict[str, object], json_file: str | None
) -> None:
    """Print the table and write the file; failing at one does not prevent the other."""
    try:
        _print_table(pairs, model)
    finally:
        if json_file:
            _write_json(json_file, pairs, about)


def _measure(
    completer: Completer,
    questions: Sequence[Question],
    sampling: SamplingParams,
    max_tokens: int,
    pairs: list[Pair],
) -> None:
    """Append to `pairs` what is measured, telling on stderr how far it is."""
    from edgespec.bench.runner import run_suite

    def measured(stopped: threading.Event) -> Iterator[Pair]:
        # After a stop the pair under way is cut short: it is no measurement.
        suite = run_suite(completer, questions, sampling, max_tokens)
        return itertools.takewhile(lambda _pair: not stopped.is_set(), suite)

    with InThread(measured, completer.cancel) as arriving:
        for pair in arriving:
            pairs.append(pair)
            _show_progress(pair, len(pairs), len(questions))
    num_left_out = len(questions) - len(pairs)
    if not pairs:
        raise ContextOverflowError("no question fits the context", "use a larger --context")
    if num_left_out:
        subject = "question does" if num_left_out == 1 else "questions do"
        click.echo(f"{num_left_out} {subject} not fit the context: left out", err=True)


def _suite(name: str | None) -> Any:  # noqa: ANN401
    from edgespec.bench.suite import read_suite

    if name is not None:
        return read_suite(Path(name).expanduser())
    with resources.as_file(resources.files("edgespec.bench") / "prompts.jsonl") as path:
        return read_suite(path)


def _show_progress(pair: Pair, done: int, total: int) -> None:
    same = "same bytes" if pair.identical else "DIFFERENT"
    ratio = pair.speculative.tokens_per_second / max(pair.plain.tokens_per_second, 1e-9)
    question = f"{pair.question.category} {pair.question.id}"
    click.echo(f"[{done}/{total}] {question}: {ratio:.2f}x, {same}", err=True)


def _print_table(pairs: list[Pair], model: ServedModel) -> None:
    from rich.console import Console
    from rich.table import Table

    from edgespec.bench.report import table_rows

    headings = ("category", "questions", "plain t/s", "t/s", "speed-up", "tau", "accepted", "same")
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
    console.print(table)


def _about(model: ServedModel, sampling: SamplingParams, complete: bool) -> dict[str, object]:
    return {
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
