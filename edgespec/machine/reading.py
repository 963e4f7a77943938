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
PIECES = (8, 13, 48)
"""Tokens of a pass: what kernels do at once, more and less, and remainders."""


class ReadingTrial:
    """The comparison in steps of about a hundred tokens, each of which may be repeated."""

    def __init__(self, model: Model, setting: KVSetting, num_threads: int) -> None:
        """Nothing is computed yet."""
        self._model = model
        self._options = ContextOptions(
            num_context=NUM_LONG + NUM_READ + 1,
            num_threads=num_threads,
            num_batch=NUM_READ,
            num_sequences=2,
            type_k=setting.type_k,
            type_v=setting.type_v,
        )
        self._tokens = probe_tokens(model.vocab.num_tokens, NUM_READ + 1)
        self._left = [(place, size) for place in ("short", "long") for size in (NUM_READ, *PIECES)]
        self._state = b""  # of the tokens read whole, for the long place
        self._whole: NDArray[np.float32] | None = None

    def step(self, pause: Pause = NO_PAUSE) -> bool | None:
        """Compare once more: the verdict, or None while there is more to compare.

        False for a model that cannot roll back. Raises what `pause` raises.
        """
        if not self._model.can_roll_back:
            return False
        place, size = self._left[0]
        with Context(self._model, self._options) as context, pause.aborting(context):
            if place == "long":
                append_copies(context, self._state, NUM_LONG // NUM_READ)
            logits = self._read(context, size)
            if not self._state:
                context.remove(NUM_READ)
                self._state = context.save_state()
        if size == NUM_READ:
            self._whole = logits
        elif self._whole is None or not np.array_equal(logits, self._whole):
            return False
        del self._left[0]
        return None if self._left else True

    def _read(self, context: Context, num_tokens: int) -> NDArray[np.float32]:
        """Read in passes of so many tokens, then the last one: logits of two, (2, num_vocab)."""
        start = context.last_position() + 1
        for place in range(0, NUM_READ, num_tokens):
            piece = self._tokens[place : min(place + num_tokens, NUM_READ)]
            context.decode(piece, start + place)
        last = context.logits(0).copy()
        context.decode(self._tokens[NUM_READ:], start + NUM_READ)
        return np.stack([last, context.logits(0)])


def reads_alike(model: Model, setting: KVSetting, num_threads: int) -> bool:
    """The verdict of all steps."""
    trial = ReadingTrial(model, setting, num_threads)
    while (verdict := trial.step()) is None:
        pass
    return verdict
