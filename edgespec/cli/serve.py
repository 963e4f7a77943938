"""`edgespec serve`: the OpenAI-compatible server."""

from __future__ import annotations

from typing import Any

import click

from edgespec.cli.loading import loaded_host
from edgespec.cli.options import (
    collect_loading,
    collect_sampling,
    load_options,
    memory_options,
    sampling_options,
)


@click.command()
@load_options
@memory_options
@sampling_options(default_temperature=0.8)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback addresses only.")
@click.option("--port", type=int, default=8080, show_default=True, help="0 takes a free one.")
@click.option("--max-queue", type=int, default=8, show_default=True, help="Requests that may wait.")
@click.pass_obj
def serve(verbose: bool, /, host: str, port: int, max_queue: int, **values: Any) -> None:  # noqa: ANN401
    """Serve the OpenAI API on this machine: /v1/chat/completions and /v1/completions.

    The sampler's options are the defaults of requests that do not say otherwise.
    """
    from edgespec.server import ServerSettings, bind  # web libraries load only here
    from edgespec.server import serve as serve_completer

    loading = collect_loading(values, bool(verbose))
    settings = ServerSettings(
        host=host,
        port=port,
        max_queue=max_queue,
        default_sampling=collect_sampling(values, seed=0),
        verbose=bool(verbose),
    )
    sampling = settings.default_sampling
    with bind(settings) as listener, loaded_host(loading, sampling) as completer:
        serve_completer(completer, settings, listener)
