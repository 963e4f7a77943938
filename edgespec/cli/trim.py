"""`edgespec trim`: cut a drafter's head down to the tokens that a target says, re-type its body."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.cli.loading import model_on_disk, say
from edgespec.errors import UsageError
from edgespec.paths import user_paths

if TYPE_CHECKING:
    from edgespec.runtime.trim import Trimmed

AUTO = "auto"


@click.command()
@click.argument("drafter", metavar="DRAFTER")
@click.option("--for", "target", metavar="TARGET", help="Weigh by this target's speed and sayings.")
@click.option(
    "--keep", default=AUTO, show_default=True, metavar="K", help="Tokens that it can still say."
)
@click.option(
    "--counts",
    "counts_file",
    metavar="FILE",
    help="Text that a model wrote, or what --save-counts wrote. [default: EdgeSpec's own counts]",
)
@click.option(
    "--retype",
    default=AUTO,
    show_default=True,
    metavar="TYPE",
    help="Type of the body's matrices, for example q4_0; none leaves them.",
)
@click.option(
    "--out", "out_file", metavar="FILE", help="Write here instead of where drafters are found."
)
@click.option("--save-counts", metavar="FILE", help="Write the counts that were used to a table.")
@click.option("--threads", "num_threads", type=int, metavar="N", help="[default: physical cores]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def trim(
    verbose: bool,
    /,
    drafter: str,
    target: str | None,
    keep: str,
    counts_file: str | None,
    retype: str,
    out_file: str | None,
    save_counts: str | None,
    num_threads: int | None,
    as_json: bool,
) -> None:
    """Make DRAFTER cheaper: keep the rows of its head that matter, re-type its body.

    What is left open is measured on this machine: what a drafted token costs against how often it
    is right. Answers stay the same whatever is kept; only their speed changes. A drafter is trimmed
    by itself when it first drafts, so this is for doing it otherwise. Prints the path of the file,
    which replaces what was used before unless --out is given.
    """
    num_kept = number_to_keep(keep)
    whole = model_on_disk(drafter)
    from edgespec.runtime.trim import TrimRequest
    from edgespec.runtime.trim import trim as trim_drafter  # loads the native library

    request = TrimRequest(
        whole,
        keep=num_kept,
        type_name=None if retype.lower() == AUTO else retype.lower(),
        target=None if target is None else model_on_disk(target),
        counts_file=_path(counts_file),
        out=_path(out_file),
        save_counts=_path(save_counts),
        num_threads=num_threads,
        verbose=bool(verbose),
    )
    made = trim_drafter(request, user_paths(), say)
    if as_json:
        click.echo(json.dumps(_to_json(made), indent=2))
        return
    for line in describe(made):
        click.echo(line, err=True)
    click.echo(str(made.path))


def number_to_keep(text: str) -> int | None:
    """The number of tokens, None for "auto"; raises UsageError for anything else."""
    if text.lower() == AUTO:
        return None
    try:
        number = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"--keep is {text!r}", "give a number of tokens or auto")
    return number


def describe(made: Trimmed) -> list[str]:
    """What was weighed and chosen, for people."""
    lines = []
    if made.tried:
        lines.append(f"{'TOKENS':>9}  {'TYPE':8} {'MS A TOKEN':>10} {'AGREES':>7} {'SPEED-UP':>8}")
    for row in made.tried:
        agrees = "-" if row.agreement is None else f"{row.agreement:.3f}"
        speed = "-" if row.agreement is None else f"{row.speed:.3f}"
        lines.append(
            f"{row.num_kept:>9,}  {row.type_name:8} {row.token_ms:>10.2f} {agrees:>7} {speed:>8}"
        )
    share = made.num_bytes / made.parent_bytes
    lines.append(
        f"keeps {made.num_kept:,} of {made.num_tokens:,} tokens ({made.coverage:.1%} of what is"
        f" said, counted over {made.origin}), {share:.0%} of the bytes"
    )
    return lines


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser().absolute()


def _to_json(made: Trimmed) -> dict[str, object]:
    value = asdict(made)
    return {**value, "path": str(made.path), "parent": str(made.parent)}
