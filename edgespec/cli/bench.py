"""`edgespec bench`: what speculation buys here, beside plain decoding and other ways to answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgespec.cli.bench_load import measure_load, server_options
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    sampling_options,
)
from edgespec.errors import UsageError
from edgespec.runtime.ways import ABOUT, BASELINES, PARTS, PRODUCT


def _names(known: tuple[str, ...], prefix: str = "") -> Any:  # noqa: ANN401 - click's callbacks
    """Reads names separated by commas; each must be `known`, and gets the prefix."""

    def read(_context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
        names = [name.strip() for name in (text or "").split(",") if name.strip()]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                f"--{option.name} knows no {', '.join(unknown)}", f"give {', '.join(known)}"
            )
        return tuple(f"{prefix}{name}" for name in names)

    return read


def _forms(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, Path]:
    """Reads NAME=FILE."""
    forms: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        path = Path(file).expanduser()
        if not name or name in (*ABOUT, *forms) or not file or not path.is_file():
            raise UsageError(f"--form {text}", "give NAME=FILE.gguf, a new name and a file")
        forms[name] = path.absolute()
    return forms


@click.group(invoke_without_command=True)
@load_options
@sampling_options(default_temperature=0.0)
@click.option(
    "--suite",
    metavar="S",
    help="Our own (mixed, edits), or a file of JSON lines. [default: mixed]",
)
@click.option(
    "--warm",
    type=click.Choice(["again", "rewritten", "unseen"]),
    help="Measure with a memory of earlier answers: to the same prompts, to pairs of prompts on "
    "the same matter (--suite takes a file of pairs), or to others.",
)
@click.option("--others", metavar="S", help="Asked before --warm unseen. [default: 200 of our own]")
@click.option("--categories", metavar="C,..", help="Only these categories.")
@click.option("--limit", type=int, metavar="N", help="At most N questions of each category.")
@click.option("--max-tokens", type=int, default=128, show_default=True, help="Of each answer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@click.option(
    "--ways",
    metavar="W,..",
    default=PRODUCT,
    show_default=True,
    callback=_names(tuple(ABOUT)),
    help="Ways to answer that are compared with plain decoding.",
)
@click.option(
    "--without",
    metavar="P,..",
    callback=_names(tuple(PARTS), "without-"),
    help=f"The product without one part each: {', '.join(PARTS)}.",
)
@click.option(
    "--baseline",
    metavar="B,..",
    callback=_names(tuple(BASELINES)),
    help=f"What others do: {', '.join(BASELINES)}.",
)
@click.option(
    "--form",
    "forms",
    metavar="NAME=FILE",
    multiple=True,
    callback=_forms,
    help="The product with another file as the model that drafts; may be repeated.",
)
@server_options
@click.option("--json", "json_file", metavar="OUT", help="Write all that is measured to this file.")
@click.option("--resume", is_flag=True, help="Go on with what --json OUT does not have yet.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    json_file: str | None,
    resume: bool,
    forms: dict[str, Path],
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

    loading = dataclasses.replace(
        collect_loading(values, bool(context.obj)), remember=False, idle=False
    )
    sampling = collect_sampling(values, values.pop("seed"))
    check_max_tokens(values["max_tokens"], least=2)
    ways = (*values["ways"], *values["without"], *values["baseline"])
    if resume and json_file is None:
        raise UsageError("--resume goes on with a file", "give --json OUT as well")
    out = Path(json_file).expanduser() if json_file else None
    if values["servers"]:
        return measure_load(values, loading, sampling, out)
    asked = Asked.of(values, sampling, ways, forms)
    run_bench(loading, asked, out, resume)
