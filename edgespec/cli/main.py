"""The `edgespec` command: the group of subcommands, and the one place where errors become lines."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from edgespec import __version__
from edgespec.cli.bench import bench
from edgespec.cli.chat import chat
from edgespec.cli.doctor import doctor
from edgespec.cli.models import models, pull
from edgespec.cli.run import run
from edgespec.cli.serve import serve
from edgespec.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EdgeSpecError


class Terminated(BaseException):
    """SIGTERM arrived: unwind as after Ctrl-C, so that nothing half-done stays behind."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgespec")
@click.option("--verbose", is_flag=True, help="Show llama.cpp's logs, and tracebacks of errors.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Local language models, faster, byte for byte the same."""
    context.obj = verbose


for _command in (bench, chat, doctor, models, pull, run, serve):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; a user never sees a traceback unless asked for."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = cli.main(words, prog_name="edgespec", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except EdgeSpecError as error:
        _fail(str(error), error.exit_code, words)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", EXIT_INTERRUPTED, words)
    except Terminated:
        _fail("stopped", EXIT_TERMINATED, words)
    except BrokenPipeError:  # the reader of our output left; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("not enough memory; use a smaller model or --context", 1, words)
    except Exception as error:  # noqa: BLE001 - a user must not meet a traceback, see the docstring
        _fail(f"unexpected {type(error).__name__}: {error}; please report this", 1, words)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _fail(message: str, exit_code: int, words: Sequence[str]) -> NoReturn:
    if "--verbose" in words:
        traceback.print_exc()
    line = " ".join(message.split())
    click.echo(f"edgespec: {line}", err=True)
    sys.exit(exit_code)
