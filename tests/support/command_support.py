"""Subcommands run in this process; errors are raised, as `edgespec.cli.main` gets them."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgespec.cli.group import cli
from edgespec.errors import EdgeSpecError


def run_command(group: str, *arguments: str | Path, answer: str | None = None) -> Result:
    """Run a subcommand of `group`; `answer` is what is typed."""
    result = CliRunner().invoke(
        cli, [group, *map(str, arguments)], input=answer, standalone_mode=False
    )
    if isinstance(result.exception, (EdgeSpecError, click.ClickException)):
        raise result.exception
    assert result.exception is None, repr(result.exception)
    return result


def refusal(kind: type[EdgeSpecError], group: str, *arguments: str | Path) -> str:
    """The one line with which a subcommand is refused."""
    with pytest.raises(kind) as error:
        run_command(group, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)
