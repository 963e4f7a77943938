"""`--peer` and `--serve`: other programs, opened for a benchmark and closed at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.errors import UsageError
from edgespec.runtime.request import DEFAULT_CONTEXT, LoadRequest

if TYPE_CHECKING:
    from edgespec.bench.peers import OpenPeer, PeerSpec


def peer_specs(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[PeerSpec, ...]:
    """Reads NAME=URL and NAME=PATH [FLAG ...]; raises UsageError."""
    from edgespec.bench.peers import peer_spec  # the client library loads here

    return tuple(map(peer_spec, texts))


def url_specs(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[PeerSpec, ...]:
    """Reads [NAME=]URL; raises UsageError."""
    from edgespec.bench.peers import url_spec

    return tuple(map(url_spec, texts))


@contextlib.contextmanager
def opened_peers(
    specs: Sequence[PeerSpec], loading: LoadRequest, num_slots: int = 1
) -> Iterator[tuple[list[OpenPeer], list[str]]]:
    """The programs that answer, and why the others are left out; closed at the end.

    Programs that are started get the model, context and threads of `loading`. Raises UsageError for
    a name that is given twice.
    """
    from edgespec.bench.chat_client import PeerError
    from edgespec.bench.peer_process import Served
    from edgespec.bench.peers import open_peer
    from edgespec.cli.loading import model_on_disk
    from edgespec.machine.identity import this_machine

    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise UsageError("two other programs have the same name", "give each its own: NAME=...")
    served = Served(
        model_on_disk(loading.model) if any(spec.program for spec in specs) else Path(),
        loading.num_context or DEFAULT_CONTEXT,
        this_machine(loading.num_threads).num_threads,
        num_slots,
    )
    peers: list[OpenPeer] = []
    left_out: list[str] = []
    with contextlib.ExitStack() as stack:
        for spec in specs:
            try:
                peers.append(open_peer(spec, served))
            except PeerError as error:
                left_out.append(str(error))
            else:
                stack.callback(peers[-1].close)
        yield peers, left_out
