"""llama.cpp's RPC backend: layers placed on workers, and a worker that serves others.

Devices of workers are handed to one model only and never registered, so whatever else is loaded
(drafters, self-checks) stays on this machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.errors import ModelFileError, NativeLibraryError, NetworkError
from edgespec.llama.library import api, gpus, native_function
from edgespec.workers import MOST_WORKERS, check_worker

_NO_REUSE = "LLAMA_GRAPH_REUSE_DISABLE"
"""Read by llama_init_from_model."""

_CPU = 0
"""GGML_BACKEND_DEVICE_TYPE_CPU."""

_PARTS = 16
"""Memory is shared out in sixteenths, so that a little more or less of it moves no layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The devices that a model is spread over, and how much of it each gets.

    `key` names both, for what is remembered of the model: other workers have other kernels, speed
    and rounding.
    """

    devices: ctypes.Array[ctypes.c_void_p]
    shares: ctypes.Array[ctypes.c_float]
    key: str


def place(path: Path, workers: tuple[str, ...]) -> Placement:
    """Spread the model at `path` over `workers` and the GPUs here, by their free memory.

    Raises NetworkError where a worker would not serve us, NativeLibraryError in a build without
    RPC, ModelFileError for a model that is too large.
    """
    add_server = _rpc_function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    for worker in workers:
        check_worker(worker)
    devices = [
        (name, device)
        for name in workers
        for device in _devices_of(add_server(name.encode()), name)
    ]
    devices += [("here", device) for device in gpus()]
    devices = devices[:MOST_WORKERS]
    memory = [_memory(device) for _, device in devices]
    num_free = sum(free for free, _ in memory)
    if num_free < path.stat().st_size:
        raise ModelFileError(
            f"{path.name} does not fit: the workers have {num_free / 1e9:.1f} GB free",
            "add a worker or use a smaller model",
        )
    parts = [max(round(_PARTS * free / num_free), 1) for free, _ in memory]
    key = ",".join(
        f"{name}/{total >> 20}/{part}"
        for (name, _), (_, total), part in zip(devices, memory, parts, strict=True)
    )
    handles = (ctypes.c_void_p * (len(devices) + 1))(*(device for _, device in devices))
    shares = (ctypes.c_float * api.llama_max_devices())(*parts)
    return Placement(handles, shares, key)


@contextlib.contextmanager
def graphs_built_anew() -> Iterator[None]:
    """Contexts that are made in this block build the graph of each pass anew.

    A worker drops the graph that it would compute again whenever any context's memory is freed; the
    client does not know, asks for it, and is cut off. Or it gets the graph of another context.
    """
    before = os.environ.get(_NO_REUSE)
    os.environ[_NO_REUSE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_REUSE]
        else:
            os.environ[_NO_REUSE] = before


def check_build() -> None:
    """Raises NativeLibraryError in a build without RPC."""
    _rpc_function("ggml_backend_rpc_start_server", None)


def serve(host: str, port: int, num_threads: int) -> None:
    """Compute for one client after the other at a numeric IPv4 address.

    Returns, having said why on stderr, only where it cannot listen. With the GPUs, or with the CPU
    where there are none. Raises NativeLibraryError in a build without RPC.
    """
    by_kind = native_function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
    devices = gpus() or [by_kind(_CPU)]
    start = _rpc_function(
        "ggml_backend_rpc_start_server",
        None,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    handles = (ctypes.c_void_p * len(devices))(*devices)
    start(f"{host}:{port}".encode(), None, num_threads, len(devices), handles)


def _rpc_function(name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - C has no types
    """A function of the RPC backend, which not every build has."""
    by_name = native_function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)
    look_up = native_function(
        "ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
    )
    backend = by_name(b"RPC")
    address = look_up(backend, name.encode()) if backend else None
    if not address:
        raise NativeLibraryError(
            "this build of llama.cpp knows no workers", "run `make setup` to build one that does"
        )
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def _devices_of(backend: int | None, worker: str) -> list[int]:
    """Handles of a worker's devices, by what `ggml_backend_rpc_add_server` returned."""
    if not backend:
        raise NetworkError(f"the worker {worker} has no device", "use another worker")
    count = native_function("ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)
    get = native_function(
        "ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    )
    return [get(backend, index) for index in range(count(backend))]


def _memory(device: int) -> tuple[int, int]:
    """Free and total bytes of a device."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask = native_function(
        "ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
    )
    ask(device, ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value
