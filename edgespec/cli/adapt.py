"""`edgespec adapt`: look at, carry and forget what drafters learned from the user's targets.

stdout carries data (the table, JSON, paths); questions and sentences go to stderr.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.cli.train import train
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.learning.distillation.trainings import TrainingStore
from edgespec.learning.online.adaptations import AdaptationStore, Saved, read, write
from edgespec.paths import user_paths
from edgespec.reports import human_bytes

if TYPE_CHECKING:
    from edgespec.learning.distillation.training_files import Trained


_GGUF = b"GGUF"


@click.group()
def adapt() -> None:
    """What drafting models learned from what targets said."""


adapt.add_command(train)


@adapt.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def status(as_json: bool) -> None:
    """Show what was learned, for each target and drafter."""
    found = [(path, *_tried(path)) for path in _store().all()]
    trained = _trained()
    if as_json:
        values = [_as_json(*entry) for entry in found]
        click.echo(json.dumps([*values, *(entry.as_json() for entry in trained)], indent=2))
        return
    for path, saved, problem in found:
        click.echo(_line(saved, path) if saved is not None else f"{path.name}  {problem}")
    for entry in trained:
        click.echo(entry.line())
    if not found and not trained:
        click.echo("nothing was learned yet", err=True)


@adapt.command()
@click.option("--drafter", metavar="D", help="Only what this drafter learned.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(drafter: str | None, yes: bool) -> None:
    """Forget what drafters learned, files that cannot be read included."""
    store = _store()
    paths = [*store.all(), *_trainings().all()]
    if drafter is not None:
        paths = [path for path in store.all() if _is_of(path, drafter)]
        paths += _trainings().of_same_pair(t.path for t in _trained() if t.is_of(drafter))
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
    """Write what a drafter learned to FILE; `edgespec adapt import FILE` takes it in elsewhere.

    What it was trained to (`edgespec adapt train`) goes into a FILE that ends in .gguf: a LoRA.
    """
    if file.suffix == ".gguf":
        from edgespec.learning.distillation.training_files import (
            export_trained,  # reads GGUF files: much to load
        )

        export_trained(_trainings(), file, drafter)
        return
    paths = [path for path in _store().all() if drafter is None or _is_of(path, drafter)]
    if not paths:
        of_whom = f" by {drafter}" if drafter is not None else ""
        raise UsageError(f"nothing was learned{of_whom}", "`edgespec adapt status` shows what was")
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} pairs of target and drafter have learned", "say which with --drafter"
        )
    write(read(paths[0]), file)
    click.echo(f"wrote {file}, {human_bytes(file.stat().st_size)}", err=True)


@adapt.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Replace what was learned of the same pair.")
def import_(file: Path, yes: bool) -> None:
    """Take in FILE; it serves the same drafter's file for targets of the same vocabulary."""
    if _is_gguf(file):
        from edgespec.learning.distillation.training_files import (
            import_trained,  # reads GGUF files: much to load
        )

        click.echo(import_trained(_trainings(), file, replace=yes).line())
        return
    saved, store = read(file), _store()
    if store.path(saved.pair).exists() and not yes:
        raise UsageError(
            f"{saved.pair.drafter_name} has learned from {saved.pair.target_name} already",
            "add --yes to replace that",
        )
    store.save(saved)
    click.echo(_line(saved, store.path(saved.pair)))


def _store() -> AdaptationStore:
    return AdaptationStore(user_paths().adaptations)


def _is_gguf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_GGUF)) == _GGUF


def _trainings() -> TrainingStore:
    return TrainingStore(user_paths().adaptations)


def _trained() -> list[Trained]:
    """What is told of every training; there are seldom any."""
    store = _trainings()
    if not store.loras() and not store.trainings():
        return []
    from edgespec.learning.distillation.training_files import (
        all_trained,  # reads GGUF files: much to load
    )

    return all_trained(store)


def _tried(path: Path) -> tuple[Saved | None, str]:
    """What a file holds, or why it cannot be told."""
    try:
        return read(path), ""
    except EdgeSpecError as error:
        return None, str(error)


def _is_of(path: Path, drafter: str) -> bool:
    saved, _problem = _tried(path)
    return saved is not None and drafter in (saved.pair.drafter_name, saved.pair.drafter)


def _line(saved: Saved, path: Path) -> str:
    history = saved.history
    return (
        f"{saved.pair.drafter_name} for {saved.pair.target_name}: version {history.version},"
        f" {history.num_answers} answers, {history.num_positions} guesses judged,"
        f" right {history.share_alone:.3f} alone and {history.share_served:.3f} as served,"
        f" {human_bytes(path.stat().st_size)}"
    )


def _as_json(path: Path, saved: Saved | None, problem: str) -> dict[str, object]:
    about: dict[str, object] = {"path": str(path), "bytes": path.stat().st_size}
    if saved is None:
        return {**about, "problem": problem}
    return {
        **about,
        **asdict(saved.pair),
        **asdict(saved.history),
        "positions_kept": len(saved.state.memory.said),
    }
