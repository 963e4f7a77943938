"""The group of subcommands; each is imported when it is asked for, with all that it needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from edgespec import __version__

_MODULES = {
    "learn": "edgespec.cli.learn",
    "bench": "edgespec.cli.bench",
    "chat": "edgespec.cli.chat",
    "db": "edgespec.cli.db",
    "doctor": "edgespec.cli.doctor",
    "models": "edgespec.cli.models",
    "pull": "edgespec.cli.models",
    "run": "edgespec.cli.run",
    "serve": "edgespec.cli.serve",
    "trim": "edgespec.cli.trim",
    "worker": "edgespec.cli.worker",
}
"""Where each command is, under its own name."""


class Ended(Exception):
    """Carries, as its cause, what click would turn into something else (a bare Abort)."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Commands(click.Group):
    """A group that imports late, and lets interrupts and failed output through as `Ended`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in order."""
        return sorted({*_MODULES, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported; None if there is none."""
        if cmd_name in _MODULES and cmd_name not in self.commands:
            self.add_command(getattr(import_module(_MODULES[cmd_name]), cmd_name))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise Ended(error) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgespec")
@click.option("--verbose", is_flag=True, help="Show llama.cpp's logs, and tracebacks of errors.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Local language models, faster, byte for byte the same."""
    context.obj = verbose
