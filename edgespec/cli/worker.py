"""`edgespec worker`: this machine computes layers of models that others load."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable

import click

from edgespec.errors import BusyError, NativeLibraryError, NetworkError, UsageError
from edgespec.runtime.request import check_threads
from edgespec.workers import check_worker, is_open_to_others

DEFAULT_PORT = 50052
"""As llama.cpp's own rpc-server has it."""

_ALL = "0.0.0.0"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=int, default=DEFAULT_PORT, show_default=True, help="0 takes a free one."
)
@click.option("--threads", type=int, metavar="N", help="[default: physical cores]")
@click.option(
    "--insecure-network",
    is_flag=True,
    help="Listen beyond loopback: whoever reaches the port may use, and take over, this process.",
)
@click.pass_obj
def worker(
    verbose: bool, /, host: str, port: int, threads: int | None, insecure_network: bool
) -> None:
    """Hold and compute layers of a model for another machine, which names it with --rpc.

    One client at a time. llama.cpp's protocol has neither passwords nor encryption: use it in a
    network that only you are in.
    """
    check_threads(threads)
    address, port = _free_port(host, port)
    if is_open_to_others(address) and not insecure_network:
        raise UsageError(
            f"a worker at {host} is open to everyone who reaches it: the protocol has no passwords",
            "keep to 127.0.0.1 (and a tunnel), or say --insecure-network in a network of your own",
        )
    serve = _sound_server(threads, verbose=verbose)
    # What llama.cpp prints is not ours.
    os.dup2(2 if verbose else os.open(os.devnull, os.O_WRONLY), 1)
    thread = threading.Thread(target=serve, args=(address, port), name="worker", daemon=True)
    thread.start()
    try:
        if _does_listen(thread, "127.0.0.1" if address == _ALL else address, port):
            click.echo(f"EdgeSpec works for others at {address}:{port} (Ctrl-C stops it)", err=True)
        thread.join()
    except KeyboardInterrupt:
        os._exit(0)  # the thread never leaves llama.cpp, and nothing is to be written down
    raise NativeLibraryError("llama.cpp listens no more", "start the worker again")


def _free_port(host: str, port: int) -> tuple[str, int]:
    """The numeric address and a port that can be had there; raises UsageError and BusyError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise BusyError(
                    f"{host} port {port} is taken by another program",
                    "stop it or choose another --port (0: any)",
                ) from error
            raise UsageError(
                f"cannot listen on {host} port {port}: {getattr(error, 'strerror', '') or error}",
                "choose another --host (an IPv4 address of this machine) or --port",
            ) from error
        address, port = listener.getsockname()
        return address, port


def _sound_server(num_threads: int | None, *, verbose: bool) -> Callable[[str, int], None]:
    """llama.cpp's server, once the library has proved sound; raises NativeLibraryError."""
    from edgespec.cache.database import open_or_go_without
    from edgespec.cache.facts import Facts
    from edgespec.cli.loading import say
    from edgespec.llama import library, rpc
    from edgespec.machine.facts import known_soundness
    from edgespec.machine.identity import this_machine
    from edgespec.paths import user_paths

    library.set_verbose(verbose)
    machine = this_machine(num_threads)
    with open_or_go_without(user_paths().database, say) as database:
        known_soundness(Facts(database), machine)
    rpc.check_build()
    return lambda address, port: rpc.serve(address, port, machine.num_threads)


def _does_listen(thread: threading.Thread, address: str, port: int) -> bool:
    """Wait until the server greets back; False if its thread ends instead."""
    while thread.is_alive():
        with contextlib.suppress(NetworkError):
            check_worker(f"{address}:{port}")
            return True
        time.sleep(0.02)
    return False
