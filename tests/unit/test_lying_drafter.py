"""A drafter that always lies, and is sure of itself, costs at most 3 % of plain decoding.

Nothing is timed: passes cost what a table of T(r) says, guesses what the drafter says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from fakes import FakeClock, FakeSampler, FakeTarget
from toy_vocabularies import TOYS

from edgespec.drafters.model import ModelDrafter, ModelParts
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.types import EncodedPrompt
from edgespec.vocab.tokenizer import ByteTokenizer

TOY = TOYS["bpe"]()
VOCABULARY = ByteTokenizer(TOY)
MEASURED = {1: 30.0, 2: 35.0, 4: 48.0, 8: 76.0, 16: 140.0}
"""T(r) of a 1.5B model, Q4_K_M, on two cores."""

NUM_TOKENS = 400
MOST_LOSS = 1.03


class Liar:
    """A `DraftModel` that knows what the target will say, and says something else."""

    num_context, num_bytes = 4096, 0

    def __init__(
        self, target: FakeTarget, lies: Callable[[int], bool], on_guess: Callable[[], None]
    ) -> None:
        self.cells: list[int] = []
        self._target, self._lies, self._on_guess = target, lies, on_guess

    def read(self, tokens: Sequence[int]) -> None:
        self.cells.extend(tokens)

    def guess(self) -> tuple[int, float]:
        self._on_guess()
        truth = self._target.next_token(self.cells)
        lie = truth + 1 if truth + 1 < self._target.num_vocab else 40
        return (lie if self._lies(len(self.cells)) else truth), 0.97

    def truncate(self, num_tokens: int) -> None:
        del self.cells[num_tokens:]


PROMPT = [60, 61, 62]


def time_of(num_answers: int, lies: Callable[[int], bool] | None, guess_ms: float = 0.0) -> float:
    """Milliseconds that answers take together, with a drafter that lies or without one."""
    target = FakeTarget(
        num_vocab=TOY.num_tokens, num_context=2048, max_rows=16, num_slots=num_answers
    )
    clock = FakeClock(tick=0.0)
    drafters = []
    if lies is not None:
        models = [
            Liar(target, lies, lambda: clock.pass_by(guess_ms / 1e3)) for _ in range(num_answers)
        ]
        vocabularies = (VOCABULARY, VOCABULARY)
        parts = ModelParts("liar", models, vocabularies, lambda _: PROMPT, guess_ms, clock)
        drafters = [ModelDrafter(parts)]
    curve = CostModel(CostTable(8, 2048, MEASURED, MEASURED), 16)
    prices: list[float] = curve.curve_ms(0).tolist()
    engine = Engine(target, Planner(drafters, curve, clock), lambda _token: False, clock)
    target.on_pass = lambda tokens: clock.pass_by(prices[len(tokens) - 1] / 1e3)
    limits, prompt = Limits(NUM_TOKENS), EncodedPrompt(tuple(PROMPT))
    decodings = [engine.open(prompt, FakeSampler(), limits) for _ in range(num_answers)]
    started = clock()
    while running := [each for each in decodings if not each.is_over]:
        engine.step(running)
    return (clock() - started) * 1e3


def relative_cost(lies: Callable[[int], bool], guess_ms: float, num_answers: int = 1) -> float:
    """What answers cost with this drafter, over what they cost plainly."""
    return time_of(num_answers, lies, guess_ms) / time_of(num_answers, None)


@pytest.mark.parametrize("num_answers", [1, 2, 4])
@pytest.mark.parametrize("guess_ms", [0.5, 2.0, 4.0, 8.0, 15.0])
def test_one_that_always_lies(guess_ms: float, num_answers: int) -> None:
    assert relative_cost(lambda _length: True, guess_ms, num_answers) < MOST_LOSS


@pytest.mark.parametrize("guess_ms", [2.0, 8.0])
def test_one_that_begins_to_lie_within_the_answer(guess_ms: float) -> None:
    assert relative_cost(lambda length: length > 100, guess_ms) < MOST_LOSS


@pytest.mark.parametrize(("guess_ms", "most"), [(2.0, 0.85), (8.0, 0.97)])
def test_one_that_tells_the_truth_at_last_is_believed(guess_ms: float, most: float) -> None:
    assert relative_cost(lambda length: length < 150, guess_ms) < most
