"""Options of `edgespec bench` that say which ways to answer are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgespec.errors import UsageError
from edgespec.runtime.ways import ABOUT, BASELINES, PARTS
from edgespec.types import PRODUCT


def way_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --ways, --without, --baseline and --form to a command."""
    for option in (
        click.option(
            "--form",
            "forms",
            metavar="NAME=FILE",
            multiple=True,
            callback=_forms,
            help="The product with another file as the model that drafts; may be repeated.",
        ),
        click.option(
            "--baseline",
            metavar="B,..",
            callback=_names(tuple(BASELINES)),
            help=f"What others do: {', '.join(BASELINES)}.",
        ),
        click.option(
            "--without",
            metavar="P,..",
            callback=_names(tuple(PARTS), "without-"),
            help=f"The product without one part each: {', '.join(PARTS)}.",
        ),
        click.option(
            "--ways",
            metavar="W,..",
            default=PRODUCT,
            show_default=True,
            callback=_names(tuple(ABOUT)),
            help="Ways to answer that are compared with plain decoding.",
        ),
    ):
        command = option(command)
    return command


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
