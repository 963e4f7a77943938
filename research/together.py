"""Whether answers that share a target say what each says alone, bit for bit.

    python research/together.py [MODEL] [NUM_TOKENS]

Two and four answers in one engine, opened one after the other, each with a second turn that changes
the end of the first; all in one pass, or in turns; drafted by look-ups, or with trees about what
they say alone; greedy and at temperature 0.8. Tokens are compared, and the logits that each was
drawn from. All of it twice: in the layout that `LlamaTarget` keeps, and with every cell freed at
once, as llama.cpp does by itself.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import product

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.decoding import Decoding, Limits
from edgespec.engine.engine import NUM_AHEAD, Engine
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.sampler import SamplerChain
from edgespec.llama.target import LlamaTarget, num_sequences
from edgespec.machine.identity import this_machine
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.models.resolve import locate
from edgespec.passes import EMPTY_DRAFT, Draft, Kept, Proposal
from edgespec.paths import user_paths
from edgespec.planning.cost import CostModel, CostTable
from edgespec.planning.planner import Plan, Planner, Want
from edgespec.protocols import FREE, Drafter, Matcher, Sampler
from edgespec.types import EncodedPrompt, Message, SamplingParams, drafter_of

PROMPTS = (
    "Repeat this list three times: apples, pears, plums, cherries.",
    "Write a Python function that adds two numbers, then write it again for subtraction.",
    "Name the days of the week twice.",
    "Explain in two sentences why the sky is blue, and say it again in other words.",
)
FURTHER = " And once more, but shorter:"
TEMPERATURES = (0.0, 0.8)
NUM_CUT = 5
"""Tokens at the end of a first turn that the second does not share."""

STAGGER = 7
"""Steps before another answer is opened, so that their cells are mixed."""

_MOST_ROWS = 16
_EXACT_ROWS = 8
"""Rows of a pass that `edgespec doctor` finds exact wherever `make setup` built llama.cpp."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A prompt, and what the text goes on with after the answer to it, if it goes on."""

    prompt: tuple[int, ...]
    num_tokens: int
    further: tuple[int, ...] = ()


@dataclass(slots=True)
class Turn:
    """A prompt, the tokens of the answer, and a digest of the logits each was drawn from."""

    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    num_accepted: int = 0

    def take(self, kept: Kept) -> None:
        """A pass gave the answer something."""
        if kept.error is not None:
            raise kept.error
        self.tokens += kept.tokens
        self.num_accepted += sum(drafter_of(source) in kept.proposed for source in kept.sources)
        for index in range(len(kept.tokens)):
            self.rows.append(blake2b(kept.logits(index).tobytes(), digest_size=16).digest())


def converse(
    engine: Engine, talks: Sequence[Talk], make_sampler: Callable[[], Sampler], *, in_turns: bool
) -> list[list[Turn]]:
    """Have all talks, as many at a time as there is room for: the turns of each.

    `in_turns` each pass is that of one answer, else of all that are open.
    """
    turns: list[list[Turn]] = [[] for _ in talks]
    waiting = deque(range(len(talks)))
    running: dict[Decoding, int] = {}

    def begin(number: int, prompt: tuple[int, ...]) -> None:
        turns[number].append(Turn(prompt))
        limits = Limits(talks[number].num_tokens)
        running[engine.open(EncodedPrompt(prompt), make_sampler(), limits)] = number

    step = 0
    while waiting or running:
        if waiting and (step % STAGGER == 0 or not running):
            first = talks[waiting[0]]
            if engine.has_room(EncodedPrompt(first.prompt), Limits(first.num_tokens)):
                begin(waiting.popleft(), first.prompt)
        step += 1
        chosen = [list(running)[step % len(running)]] if in_turns else list(running)
        for decoding, kept in engine.step(chosen):
            number = running[decoding]
            turn = turns[number][-1]
            turn.take(kept)
            if decoding.is_over:
                engine.close(decoding)
                decoding.sampler.close()
                del running[decoding]
                if talks[number].further and len(turns[number]) == 1:
                    text = (*turn.prompt, *turn.tokens)
                    begin(number, (*text[:-NUM_CUT], *talks[number].further))
    return turns


