"""`edgespec serve`: the OpenAI-compatible server."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.cli.loading import check_names, model_on_disk, say, with_drafter_path
from edgespec.cli.options import (
    collect_loading,
    collect_sampling,
    load_options_of_several,
    memory_options,
    sampling_options,
)
from edgespec.errors import UsageError
from edgespec.models.store import ModelStore
from edgespec.paths import user_paths
from edgespec.runtime.host import Host
from edgespec.runtime.host_models import HostModel
from edgespec.runtime.request import LoadRequest
from edgespec.types import SamplingParams

if TYPE_CHECKING:
    from edgespec.server import ServerSettings

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Duration(click.ParamType[float | None]):
    """Seconds, or with s, m or h behind; below 0 is never (None)."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | None:  # noqa: ANN401
        """Read what was given."""
        found = re.fullmatch(r"(-?[0-9]+(?:\.[0-9]+)?)([smh]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: give 30s, 5m, 2h, or -1 for never", param, ctx)
        seconds = float(found[1]) * _SECONDS[found[2]]
        return seconds if seconds >= 0 else None


class Size(click.ParamType[int]):
    """Bytes, or with K, M or G behind."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:  # noqa: ANN401
        """Read what was given."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", str(value).upper().removesuffix("B"))
        if found is None:
            self.fail(f"{value!r} is no size: give 6G or 800M", param, ctx)
        return int(float(found[1]) * _BYTES[found[2]])


@click.command()
@load_options_of_several
@memory_options
@sampling_options(default_temperature=0.8)
@click.option(
    "--on-demand", is_flag=True, help="Serve the known models on disk, too, each by its name."
)
@click.option(
    "--memory", type=Size(), metavar="SIZE", help="Most that weights may take, as 6G. [no limit]"
)
@click.option(
    "--keep-alive",
    type=Duration(),
    default="-1",
    metavar="TIME",
    help="Let a model go after so long without a request (30s, 5m, 2h). [default: never]",
)
@click.option("--slots", type=int, default=4, show_default=True, help="Answers computed at a time.")
@click.option("--max-queue", type=int, default=32, show_default=True, help="Requests that wait.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=int, default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keys, one a line, of which requests must carry one; needed beyond loopback.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="URL",
    help="A web page that may use the server, as https://app.example; may be repeated.",
)
@click.option(
    "--grace",
    "grace_s",
    type=float,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long answers may go on once the server is told to end.",
)
@click.option("--log-prompts", is_flag=True, help="Show what is asked on stderr.")
@click.pass_obj
def serve(verbose: bool, /, **values: Any) -> None:  # noqa: ANN401
    """Serve the OpenAI API: /v1/chat/completions and /v1/completions.

    The sampler's options are the defaults of requests that do not say otherwise. The context is
    that of all slots together.
    """
    from edgespec.server import Models, ServerSettings, bind, read_keys  # web libraries load here
    from edgespec.server import serve as serve_models

    references, on_demand = values.pop("models"), values.pop("on_demand")
    if values["workers"] and (on_demand or len(references) > 1):
        raise UsageError("--rpc is for one model: workers serve one client", "serve only that one")
    key_file = values.pop("api_key_file")
    settings = ServerSettings(
        host=values.pop("host"),
        port=values.pop("port"),
        max_queue=values.pop("max_queue"),
        slots=(slots := values.pop("slots")),
        api_keys=read_keys(key_file) if key_file is not None else (),
        cors_origins=values.pop("cors_origins"),
        grace_s=values.pop("grace_s"),
        keep_alive_s=values.pop("keep_alive"),
        memory_bytes=values.pop("memory"),
        log_prompts=values.pop("log_prompts"),
        default_sampling=collect_sampling(values, seed=0),
        verbose=bool(verbose),
    )
    loading = collect_loading(values | {"model": references[0]}, bool(verbose), slots)
    with bind(settings) as listener, contextlib.ExitStack() as hosts:
        sources = _sources(references, loading, settings, hosts, on_demand=on_demand)
        serve_models(Models(sources, settings), settings, listener)


def _sources(
    references: tuple[str, ...],
    loading: LoadRequest,
    settings: ServerSettings,
    hosts: contextlib.ExitStack,
    *,
    on_demand: bool,
) -> list[HostModel]:
    """The models to serve, what is missing pulled; those on disk besides where `on_demand`."""
    for reference in references:
        check_names(dataclasses.replace(loading, model=reference))
    host = hosts.enter_context(Host(user_paths(), verbose=loading.verbose))
    host.start()  # while models are looked for
    paths = {reference: model_on_disk(reference) for reference in references}
    if on_demand:
        paths |= {each.name: each.path for each in ModelStore(user_paths()).list()}
    loading = with_drafter_path(loading)
    sources: dict[str, HostModel] = {}
    for reference, path in paths.items():
        if path.stem in sources:
            if reference in references:
                raise UsageError(f"two models are called {path.stem}", "rename one of the files")
            continue
        if sources:
            host = hosts.enter_context(Host(user_paths(), verbose=loading.verbose))
        options = dataclasses.replace(loading, model=reference)
        sampling: SamplingParams = settings.default_sampling
        sources[path.stem] = HostModel(host, options, path, say, sampling)
    return list(sources.values())
