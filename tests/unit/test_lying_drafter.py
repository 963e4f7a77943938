"""A drafter that always lies, and is sure of itself, costs at most 3 % of plain decoding.

Nothing is timed: passes cost what a table of T(r) says, guesses what the drafter says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from fakes import FakeClock, FakeSampler, FakeTarget, collect, joined
from toy_vocabularies import TOYS

from edgespec.drafters.model import ModelDrafter
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.planning.cost import CostModel, CostTable
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.tokenizer import ByteTokenizer

TOY = TOYS["bpe"]()
VOCABULARY = ByteTokenizer(TOY)
MEASURED = {1: 30.0, 2: 35.0, 4: 48.0, 8: 76.0, 16: 140.0}
"""T(r) of a 1.5B model, Q4_K_M, on two cores."""

NUM_TOKENS = 400
MOST_LOSS = 1.03


class Liar:
    """A `DraftModel` that knows what the target will say, and says something else."""

    num_context = 4096

    def __init__(self, target: FakeTarget, lies: Callable[[int], bool]) -> None:
        self.cells: list[int] = []
        self.num_guesses = 0
        self._target = target
        self._lies = lies

    def read(self, tokens: Sequence[int]) -> None:
        self.cells.extend(tokens)

    def guess(self) -> tuple[int, float]:
        self.num_guesses += 1
        truth = self._target.next_token(self.cells)
        lie = truth + 1 if truth + 1 < self._target.num_vocab else 40
        return (lie if self._lies(len(self.cells)) else truth), 0.97

    def truncate(self, num_tokens: int) -> None:
        del self.cells[num_tokens:]


def relative_cost(lies: Callable[[int], bool], guess_ms: float) -> float:
    """What an answer costs with this drafter, over what it costs plainly."""
    target = FakeTarget(num_vocab=TOY.num_tokens, num_context=1024, max_rows=16)
    model = Liar(target, lies)
    drafter = ModelDrafter(
        "liar",
        model,
        (VOCABULARY, VOCABULARY),
        lambda _prompt: prompt,
        NgramCache(),
        guess_ms,
        FakeClock(tick=guess_ms / 1e3),
    )
    prompt = [60, 61, 62]
    curve = CostModel(CostTable(8, 2048, MEASURED, MEASURED), 16)
    prices: list[float] = curve.curve_ms(0).tolist()
    clock = FakeClock()
    engine = Engine(target, [drafter], curve, clock)
    target.on_pass = lambda tokens: setattr(clock, "_tick", prices[len(tokens) - 1] / 1e3)
    said = joined(collect(engine, prompt, FakeSampler(), Limits(NUM_TOKENS)))
    assert len(said) == NUM_TOKENS
    passes = sum(prices[len(tokens) - 1] for tokens in target.passes)
    return (passes + model.num_guesses * guess_ms) / ((NUM_TOKENS - 1) * prices[0])


@pytest.mark.parametrize("guess_ms", [0.5, 2.0, 4.0, 8.0, 15.0])
def test_one_that_always_lies(guess_ms: float) -> None:
    assert relative_cost(lambda _length: True, guess_ms) < MOST_LOSS


@pytest.mark.parametrize("guess_ms", [2.0, 8.0])
def test_one_that_begins_to_lie_within_the_answer(guess_ms: float) -> None:
    assert relative_cost(lambda length: length > 100, guess_ms) < MOST_LOSS


@pytest.mark.parametrize(("guess_ms", "most"), [(2.0, 0.85), (8.0, 0.93)])
def test_one_that_tells_the_truth_at_last_is_believed(guess_ms: float, most: float) -> None:
    assert relative_cost(lambda length: length < 150, guess_ms) < most
