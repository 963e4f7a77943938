"""The decode loop, planner and drafters over recorded answers and guesses, on a clock of its own.

    python research/replay_drafts.py TARGET.gguf DRAFTER.gguf ANSWERS.npz GUESSES.npz \\
        GUESS_MS READ_MS [SEEDS]

Nothing is computed by a model: the target says what it said when it was recorded, a pass over r
rows takes T(r), the drafter guesses what it guessed then (research/record_drafts.py), in GUESS_MS
and READ_MS for each further token read. So two ways to plan differ by nothing but the planning.
Prints, as JSON, speed against plain decoding by category: of look-ups alone, with the drafter, and
of both if they never guessed wrong; over SEEDS (3) random orders of the answers, learning from one
to the next.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from record_drafts import (
    MAX_TOKENS,
    Answer,
    Playback,
    Recorded,
    load_answers,
    load_guesses,
)

from edgespec.drafters.context import ContextDrafter
from edgespec.drafters.model import ModelDrafter, ModelParts
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.tally import Tally
from edgespec.llama.model import Model, ModelOptions
from edgespec.passes import EMPTY_DRAFT, Kept, Part, Proposal, Stretch
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Planner
from edgespec.protocols import Drafter, DraftSession, Matcher, Quote, Target
from edgespec.runtime.model_drafter import Renderer
from edgespec.types import EncodedPrompt
from edgespec.vocab.tokenizer import ByteTokenizer, Encoded
from edgespec.vocab.vocabulary import Tokenizer

PASS_MS = (30.0, 31.8, 34.3, 33.8, 36.0, 37.8, 39.5, 41.0, 45.0, 49.0, 52.5, 56.0, 61.2, 66.5)
"""T(r) of Qwen2.5-Coder-1.5B Q4_K_M with the kernel that fetches weights ahead, two cores."""


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_ms / 1e3


class TimedPlayback(Playback):
    """A recorded drafter that takes its time."""

    def __init__(
        self, guesses: dict[int, Recorded], clock: Clock, guess_ms: float, read_ms: float
    ) -> None:
        """`read_ms` is what each further token takes that is read at once."""
        super().__init__(guesses)
        self.clock, self.guess_ms, self.read_ms = clock, guess_ms, read_ms

    def read(self, tokens: Sequence[int]) -> None:
        """Append, and let the time pass that it takes."""
        self.clock.now_ms += self.guess_ms + self.read_ms * (len(tokens) - 1)
        super().read(tokens)


class Remembering(ByteTokenizer):
    """Tokenizes everything once: replays say the same again and again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._known: dict[bytes, Encoded] = {}

    def encode(self, data: bytes) -> Encoded:
        """As the vocabulary does."""
        if data not in self._known:
            self._known[data] = super().encode(data)
        return self._known[data]


class Pair:
    """Vocabularies of target and drafter, both open models."""

    def __init__(self, target: Model, drafter: Model) -> None:
        self._name = drafter.path.stem
        self._vocabularies = Remembering(target.vocab), Remembering(drafter.vocab)
        self._render = Renderer(drafter)

    def drafter_over(self, playback: TimedPlayback) -> ModelDrafter:
        """The product's drafter around recorded guesses."""
        parts = ModelParts(
            self._name,
            (playback,),
            self._vocabularies,
            self._render,
            playback.guess_ms,
            playback.clock,
        )
        return ModelDrafter(parts)


