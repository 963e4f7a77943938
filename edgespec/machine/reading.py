"""Whether a text that is read in pieces gives the bits of one that is read whole.

    before   nothing, or 576 cells (beyond 512 ggml's kernels change)
    whole    [t0 .. t95]  then t96: the reference
    pieces   [t0 .. t7] [t8 .. t15] ..., for several sizes: compared

Then a prompt can be read a little at a time beside the answers of others, and nobody can tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.machine.probe import NUM_LONG, KVSetting, append_copies, probe_tokens
from edgespec.pauses import NO_PAUSE, Pause

NUM_READ = 96
PIECES = (8, 13, 16, 30, 48, 71)
"""Tokens of a pass: what kernels do at once, more and less, and remainders of all kinds."""


def reads_alike(
    model: Model, setting: KVSetting, num_threads: int, pause: Pause = NO_PAUSE
) -> bool:
    """Compare the logits of the last token, and of the next; raises what `pause` raises.

    Takes about as long as reading 1,500 tokens. False for a model that cannot roll back.
    """
    if not model.can_roll_back:
        return False
    options = ContextOptions(
        num_context=NUM_LONG + NUM_READ + 1,
        num_threads=num_threads,
        num_batch=NUM_READ,
        num_sequences=2,
        type_k=setting.type_k,
        type_v=setting.type_v,
    )
    tokens = probe_tokens(model.vocab.num_tokens, NUM_READ + 1)
    with Context(model, options) as context, pause.aborting(context):
        if not _is_alike(context, tokens):
            return False
        context.remove(NUM_READ)
        append_copies(context, context.save_state(), NUM_LONG // NUM_READ - 1)
        return _is_alike(context, tokens)


def _is_alike(context: Context, tokens: list[int]) -> bool:
    """Compare at the end of what the context holds."""
    start = context.last_position() + 1
    whole = _read(context, tokens, start, NUM_READ)
    return all(
        np.array_equal(whole, _read(context, tokens, start, num_tokens)) for num_tokens in PIECES
    )


def _read(context: Context, tokens: list[int], start: int, num_tokens: int) -> NDArray[np.float32]:
    """Read in passes of so many tokens, and then the last one: logits of two, (2, num_vocab)."""
    if context.last_position() >= start:
        context.remove(start)
    for place in range(0, NUM_READ, num_tokens):
        context.decode(tokens[place : min(place + num_tokens, NUM_READ)], start + place)
    last = context.logits(0).copy()
    context.decode(tokens[NUM_READ:], start + NUM_READ)
    return np.stack([last, context.logits(0)])
