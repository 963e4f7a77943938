"""The group of subcommands."""

from __future__ import annotations

from typing import Any

import click

from edgespec import __version__
from edgespec.cli.bench import bench
from edgespec.cli.chat import chat
from edgespec.cli.doctor import doctor
from edgespec.cli.models import models, pull
from edgespec.cli.run import run
from edgespec.cli.serve import serve


class Ended(Exception):
    """Carries, as its cause, what click would turn into something else (a bare Abort)."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Commands(click.Group):
    """A group that lets interrupts and failed output through to its caller, as `Ended`."""

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


for _command in (bench, chat, doctor, models, pull, run, serve):
    cli.add_command(_command)
