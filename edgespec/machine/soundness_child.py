"""The child process of `soundness`: decode tiny models and print their logits as JSON.

A pass of more than 32 rows comes first, because AMX tiles are configured only for several rows,
then one of a single row. Its stdin is a pipe that the parent holds and never writes to: the end of
it is the end of the parent, however that came.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

_NUM_PROMPT = 40


def decode(path: Path, *, use_extra_buffers: bool, num_threads: int) -> list[float]:
    """Logits after a long and a short pass over fixed tokens."""
    # Loading the library may hang: not before somebody waits for the parent's end.
    from edgespec.llama.context import Context, ContextOptions
    from edgespec.llama.model import Model, ModelOptions

    with (
        Model(path, ModelOptions(use_extra_buffers=use_extra_buffers)) as model,
        Context(model, ContextOptions(num_context=256, num_threads=num_threads)) as context,
    ):
        num_vocab = model.vocab.num_tokens
        tokens = [(7 * index) % num_vocab for index in range(_NUM_PROMPT + 1)]
        context.decode(tokens[:-1], 0)
        context.logits(0)
        context.decode(tokens[-1:], _NUM_PROMPT)
        return [float(value) for value in context.logits(0)]


def end_with_parent(folder: Path) -> None:
    """From here on, end this process at once when stdin ends, whatever it is doing.

    A parent that is gone did not delete its `folder`.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str]) -> None:
    """`arguments`: 1 or 0 for extra buffers, threads, model paths."""
    paths = [Path(path) for path in arguments[2:]]
    end_with_parent(paths[0].parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    use_extra_buffers, num_threads = arguments[0] == "1", int(arguments[1])
    logits = [
        decode(path, use_extra_buffers=use_extra_buffers, num_threads=num_threads) for path in paths
    ]
    json.dump(logits, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
