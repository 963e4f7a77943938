"""`edgespec learn`: have targets teach drafters; look at, carry and forget what these learned.

stdout carries data (the table, JSON); questions and sentences go to stderr.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.cli.learn_corpus import corpus as corpus_command
from edgespec.cli.learn_drafter import drafter as drafter_command
from edgespec.errors import UsageError
from edgespec.learning.corpus import corpus_sizes, delete_corpora
from edgespec.learning.trainings import TrainingStore
from edgespec.paths import user_paths
from edgespec.reports import human_bytes

if TYPE_CHECKING:
    from edgespec.learning.trained import Trained


@click.group()
def learn() -> None:
    """What drafting models learned from what targets said."""


learn.add_command(corpus_command)
learn.add_command(drafter_command)


@learn.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def status(as_json: bool) -> None:
    """Show what was learned, for each target and drafter."""
    trained, sizes = _trained(), corpus_sizes(user_paths().corpora)
    if as_json:
        told = [*(entry.as_json() for entry in trained), *({"corpus": asdict(s)} for s in sizes)]
        click.echo(json.dumps(told, indent=2))
        return
    for line in (*(entry.line() for entry in trained), *(size.line() for size in sizes)):
        click.echo(line)
    if not trained:
        click.echo("nothing was learned yet", err=True)


@learn.command()
@click.option("--drafter", metavar="D", help="Only what this drafter learned.")
@click.option("--corpora", is_flag=True, help="Only what targets answered for drafters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(drafter: str | None, corpora: bool, yes: bool) -> None:
    """Forget what drafters learned, files that cannot be read included."""
    if corpora:
        _reset_corpora(yes)
        return
    store = _store()
    paths = store.all()
    if drafter is not None:
        paths = store.of_same_pair(each.path for each in _trained() if each.is_of(drafter))
    if not paths:
        click.echo("nothing was learned yet", err=True)
        return
    _confirm(f"what was learned in {len(paths)} file(s)", yes)
    store.delete(paths)
    click.echo(f"forgot {len(paths)} file(s)", err=True)


def _reset_corpora(yes: bool) -> None:
    folder = user_paths().corpora
    sizes = corpus_sizes(folder)
    if not sizes:
        click.echo("no target answered anything yet", err=True)
        return
    _confirm(f"what {len(sizes)} target(s) answered for drafters", yes)
    delete_corpora(folder)
    click.echo(f"freed {human_bytes(sum(each.num_bytes for each in sizes))}", err=True)


def _confirm(what: str, yes: bool) -> None:
    """Ask unless it is said already; raises UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"reset forgets {what}", "add --yes if that is meant")
    click.confirm(f"Forget {what}?", abort=True, err=True)


@learn.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--drafter", metavar="D", help="Whose, if there are several.")
def export(file: Path, drafter: str | None) -> None:
    """Write what a drafter learned to FILE, a LoRA in GGUF; `edgespec learn import` takes it in."""
    from edgespec.learning.trained import export_trained  # reads GGUF files: much to load

    export_trained(_store(), file, drafter)
    click.echo(f"wrote {file}, {human_bytes(file.stat().st_size)}", err=True)


@learn.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Replace what was learned of the same pair.")
def import_(file: Path, yes: bool) -> None:
    """Take in FILE; it serves the same drafter's file for targets of the same vocabulary."""
    from edgespec.learning.trained import import_trained  # reads GGUF files: much to load

    click.echo(import_trained(_store(), file, replace=yes).line())


def _store() -> TrainingStore:
    return TrainingStore(user_paths().adaptations)


def _trained() -> list[Trained]:
    """What is told of every training."""
    store = _store()
    if not store.all() and not store.shipped_loras():
        return []
    from edgespec.learning.trained import all_trained  # reads GGUF files: much to load

    return all_trained(store)
