"""The child process of `soundness`: decode tiny models and print their logits as JSON.

A pass of more than 32 rows comes first, because AMX tiles are configured only for several rows,
then one of a single row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions

_NUM_PROMPT = 40


def decode(path: Path, *, use_extra_buffers: bool, num_threads: int) -> list[float]:
    """Logits after a long and a short pass over fixed tokens."""
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


def main(arguments: list[str]) -> None:
    """`arguments`: 1 or 0 for extra buffers, threads, model paths."""
    use_extra_buffers, num_threads = arguments[0] == "1", int(arguments[1])
    logits = [
        decode(Path(path), use_extra_buffers=use_extra_buffers, num_threads=num_threads)
        for path in arguments[2:]
    ]
    json.dump(logits, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
