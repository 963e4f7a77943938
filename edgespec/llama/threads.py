"""Worker threads that wait between passes.

Left to itself, ggml starts new threads for every pass and ends them after it: 0.2 ms, a twentieth
of what a small drafter takes. A pool is handed to the contexts that use it instead; the contexts of
one pool must not compute at the same time. Its threads sleep while there is nothing to do.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from edgespec.llama.library import api

_MOST_THREADS = 512  # GGML_MAX_N_THREADS
_USUAL_POLL = 50
_PROBE = 7  # a number of threads to find again


class _PoolParams(ctypes.Structure):
    """`struct ggml_threadpool_params`, which the Python binding lacks."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * _MOST_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ThreadPool:
    """Threads for the passes of one or more contexts (ggml_threadpool); close those first."""

    def __init__(self, num_threads: int) -> None:
        """Start `num_threads - 1` threads; the one that asks for a pass is the last.

        Where the library has no pools, or others than these, contexts go on as without.
        """
        self._handle: int | None = None
        functions = _functions()
        if functions is None or num_threads < 2:
            return
        params = _params(functions, num_threads)
        if params is not None:
            self._handle = functions.ggml_threadpool_new(ctypes.byref(params))

    @property
    def is_open(self) -> bool:
        """Whether there are threads."""
        return self._handle is not None

    def attach(self, context: object) -> None:
        """Let the passes of a `llama_context *` be computed by this pool."""
        functions = _functions()
        if functions is not None and self._handle is not None:
            functions.llama_attach_threadpool(context, self._handle, self._handle)

    def close(self) -> None:
        """End the threads."""
        functions = _functions()
        if functions is not None and self._handle is not None:
            functions.ggml_threadpool_free(self._handle)
            self._handle = None


def _params(functions: Any, num_threads: int) -> _PoolParams | None:  # noqa: ANN401 - a library
    """Parameters of a pool without busy waiting; None if the structure is another than here."""
    room = (ctypes.c_char * (2 * ctypes.sizeof(_PoolParams)))()
    params = _PoolParams.from_buffer(room)
    functions.ggml_threadpool_params_init(ctypes.byref(params), _PROBE)
    if (params.n_threads, params.poll, params.paused) != (_PROBE, _USUAL_POLL, False):
        return None
    functions.ggml_threadpool_params_init(ctypes.byref(params), num_threads)
    params.poll = 0
    return params


@cache
def _functions() -> Any | None:  # noqa: ANN401 - a library
    """The library with its functions declared; None if it does not show them (Windows)."""
    library = api._lib
    try:
        library.ggml_threadpool_params_init.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.ggml_threadpool_params_init.restype = None
        library.ggml_threadpool_new.argtypes = [ctypes.c_void_p]
        library.ggml_threadpool_new.restype = ctypes.c_void_p
        library.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        library.ggml_threadpool_free.restype = None
        library.llama_attach_threadpool.argtypes = [ctypes.c_void_p] * 3
        library.llama_attach_threadpool.restype = None
    except AttributeError:
        return None
    return library
