"""Puts a model that crashes on command in the place of llama.cpp, in host processes only.

Python runs this before anything else when its folder is on PYTHONPATH. The model says again what it
is told, but "die SIGSEGV" and the like, said or as a model's name, end the process so.
"""

from __future__ import annotations

import os
import signal
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgespec.paths import Paths
    from edgespec.types import Chunk, CompletionRequest


def die(words: str) -> None:
    """End this process if `words` say so, as a native library would."""
    if words.startswith("die "):
        name = words.split()[1]
        if name == "MemoryError":
            raise MemoryError
        if name == "exit":
            sys.stderr.write("ImportError: a part is missing\n")
            sys.stderr.flush()
            os._exit(3)
        sys.stderr.write("ggml.c:1: GGML_ASSERT(tokens > 0) failed\n")
        sys.stderr.flush()
        signal.raise_signal(signal.Signals[name])  # in this thread: nothing more comes of it


def load(
    _options: object, path: Path, paths: Paths, report: Callable[[str], None]
) -> types.SimpleNamespace:
    """Stands for `edgespec.runtime.running.load`."""
    from server_support import EchoCompleter

    from edgespec.models.trials import Trials

    class Crashing(EchoCompleter):
        def _say(
            self, request: CompletionRequest, cancelled: threading.Event, number: int
        ) -> Iterator[Chunk]:
            prompt = request.prompt
            die(prompt if isinstance(prompt, str) else prompt[-1].content)
            yield from super()._say(request, cancelled, number)

    report(f"loading {path.stem}")
    with Trials(paths.trials).loading(path):
        die(path.stem)
    token_s = float(os.environ.get("TOKEN_S", "0"))
    return types.SimpleNamespace(
        completer=Crashing(token_s=token_s),
        memory=None,
        close=lambda: None,
        forget=lambda _conversation: None,
    )


if "edgespec.runtime.host_child" in sys.orig_argv:
    running = types.ModuleType("edgespec.runtime.running")
    running.load = load  # type: ignore[attr-defined]
    sampler = types.ModuleType("edgespec.llama.sampler")
    sampler.check_sampling = lambda *_args, **_more: None  # type: ignore[attr-defined]
    sys.modules["edgespec.runtime.running"] = running
    sys.modules["edgespec.llama.sampler"] = sampler