class RecordedTarget:
    """Implements `Target` and `Sampler` for one answer after the other.

    Reading the prompt takes no time: it is the same with and without drafts.
    """

    matcher: Matcher | None = None

    num_slots = 1
    num_context = num_batch = 1 << 20
    max_branches = 0
    can_roll_back = True
    reads_alike = False

    max_rows = len(PASS_MS)

    def __init__(self, clock: Clock) -> None:
        """A pass over r rows takes `PASS_MS[r - 1]`."""
        self._clock = clock
        self._num_cached = 0
        self._part = Part(0, (), EMPTY_DRAFT)
        self._tokens: tuple[int, ...] = ()
        self._num_said = 0
        self._ends = True
        self._none = np.zeros(1, dtype=np.float32)

    def say(self, tokens: Sequence[int], *, ends: bool) -> None:
        """What is said next, and whether the target ends it or a limit does."""
        self._tokens, self._num_said, self._ends = tuple(tokens), 0, ends

    def is_end(self, _token: int) -> bool:
        """Whether the last token said ends the answer."""
        return self._ends and self._num_said == len(self._tokens)

    def num_cached(self, slot: int) -> int:
        """Tokens of the only slot."""
        return self._num_cached

    def score(self, parts: Sequence[Part]) -> None:
        """Let a pass go by."""
        [self._part] = parts
        if self._num_cached:
            self._clock.now_ms += PASS_MS[len(self._part) - 1]

    def keep(self, slot: int, path: Sequence[int]) -> None:
        """Keep so many tokens of the draft."""
        self._num_cached += len(self._part.tokens) + len(path)

    def logits(self, row: int) -> NDArray[np.float32]:
        """Nobody looks at them."""
        return self._none

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Nobody looks at them."""
        return self._none

    def truncate(self, slot: int, num_tokens: int) -> None:
        """Cut."""
        self._num_cached = min(self._num_cached, num_tokens)

    def save(self, slot: int) -> tuple[Stretch, ...]:
        """Nothing is kept."""
        return ()

    def restore(self, slot: int, stretches: Sequence[Stretch]) -> None:
        """Nothing was kept."""

    def abort(self) -> None:
        """Never."""

    def resume(self) -> None:
        """Never."""

    def begin(self, prompt: Sequence[int]) -> None:
        """Nothing to look back at."""

    def sample(self, target: Target, row: int) -> int:
        """What was recorded."""
        self._num_said += 1
        return self._tokens[self._num_said - 1]

    def close(self) -> None:
        """Nothing to free."""


class Hindsight:
    """A drafter that stops before its first wrong guess, is sure of the others, and pays for these.

    What a planner reaches that knows beforehand what will be kept.
    """

    def __init__(self, drafter: Drafter, clock: Clock) -> None:
        self.name = drafter.name
        self._drafter, self._clock = drafter, clock
        self._truth: tuple[int, ...] = ()

    def know(self, truth: Sequence[int]) -> None:
        """What will be said in the next answer."""
        self._truth = tuple(truth)

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> HindsightSession:
        """Follow an answer that is known."""
        session = self._drafter.open(prompt, said)
        return HindsightSession(session, self._clock, self._truth, len(said))


class HindsightSession:
    """Implements `DraftSession` for `Hindsight`."""

    def __init__(
        self, session: DraftSession, clock: Clock, truth: Sequence[int], num_said: int
    ) -> None:
        self._session, self._clock = session, clock
        self._truth, self._num_said = truth, num_said

    @property
    def quote(self) -> Quote:
        """That of the session within, which never disappoints."""
        return replace(self._session.quote, expected=1.0)

    @property
    def bridge_ms(self) -> float:
        """That of the session within."""
        return self._session.bridge_ms

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """The right guesses."""
        started = self._clock.now_ms
        for place, guess in enumerate(self._session.propose(prefix), self._num_said + len(prefix)):
            if self._truth[place : place + 1] != (guess.token,):
                self._clock.now_ms = started
                return
            yield replace(guess, acceptance=1.0)
            started = self._clock.now_ms

    def learn(self, kept: Kept) -> None:
        """Pass on."""
        self._num_said += len(kept.tokens)
        self._session.learn(kept)

    def close(self) -> None:
        """Pass on."""
        self._session.close()


@dataclass(frozen=True, slots=True)
class Run:
    """One answer replayed: milliseconds with drafts and without, and what was proposed and kept."""

    answer: Answer
    ms: float
    plain_ms: float
    num_passes: int
    num_proposed: int
    num_accepted: int


class Replay:
    """An engine over recorded answers; drafters keep what they learn from one to the next."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        clock: Clock,
        playback: Playback | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """`clock` and `playback` are those that `drafters` were made with.

        `max_tokens` is where answers were cut when they were recorded: what ended before ended by
        itself.
        """
        self._drafters, self._clock, self._playback = tuple(drafters), clock, playback
        self._max_tokens = max_tokens
        self._target = RecordedTarget(clock)
        table = dict(enumerate(PASS_MS, 1))
        costs = CostModel(CostTable(1, 2, table, table), len(PASS_MS))
        planner = Planner(drafters, costs, clock)
        self._engine = Engine(self._target, planner, self._target.is_end, clock)

    def run(self, number: int, answer: Answer) -> Run:
        """Replay one answer; `number` is its place in the recording."""
        if self._playback is not None:
            self._playback.answer = number
        for drafter in self._drafters:
            if isinstance(drafter, Hindsight):
                drafter.know(answer.tokens)
        tally, started = Tally(self._clock), self._clock.now_ms
        self._answer(answer, tally)
        stats = tally.stats()
        return Run(
            answer,
            self._clock.now_ms - started,
            (len(answer.tokens) - 1) * PASS_MS[0],
            stats.target_passes,
            stats.proposed,
            stats.accepted,
        )

    def _answer(self, answer: Answer, tally: Tally) -> None:
        target, engine = self._target, self._engine
        target.say(answer.tokens, ends=len(answer.tokens) < self._max_tokens)
        engine.forget()
        limits = Limits(max(self._max_tokens, len(answer.tokens)))
        decoding = engine.open(answer.encoded, target, limits)
        said: list[int] = []
        while not decoding.is_over:
            [(_, kept)] = engine.step([decoding])
            tally.take(kept)
            said += kept.tokens
        engine.close(decoding)
        assert said == list(answer.tokens)


