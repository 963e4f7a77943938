"""`edgespec chat`: the terminal app."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
from edgespec.runtime.request import LoadRequest

if TYPE_CHECKING:
    from edgespec.protocols import Completer
    from edgespec.types import SamplingParams


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
    from edgespec.tui import ChatOptions, run_chat

    loading = collect_loading(values, bool(verbose))
    seed = values.pop("seed")
    sampling = collect_sampling(values, secrets.randbits(31) if seed is None else seed)
    check_max_tokens(values["max_tokens"])
    if loading.model == DEFAULT_TARGET:
        pull_all([DEFAULT_TARGET, DEFAULT_DRAFTER])
    options = ChatOptions(
        system=values["system"],
        sampling=sampling,
        max_tokens=values["max_tokens"],
        initial_message=message,
    )
    # The model's thread needs the interpreter's lock once a pass, between two of them: let drawing
    # hand it over ten times sooner than by default.
    sys.setswitchinterval(0.0005)
    with contextlib.ExitStack() as cleanup:
        outcome = run_chat(_factory(loading, sampling, cleanup), options)
        if outcome.message:
            click.echo(f"edgespec: {outcome.message}", err=True)
        if outcome.still_running:  # a load is under way: freeing the model under it would crash
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(outcome.exit_code)
    return outcome.exit_code


def _factory(
    loading: LoadRequest, sampling: SamplingParams, cleanup: contextlib.ExitStack
) -> Callable[[Callable[[str], None]], Completer]:
    """Builds the completer in the app's thread; `cleanup` closes it when the app has ended."""
    path, options = model_on_disk(loading.model), with_drafter_path(loading)

    def build(report: Callable[[str], None]) -> Completer:
        from edgespec.llama.sampler import check_sampling
        from edgespec.runtime.running import load  # loads the native library

        check_sampling(sampling, num_vocab=0)  # no option biases single tokens
        loaded = cleanup.enter_context(load(options, path, user_paths(), report))
        return loaded.completer

    return build