class Known:
    """A drafter that knows the answers to prompts, and errs at every third place."""

    name = "known"

    def __init__(self, turns: Iterable[Turn]) -> None:
        """`turns` are those of the answers alone."""
        self._answers: dict[tuple[int, ...], Sequence[int]] = {
            turn.prompt: turn.tokens for turn in turns
        }

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> KnownSession:
        """Follow an answer; where those before it differ it is not known."""
        return KnownSession(self._answers.get(prompt.tokens, ()), len(said))


class KnownSession:
    """Implements `DraftSession` for `Known`; for `TreePlanner` it draws trees."""

    quote = FREE
    bridge_ms = 0.0

    def __init__(self, answer: Sequence[int], num_said: int) -> None:
        self._answer, self._num_said = answer, num_said

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """The answer, but for every third token."""
        start = self._num_said + len(prefix)
        for place, token in enumerate(self._answer[start:], start):
            yield Proposal(_wrong(token) if place % 3 == 2 else token, 1.0)

    def learn(self, kept: Kept) -> None:
        """Follow the target."""
        self._num_said += len(kept.tokens)

    def close(self) -> None:
        """Nothing to let go of."""

    def tree(self, num_nodes: int) -> Draft:
        """A chain of two, a sibling for each, and one that follows the first sibling.

        By turns the first or the second token of the chain is wrong, and its sibling is right.
        """
        right = self._answer[self._num_said : self._num_said + 2]
        if len(right) < 2:
            return EMPTY_DRAFT
        wrong_at = self._num_said % 3
        main = [_wrong(right[i]) if i == wrong_at else right[i] for i in range(2)]
        other = [right[i] if i == wrong_at else _wrong(right[i]) for i in range(2)]
        tokens = (*main, *other, right[1])[:num_nodes]
        size = len(tokens)
        return Draft(tokens, (-1, 0, -1, 0, 2)[:size], (0.5,) * size, (Known.name,) * size)


def _wrong(token: int) -> int:
    return token ^ 1


