"""`edgespec chat`: the terminal app."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

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
from edgespec.errors import Cancelled, LoadCancelled
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.models.resolve import locate
from edgespec.paths import Paths, user_paths
from edgespec.protocols import Completer
from edgespec.reports import Report
from edgespec.runtime.catalog import LocalCatalog
from edgespec.runtime.host import Host
from edgespec.runtime.request import BEST_DRAFTER, LoadRequest

_CACHE_BYTES = 8 << 20
_OF_CHATS = ("continued", "is_list", "search", "export", "imported")

if TYPE_CHECKING:
    from edgespec.chats import Chat, History
    from edgespec.tui import Services, TermsQuestion
    from edgespec.types import SamplingParams


@click.command()
@load_options
@memory_options
@sampling_options(default_temperature=0.7)
@click.option("--seed", type=int, help="Of the random draws. [default: another every time]")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=int, metavar="N", help="Of each answer.")
@click.option(
    "--continue", "continued", metavar="ID", help="Go on with a chat, or with the `last`."
)
@click.option("--inline", is_flag=True, help="Chat below the prompt; the last answer stays there.")
@click.option("--list", "is_list", is_flag=True, help="Print the chats and end.")
@click.option("--search", metavar="TEXT", help="Print messages with all of these words and end.")
@click.option("--export", metavar="ID", help="Print a chat, or the `last`, and end.")
@click.option(
    "--format", "form", type=click.Choice(["md", "json"]), default="md", show_default=True,
    help="Of --export: what is shown, or all versions.",
)  # fmt: skip
@click.option("--output", "-o", metavar="FILE", help="Of --export, instead of stdout.")
@click.option(
    "--import", "imported", metavar="FILE",
    help="Add chats of EdgeSpec (JSON), ChatGPT or Open WebUI and end.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Of --list and --search: print JSON.")
@click.argument("message", required=False)
@click.pass_obj
def chat(verbose: bool, /, message: str | None, **values: Any) -> int:  # noqa: ANN401
    """Chat in the terminal; MESSAGE, if given, is sent at once. F1 shows the keys.

    An ID may be cut short as long as it is the only one that begins so.
    """
    continued = values["continued"]
    if any(values[name] not in (None, False) for name in _OF_CHATS):
        from edgespec.cli.chats import chat_id, chats_command  # reads the database

        if chats_command(values):
            return 0
        continued = chat_id(continued)
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
            chat=continued,
            incognito=not loading.remember,
            pull_when_loaded=_missing_drafter(loading, paths),
            inline=values["inline"],
            model=loading.model,
            drafter=loading.drafter,
            are_named=_are_named(),
        )
        loader = Loader(host, loading, sampling, LocalCatalog(paths, loading.num_context))
        loader.accept_terms = terms = TermsQuestion()
        with chat_services(paths, loader, terms, keeps=loading.remember) as services:
            outcome = run_chat(loader, options, services)
    if outcome.said:
        click.echo(outcome.said)
    if outcome.message:
        click.echo(f"edgespec: {outcome.message}", err=True)
    return outcome.exit_code


class Loader:
    """What the app calls while it shows: pulls what is missing and loads it, telling how far."""

    def __init__(
        self, host: Host, request: LoadRequest, sampling: SamplingParams, catalog: Catalog
    ) -> None:
        """`request` is what was asked for on the command line."""
        self.accept_terms: AcceptTerms = lambda _model: False
        self.catalog = catalog
        self._host = host
        self._request = request
        self._sampling = sampling
        self._is_cancelled = threading.Event()

    def __call__(self, report: Report) -> Completer:
        """Load what was asked for."""
        self._load(self._request, report)
        return self._host

    def load(self, model: str | None, drafter: str | None, report: Report) -> Completer:
        """Load another model, or another drafter; None is the one before."""
        request = dataclasses.replace(
            self._request,
            model=model or self._request.model,
            drafter=drafter or self._request.drafter,
            drafter_path=None,
        )
        self._load(request, report)
        self._request = request
        return self._host

    def forget(self, chat: str) -> None:
        """Delete what was computed of a chat that is deleted."""
        self._host.forget(chat)

    def cancel(self) -> None:
        """Take back what is being loaded, from any thread: LoadCancelled is raised there."""
        self._is_cancelled.set()
        self._host.cancel_load()

    def _load(self, request: LoadRequest, report: Report) -> None:
        self._is_cancelled.clear()

        def on_disk(name: str) -> Path:
            meter = PullMeter(name, lambda state: report(fetching(state)))
            return self.catalog.pull(name, meter, self.accept_terms, self._is_cancelled.is_set)

        try:
            path = on_disk(request.model)
            request = with_drafter_path(request, on_disk)
        except Cancelled as stop:
            raise LoadCancelled("the model was not pulled: it was cancelled") from stop
        if self._is_cancelled.is_set():
            raise LoadCancelled("the model was not loaded: it was cancelled")
        self._host.load(request, path, report, self._sampling)


@contextlib.contextmanager
def chat_services(
    paths: Paths, loader: Loader, terms: TermsQuestion, *, keeps: bool
) -> Iterator[Services]:
    """What the app is given besides a completer; without `keeps` no chats are kept.

    What reads the database is imported when it is first needed: it is not for the first frame.
    """
    from edgespec.tui import Services

    def history(report: Report) -> History:
        from edgespec.runtime.history import open_kept_history

        return opened.enter_context(open_kept_history(paths.database, report, loader.forget))

    def write(chat: Chat, form: str) -> str:
        from edgespec.cache.chats.as_markdown import markdown_of
        from edgespec.cache.chats.chat_files import chat_file

        return chat_file(chat) if form == "json" else markdown_of(chat)

    def take_in(path: Path) -> int:
        from edgespec.cache.chats.chat_files import import_chats
        from edgespec.cache.database import BUSY_TIMEOUT_S, connect

        with contextlib.closing(
            connect(paths.database, BUSY_TIMEOUT_S, _CACHE_BYTES)
        ) as connection:
            return import_chats(connection, path).num_new

    with contextlib.ExitStack() as opened:
        yield Services(
            history=history if keeps else None,
            catalog=loader.catalog,
            terms=terms,
            load=loader.load,
            cancel_load=loader.cancel,
            write_chat=write,
            read_chats=take_in if keeps else None,
            preferences=paths.data / "chat.json",
            keys=paths.keys,
        )


def _are_named() -> bool:
    """Whether the command line says which model or drafter it is to be."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is not ParameterSource.DEFAULT for name in ("model", "drafter"))


def fetching(state: PullState) -> str:
    """A line of progress about a pull without which there is no answer."""
    return f"fetching {state.name}: {state.describe()} · Ctrl+Q keeps what came"


def _missing_drafter(loading: LoadRequest, paths: Paths) -> str | None:
    """The drafter that goes with the default target, if it is to be pulled yet."""
    is_wanted = (loading.model, loading.drafter) == (DEFAULT_TARGET, BEST_DRAFTER)
    return DEFAULT_DRAFTER if is_wanted and locate(DEFAULT_DRAFTER, paths) is None else None