def speeds(runs: Sequence[Run]) -> dict[str, float]:
    """Speed against plain decoding by category, and "overall" as the mean over answers."""
    by_category: dict[str, list[float]] = {}
    for run in runs:
        if run.plain_ms > 0:
            by_category.setdefault(run.answer.category, []).append(run.plain_ms / run.ms)
    everything = [speed for values in by_category.values() for speed in values]
    named = {name: float(np.mean(values)) for name, values in by_category.items()}
    return {**named, "overall": float(np.mean(everything))}


WAYS = ("look-ups", "with the drafter", "with hindsight")


def main(arguments: Sequence[str]) -> None:
    """Replay and print."""
    target, drafter, said, guessed = map(Path, arguments[:4])
    guess_ms, read_ms = map(float, arguments[4:6])
    num_seeds = int(arguments[6]) if len(arguments) > 6 else 3
    answers, guesses = load_answers(said), load_guesses(guessed)
    options = ModelOptions(vocabulary_only=True)
    with Model(target, options) as one, Model(drafter, options) as other:
        pair = Pair(one, other)
        for way in WAYS:
            runs: list[Run] = []
            for seed in range(num_seeds):
                clock = Clock()
                playback = TimedPlayback(guesses, clock, guess_ms, read_ms)
                drafters: list[Drafter] = [ContextDrafter()]
                if way != WAYS[0]:
                    drafters.append(pair.drafter_over(playback))
                if way == WAYS[2]:
                    drafters = [Hindsight(each, clock) for each in drafters]
                replay = Replay(drafters, clock, playback)
                order = random.Random(seed).sample(range(len(answers)), len(answers))
                runs += [replay.run(number, answers[number]) for number in order]
            print(way, json.dumps({name: round(speed, 4) for name, speed in speeds(runs).items()}))


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    main(sys.argv[1:])
