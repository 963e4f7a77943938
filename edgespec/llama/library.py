"""The native library: loading it, its logs, and what it says of its own build.

Importing this module loads llama.cpp, which may fail (NativeLibraryError). Logs of the C code go
nowhere by default; the last errors are kept, because llama.cpp tells why a model failed to load
only there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgespec.errors import NativeLibraryError

try:
    import llama_cpp
    from llama_cpp import llama_cpp as _binding
except (ImportError, OSError, RuntimeError, AttributeError) as error:
    raise NativeLibraryError(
        f"llama.cpp could not be loaded: {error}", "run `make setup` to build it for this machine"
    ) from error

api: Any = _binding
"""The C API as llama-cpp-python binds it: untyped, so typed wrappers stop here."""

_LEVEL_ERROR = 4
_GPU_KINDS = (1, 2)
"""GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU, whose memory is the machine's."""

_recent_errors: deque[str] = deque(maxlen=8)


def _log_quietly(level: int, text: bytes, _user_data: object) -> None:
    if level == _LEVEL_ERROR:
        _recent_errors.append(text.decode("utf-8", "replace").strip())


def _log_verbosely(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace")
    if level == _LEVEL_ERROR:
        _recent_errors.append(line.strip())
    sys.stderr.write(line)


# Kept here because ctypes drops a callback with its last Python reference.
_QUIET = api.llama_log_callback(_log_quietly)
_VERBOSE = api.llama_log_callback(_log_verbosely)


def set_verbose(verbose: bool) -> None:
    """Send llama.cpp's logs to stderr, or nowhere (the state in which this module starts)."""
    api.llama_log_set(_VERBOSE if verbose else _QUIET, ctypes.c_void_p(0))


def forget_errors() -> None:
    """Drop the kept error lines, before a call whose failure is to be explained."""
    _recent_errors.clear()


def last_error() -> str:
    """The most telling error since `forget_errors` that llama.cpp logged, in one line; or empty.

    The first names the cause; those after it only say what failed because of it. They may quote
    a damaged file, so what a terminal might obey is shown as "?".
    """
    line = " ".join(_recent_errors[0].split()) if _recent_errors else ""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def build_features() -> tuple[str, ...]:
    """Instruction sets and options that the library was built with (llama_print_system_info).

    >>> "AVX2" in build_features()  # doctest: +SKIP
    True
    """
    info: str = api.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.partition(" = ") for part in info.replace(":", "|").split("|"))
    return tuple(name.strip() for name, equals, value in pairs if equals and value.strip() != "0")


@lru_cache(maxsize=1)
def build_id() -> str:
    """Names one build of the native library: its version and a hash of its files.

    Changes with anything that may change logits or speed: version, compiler, flags.
    """
    digest = hashlib.sha256()
    for file in _distinct(sorted(library_folder().glob("*ggml*"))):
        digest.update(file.name.encode() + file.read_bytes())
    return f"{llama_cpp.__version__}/{digest.hexdigest()[:16]}"


def _distinct(files: list[Path]) -> list[Path]:
    """One of each library: wheels hold copies where a build has links from one name to another."""
    by_kind = {(file.name.split(".")[0], file.stat().st_size): file for file in files}
    return sorted(by_kind.values())


def library_folder() -> Path:
    """Where the native library's files are (`LLAMA_CPP_LIB_PATH` overrides the package's)."""
    override = os.environ.get("LLAMA_CPP_LIB_PATH")
    return Path(override) if override else Path(llama_cpp.__file__).parent / "lib"


def binding_version() -> str:
    """Version of llama-cpp-python and of the llama.cpp inside it."""
    return f"{llama_cpp.__version__} (llama.cpp {api.llama_version().decode('utf-8', 'replace')})"


def native_function(name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - C's types
    """A function of llama.cpp or ggml that the binding leaves out, with its C types."""
    function = getattr(_binding._lib, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


def gpus() -> list[int]:
    """Handles of this machine's GPUs that the build can use (Metal, CUDA, Vulkan)."""
    count = native_function("ggml_backend_dev_count", ctypes.c_size_t)
    get = native_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind = native_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    devices = [get(index) for index in range(count())]
    return [device for device in devices if kind(device) in _GPU_KINDS]


def supports_gpu_offload() -> bool:
    """True if layers can be put on a GPU of this machine.

    llama_supports_gpu_offload says so of every build that knows workers.
    """
    return bool(gpus())


set_verbose(False)
api.llama_backend_init()
