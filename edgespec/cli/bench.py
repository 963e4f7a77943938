"""`edgespec bench`: what speculation buys here, beside plain decoding and other ways to answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.cli.bench_load import measure_load, server_options
from edgespec.cli.bench_ways import way_options
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    sampling_options,
)
from edgespec.errors import UsageError

if TYPE_CHECKING:
    from edgespec.bench.replay import Curve


def _curves(
    _context: click.Context, _option: click.Parameter, names: tuple[str, ...]
) -> tuple[Curve, ...]:
    """Reads names and files of pass times."""
    if not names:
        return ()
    from edgespec.bench.replay import load_curve  # much to load

    return tuple(map(load_curve, names))


@click.group(invoke_without_command=True, subcommand_metavar="[compare A.json B.json]")
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
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@way_options
@server_options
@click.option("--json", "json_file", metavar="OUT", help="Write all that is measured to this file.")
@click.option("--html", "html_file", metavar="OUT", help="Write one page of it, with plots.")
@click.option(
    "--what-if",
    "curves",
    metavar="T(R)",
    multiple=True,
    callback=_curves,
    help="Predict it for another machine, by the name or file of its pass times; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Go on with what --json OUT does not have yet.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    json_file: str | None,
    html_file: str | None,
    curves: tuple[Curve, ...],
    resume: bool,
    **values: Any,  # noqa: ANN401
) -> None:
    """Measure ways to answer beside plain decoding, in turns, and compare the answers.

    Nothing that was ever learned is used; what --warm learns is dropped. Ctrl-C keeps what is
    finished.
    """
    if context.invoked_subcommand is not None:
        return
    from edgespec.cli.bench_asked import Asked
    from edgespec.cli.bench_run import run_bench
    from edgespec.cli.bench_written import Output

    loading = dataclasses.replace(
        collect_loading(values, bool(context.obj)), remember=False, idle=False
    )
    sampling = collect_sampling(values, values.pop("seed"))
    check_max_tokens(values["max_tokens"], least=2)
    if resume and json_file is None:
        raise UsageError("--resume goes on with a file", "give --json OUT as well")
    out, html = (Path(name).expanduser() if name else None for name in (json_file, html_file))
    if values["servers"]:
        if html or curves or resume:
            raise UsageError("--html, --what-if and --resume are not for --serve", "leave them out")
        measure_load(values, loading, sampling, out)
    else:
        run_bench(loading, Asked.of(values, sampling), Output(out, html, curves), resume)


@bench.command()
@click.argument("first", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(path_type=Path))
def compare(first: Path, second: Path) -> None:
    """Tell in what two benchmarks differ."""
    from rich.console import Console

    from edgespec.bench.compare import compare_lines
    from edgespec.bench.records import read_report

    Console(highlight=False).print(compare_lines(read_report(first), read_report(second)))