class TreePlanner(Planner):
    """Verifies the trees of `Known`, as large as a fair share of the pass allows."""

    def plan(self, wants: Sequence[Want], max_rows: int) -> list[Plan]:
        """A tree for each answer."""
        room = min(max_rows, self.costs.max_rows) - sum(want.num_rows for want in wants)
        plans = []
        for number, want in enumerate(wants):
            draft = EMPTY_DRAFT
            for contender in want.contenders:
                assert isinstance(contender.session, KnownSession)
                draft = contender.session.tree(min(want.max_draft, room // (len(wants) - number)))
            room -= len(draft)
            plans.append(Plan(draft))
        return plans


class FreeingTarget(LlamaTarget):
    """Frees cells at once, wherever they are, for llama.cpp to take again."""

    def _cut(self, slot: int, num_tokens: int, drafted: object) -> None:
        del self._cells[slot][num_tokens:]
        self._drop(slot, getattr(drafted, "branches", ()))


def eager_engine(
    target: LlamaTarget, drafters: Sequence[Drafter], *, trees: bool, num_ahead: int = NUM_AHEAD
) -> Engine:
    """An engine that drafts whatever it can: rows look free, and its clock stands still."""
    costs = {1: 10.0, _MOST_ROWS: 10.5}
    model = CostModel(CostTable(0, 4096, costs, costs), _MOST_ROWS)
    planner = (TreePlanner if trees else Planner)(drafters, model, _still)
    is_end = target.context.model.vocab.is_end
    return Engine(target, planner, is_end, _still, num_ahead=num_ahead)


def _still() -> float:
    return 1.0


def num_differing(alone: Sequence[Sequence[Turn]], together: Sequence[Sequence[Turn]]) -> int:
    """Rows that differ; all of a turn with another prompt or other tokens."""
    count = 0
    for one, other in zip(_flat(alone), _flat(together), strict=True):
        if (one.prompt, one.tokens) != (other.prompt, other.tokens):
            count += len(one.rows)
        else:
            count += sum(a != b for a, b in zip(one.rows, other.rows, strict=True))
    return count


def _flat(turns: Sequence[Sequence[Turn]]) -> list[Turn]:
    return [turn for each in turns for turn in each]


@dataclass(frozen=True, slots=True)
class Bench:
    """An open model; `options` are those of a context of one slot, `max_rows` are exact in it."""

    model: Model
    options: ContextOptions
    max_rows: int

    def alone(self, talks: Sequence[Talk], sampling: SamplingParams) -> list[list[Turn]]:
        """Each talk by itself, from an empty cache, token by token."""
        return [
            turns
            for talk in talks
            for turns in self.together([talk], sampling, (), num_slots=1, in_turns=False)
        ]

    def together(
        self,
        talks: Sequence[Talk],
        sampling: SamplingParams,
        drafters: Sequence[Drafter],
        *,
        num_slots: int,
        in_turns: bool,
        trees: bool = False,
        layout: type[LlamaTarget] = LlamaTarget,
    ) -> list[list[Turn]]:
        """All talks in one engine, from an empty cache."""
        options = replace(self.options, num_sequences=num_sequences(num_slots))
        with Context(self.model, options) as context:
            target = layout(context, self.max_rows, num_slots)
            engine = eager_engine(target, drafters, trees=trees)
            return converse(
                engine, talks, lambda: SamplerChain(sampling, self.model.vocab), in_turns=in_turns
            )


def compare(bench: Bench, talks: Sequence[Talk], sampling: SamplingParams) -> None:
    """Print a line for each layout, number of answers, way to step and kind of drafts."""
    alone = bench.alone(talks, sampling)
    for layout, count, in_turns, trees in product(
        (LlamaTarget, FreeingTarget), (2, 4), (False, True), (False, True)
    ):
        drafters = [Known(_flat(alone)) if trees else ContextDrafter()]
        together = bench.together(
            talks[:count],
            sampling,
            drafters,
            num_slots=count,
            in_turns=in_turns,
            trees=trees,
            layout=layout,
        )
        turns = _flat(together)
        print(
            f"temperature {sampling.temperature}, "
            f"{'our layout' if layout is LlamaTarget else 'cells freed at once'}, "
            f"{count} answers {'in turns' if in_turns else 'in one pass'}, "
            f"{'trees' if trees else 'look-ups'}: "
            f"{num_differing(alone[:count], together)} of {sum(len(turn.rows) for turn in turns)} "
            f"rows differ, {sum(turn.num_accepted for turn in turns)} drafted tokens kept",
            flush=True,
        )


def main(reference: str, num_tokens: int) -> None:
    """Compare on a model on disk."""
    path = locate(reference, user_paths())
    if path is None:
        sys.exit(f"{reference} is not on this machine")
    with Model(path, ModelOptions()) as model:
        bridge = ModelBridge(model)
        further = tuple(model.vocab.tokenize(FURTHER.encode(), add_special=False))
        talks = [
            Talk(tuple(bridge.encode_chat((Message("user", prompt),))), num_tokens, further)
            for prompt in PROMPTS
        ]
        num_threads = this_machine().num_threads
        bench = Bench(model, ContextOptions(4096, num_threads, type_k="bf16"), _EXACT_ROWS)
        for temperature in TEMPERATURES:
            compare(bench, talks, SamplingParams(temperature=temperature, seed=5))


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET,
        int(sys.argv[2]) if len(sys.argv) > 2 else 60,
    )
