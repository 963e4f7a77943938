"""`edgespec chat`: the terminal app."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from edgespec.cli.loading import model_on_disk, pull_all, with_drafter_path
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    memory_options,
    sampling_options,
)
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.paths import user_paths
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.runtime.host import Host


@click.command()
@load_options
@memory_options
@sampling_options(default_temperature=0.7)
@click.option("--seed", type=int, help="Of the random draws. [default: another every time]")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=int, metavar="N", help="Of each answer.")
@click.argument("message", required=False)
@click.pass_obj
def chat(verbose: bool, /, message: str | None, **values: Any) -> int:  # noqa: ANN401
    """Chat in the terminal; MESSAGE, if given, is sent at once. F1 shows the keys."""
    loading = collect_loading(values, bool(verbose))
    seed = values.pop("seed")
    sampling = collect_sampling(values, secrets.randbits(31) if seed is None else seed)
    check_max_tokens(values["max_tokens"])
    with Host(user_paths(), verbose=loading.verbose and not sys.stderr.isatty()) as host:
        host.start()
        from edgespec.tui import ChatOptions, run_chat  # the host gets ready meanwhile

        options = ChatOptions(
            system=values["system"],
            sampling=sampling,
            max_tokens=values["max_tokens"],
            initial_message=message,
            keys=user_paths().keys,
        )
        if loading.model == DEFAULT_TARGET:
            pull_all([DEFAULT_TARGET, DEFAULT_DRAFTER])
        path, request = model_on_disk(loading.model), with_drafter_path(loading)

        def load(report: Report) -> Completer:
            host.load(request, path, report, sampling)
            return host

        outcome = run_chat(load, options)
    if outcome.message:
        click.echo(f"edgespec: {outcome.message}", err=True)
    return outcome.exit_code
