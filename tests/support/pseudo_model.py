"""The model drafter over a pseudo-model, in toy vocabularies of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from itertools import product

from fakes import FakeClock
from toy_vocabularies import TOYS

from edgespec.drafters.model import ModelDrafter, ModelParts, ModelSession
from edgespec.errors import NativeLibraryError
from edgespec.types import EncodedPrompt
from edgespec.vocab.tokenizer import ByteTokenizer

TOKENIZERS = {name: ByteTokenizer(make()) for name, make in TOYS.items()}
PAIRS = list(product(TOKENIZERS, repeat=2))
SAID = "over the low tokenizer is lower; über 龍河 is lowering.\n\n"
NUM_PROMPT = 3


class PseudoModel:
    """A `DraftModel` that keeps its cells, refuses what no KV cache could do, and says `script`.

    `script` gets the cells and gives token and probability; by default it goes on in `SAID`.
    """

    def __init__(
        self, script: Callable[[Sequence[int]], tuple[int, float]], num_context: int = 4096
    ) -> None:
        self.cells: list[int] = []
        self.num_context, self.num_bytes = num_context, 1000
        self.first_guesses: list[list[int]] = []
        self.num_read = 0
        self.fails = False
        self._script = script
        self._is_read = False

    def read(self, tokens: Sequence[int]) -> None:
        assert tokens
        if self.fails:
            self.cells = []
            raise NativeLibraryError("llama.cpp cannot compute", "")
        self.cells.extend(tokens)
        assert len(self.cells) <= self.num_context
        self.num_read += len(tokens)
        self._is_read = True

    def guess(self) -> tuple[int, float]:
        assert self._is_read, "a guess follows a token that was just read"
        return self._script(self.cells)

    def truncate(self, num_tokens: int) -> None:
        assert 0 <= num_tokens <= len(self.cells)
        self._is_read &= num_tokens == len(self.cells)
        del self.cells[num_tokens:]


def chatter(vocabulary: ByteTokenizer) -> Callable[[Sequence[int]], tuple[int, float]]:
    """Goes on in `SAID` by how much was read; no token of it is a control token."""
    tokens = vocabulary.encode(SAID.encode()).tokens
    return lambda cells: (tokens[len(cells) % len(tokens)], 0.9)


NOTHING = EncodedPrompt(())


def drafter_of(
    target: str, drafter: str, *models: PseudoModel, clock: FakeClock | None = None
) -> ModelDrafter:
    """A drafter whose prompt is always its own tokens 4 to 6."""
    parts = ModelParts(
        "pseudo",
        models,
        (TOKENIZERS[target], TOKENIZERS[drafter]),
        lambda _prompt: list(range(4, 4 + NUM_PROMPT)),
        guess_ms=2.0,
        clock=clock or FakeClock(),
    )
    return ModelDrafter(parts)


def session_of(
    target: str, drafter: str, model: PseudoModel, clock: FakeClock | None = None
) -> ModelSession:
    """Its session for an answer of which nothing was said."""
    return drafter_of(target, drafter, model, clock=clock).open(NOTHING)


def guesses(session: ModelSession, count: int, prefix: Sequence[int] = ()) -> list[int]:
    return [guess.token for guess in itertools.islice(session.propose(prefix), count)]
