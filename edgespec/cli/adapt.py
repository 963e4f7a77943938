"""`edgespec adapt`: train drafters on what the user's targets said; look at, carry and forget that.

stdout carries data (the table, JSON); questions and sentences go to stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.cli.train import train
from edgespec.errors import UsageError
from edgespec.learning.trainings import TrainingStore
from edgespec.paths import user_paths
from edgespec.reports import human_bytes

if TYPE_CHECKING:
    from edgespec.learning.trained import Trained


@click.group()
def adapt() -> None:
    """What drafting models learned from what targets said."""


adapt.add_command(train)


@adapt.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def status(as_json: bool) -> None:
    """Show what was learned, for each target and drafter."""
    trained = _trained()
    if as_json:
        click.echo(json.dumps([entry.as_json() for entry in trained], indent=2))
        return
    for entry in trained:
        click.echo(entry.line())
    if not trained:
        click.echo("nothing was learned yet", err=True)


@adapt.command()
@click.option("--drafter", metavar="D", help="Only what this drafter learned.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(drafter: str | None, yes: bool) -> None:
    """Forget what drafters learned, files that cannot be read included."""
    store = _store()
    paths = store.all()
    if drafter is not None:
        paths = store.of_same_pair(each.path for each in _trained() if each.is_of(drafter))
    if not paths:
        click.echo("nothing was learned yet", err=True)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("reset forgets what drafters learned", "add --yes if that is meant")
        click.confirm(f"Forget what was learned in {len(paths)} file(s)?", abort=True, err=True)
    store.delete(paths)
    click.echo(f"forgot {len(paths)} file(s)", err=True)


@adapt.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--drafter", metavar="D", help="Whose, if there are several.")
def export(file: Path, drafter: str | None) -> None:
    """Write what a drafter learned to FILE, a LoRA in GGUF; `edgespec adapt import` takes it in."""
    from edgespec.learning.trained import export_trained  # reads GGUF files: much to load

    export_trained(_store(), file, drafter)
    click.echo(f"wrote {file}, {human_bytes(file.stat().st_size)}", err=True)


@adapt.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Replace what was learned of the same pair.")
def import_(file: Path, yes: bool) -> None:
    """Take in FILE; it serves the same drafter's file for targets of the same vocabulary."""
    from edgespec.learning.trained import import_trained  # reads GGUF files: much to load

    click.echo(import_trained(_store(), file, replace=yes).line())


def _store() -> TrainingStore:
    return TrainingStore(user_paths().adaptations)


def _trained() -> list[Trained]:
    """What is told of every training; there are seldom any."""
    store = _store()
    if not store.all():
        return []
    from edgespec.learning.trained import all_trained  # reads GGUF files: much to load

    return all_trained(store)
