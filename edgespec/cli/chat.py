"""`edgespec chat`: the terminal app."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.catalog import AcceptTerms, Catalog, PullMeter, PullState
from edgespec.cli.loading import check_names, with_drafter_path
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    memory_options,
    sampling_options,
)
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.models.resolve import locate
from edgespec.paths import Paths, user_paths
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.runtime.catalog import LocalCatalog
from edgespec.runtime.host import Host
from edgespec.runtime.request import BEST_DRAFTER, LoadRequest

if TYPE_CHECKING:
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
    loading = collect_loading(values, bool(verbose))
    seed = values.pop("seed")
    sampling = collect_sampling(values, secrets.randbits(31) if seed is None else seed)
    check_max_tokens(values["max_tokens"])
    check_names(loading)
    paths = user_paths()
    with Host(paths, verbose=loading.verbose and not sys.stderr.isatty()) as host:
        host.start()
        from edgespec.tui import ChatOptions, TermsQuestion, run_chat  # the host gets ready

        options = ChatOptions(
            system=values["system"],
            sampling=sampling,
            max_tokens=values["max_tokens"],
            initial_message=message,
            pull_when_loaded=_missing_drafter(loading, paths),
        )
        catalog, terms = LocalCatalog(paths, loading.num_context), TermsQuestion()
        load = loader(host, loading, sampling, catalog, terms)
        outcome = run_chat(load, options, catalog, terms)
    if outcome.message:
        click.echo(f"edgespec: {outcome.message}", err=True)
    return outcome.exit_code


def loader(
    host: Host,
    loading: LoadRequest,
    sampling: SamplingParams,
    catalog: Catalog,
    accept_terms: AcceptTerms,
) -> Callable[[Report], Completer]:
    """What the app calls while it shows: pulls what is missing and loads it, telling how far."""

    def load(report: Report) -> Completer:
        def on_disk(name: str) -> Path:
            meter = PullMeter(name, lambda state: report(fetching(state)))
            return catalog.pull(name, meter, accept_terms, lambda: False)

        path = on_disk(loading.model)
        host.load(with_drafter_path(loading, on_disk), path, report, sampling)
        return host

    return load


def fetching(state: PullState) -> str:
    """A line of progress about a pull without which there is no answer."""
    return f"fetching {state.name}: {state.describe()} · Ctrl+Q keeps what came"


def _missing_drafter(loading: LoadRequest, paths: Paths) -> str | None:
    """The drafter that goes with the default target, if it is to be pulled yet."""
    is_wanted = (loading.model, loading.drafter) == (DEFAULT_TARGET, BEST_DRAFTER)
    return DEFAULT_DRAFTER if is_wanted and locate(DEFAULT_DRAFTER, paths) is None else None
