"""What goes into a target pass and what comes out of it, in token ids.

A drafter yields `Proposal`s, the planner makes a `Draft` of them, which goes to the target as a
`Part` of a pass. `Kept` is what comes back: one for each pass and answer, and everything that
learns, records or shows anything reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from edgespec.errors import EdgeSpecError
from edgespec.types import PrefillProgress, drafter_of

if TYPE_CHECKING:  # a process that holds no model has no use for numpy
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Proposal:
    """One guessed token and the estimated probability that it is kept if those before it are.

    `evidence` is the kind of what the estimate rests on, numbered by the drafter. `source` is the
    drafter's name with the part of it that made the guess, "" where it has no parts.
    """

    token: int
    acceptance: float
    evidence: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens proposed to follow the last kept token, for the target to verify.

    Node i is token `tokens[i]`; `parents[i]` is the index of the node before it, always a smaller
    one, -1 for the last kept token. A chain has parents (-1, 0, 1, ...). Of a tree the first nodes
    that follow one another are the main chain, all others are siblings and what follows these.
    `acceptance[i]` estimates the probability that node i is kept given that its parent was.
    `sources[i]` names the drafter that proposed it, or its part (`edgespec.types.drafter_of`).

    >>> tree = Draft((7, 8, 9), (-1, 0, 0), (0.9, 0.5, 0.4), ("context", "context", "model"))
    >>> tree.num_main, tree.depths, tree.path_to(2)
    (2, (0, 1, 1), (0, 2))
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    acceptance: tuple[float, ...] = ()
    sources: tuple[str, ...] = ()

    @staticmethod
    def chain(tokens: tuple[int, ...], acceptance: tuple[float, ...], source: str) -> Draft:
        """A draft without branches, all from one source."""
        parents = tuple(range(-1, len(tokens) - 1))
        return Draft(tokens, parents, acceptance, (source,) * len(tokens))

    @property
    def is_chain(self) -> bool:
        """True if every node follows the one before it."""
        return self.num_main == len(self)

    @property
    def num_main(self) -> int:
        """Nodes of the main chain."""
        places = (index for index, parent in enumerate(self.parents) if parent != index - 1)
        return next(places, len(self.parents))

    @property
    def depths(self) -> tuple[int, ...]:
        """How many nodes are before each."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        return tuple(depths)

    def path_to(self, node: int) -> tuple[int, ...]:
        """The nodes from the first one to `node`."""
        path = [node]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return tuple(reversed(path))

    def child(self, node: int, token: int) -> int | None:
        """The node after `node` (-1: the last kept token) that says `token`, if there is one."""
        for index in range(node + 1, len(self.tokens)):
            if self.parents[index] == node and self.tokens[index] == token:
                return index
        return None

    def __len__(self) -> int:
        return len(self.tokens)


EMPTY_DRAFT = Draft()


@dataclass(frozen=True, slots=True)
class Part:
    """What one pass computes for one slot: tokens that are not cached yet, then a draft.

    The last of `tokens` (at least one) and each node of the draft get logits, in this order.
    """

    slot: int
    tokens: tuple[int, ...]
    draft: Draft = EMPTY_DRAFT

    def __len__(self) -> int:
        return len(self.tokens) + len(self.draft)

    @property
    def num_outputs(self) -> int:
        """Rows with logits."""
        return 1 + len(self.draft)


class Scores(Protocol):
    """Rows of the last pass."""

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row: shape (num_vocab,), float32, a view."""
        ...

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Final hidden state of one row: shape (num_embedding,), float32, a view."""
        ...


@dataclass(frozen=True, slots=True)
class Guesses:
    """Guesses of one drafter, one following the other, from place `start` of a draft on."""

    start: int
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one target pass took and was expected to take, for one answer.

    `num_rows` are this answer's of the `num_pass_rows` that were computed together; the last
    `context` tokens before them were cached. `target_ms` is the whole pass, measured;
    `predicted_ms` what the planner took it for, and `plain_ms` what one without any draft, 0 where
    nothing was planned. `drafter_ms` is what each drafter took for this answer, `bridge_ms` the
    part of it that went into other vocabularies. Planning for all answers took `plan_ms` besides,
    drawing their tokens `verify_ms`.
    """

    num_rows: int
    num_pass_rows: int
    context: int
    target_ms: float
    predicted_ms: float = 0.0
    drafter_ms: Mapping[str, float] = field(default_factory=dict)
    bridge_ms: float = 0.0
    plain_ms: float = 0.0
    plan_ms: float = 0.0
    verify_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """The KV cells of `num_tokens` tokens of a slot that follow one another, as llama.cpp saves."""

    num_tokens: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """The beginning of a text as it was computed before; `num_shared` of its tokens are wanted."""

    num_shared: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What one pass gave one answer: tokens, and where each came from.

    `sources[i]` is that of token i in the draft, or TARGET. `rows[i]` is the output row of the
    pass that token i was drawn at. While a prompt is read in several passes there are no tokens
    yet, and `progress` tells how far it is. `guesses` holds all that drafters were asked for,
    `draft` what of it was verified. `ends` is True if the target ended its answer with the last
    token, `is_over` also if a limit did. `scores` gives views
    of the rows, valid until the next pass. `error` is what ended the answer where its sampler could
    not go on.
    """

    tokens: tuple[int, ...]
    sources: tuple[str, ...]
    rows: tuple[int, ...]
    record: PassRecord
    guesses: Mapping[str, tuple[Guesses, ...]] = field(default_factory=dict)
    draft: Draft = EMPTY_DRAFT
    progress: PrefillProgress | None = None
    ends: bool = False
    is_over: bool = False
    scores: Scores | None = None
    error: EdgeSpecError | None = None

    @property
    def proposed(self) -> Counter[str]:
        """How many tokens of each drafter were verified."""
        return Counter(map(drafter_of, self.draft.sources))

    def logits(self, index: int) -> NDArray[np.float32]:
        """Logits that token `index` was drawn from: shape (num_vocab,), float32, a view."""
        assert self.scores is not None
        return self.scores.logits(self.rows[index])

    def hidden_state(self, index: int) -> NDArray[np.float32]:
        """Final hidden state before token `index`: shape (num_embedding,), float32, a view.

        Zeros before the first token: a pass that reads a prompt tells none.
        """
        assert self.scores is not None
        return self.scores.hidden_state(self.rows[index])

    def guesses_of(self, name: str) -> Iterator[tuple[tuple[Proposal, ...], tuple[int, ...]]]:
        """Guesses of a drafter that the tokens judge, each run with the tokens from there on."""
        for guesses in self.guesses.get(name, ()):
            if guesses.start < len(self.tokens):  # all draft tokens before were kept
                yield guesses.proposals, self.tokens[guesses.start :]

    def cut(self, num_tokens: int) -> Kept:
        """The same, ended after so many tokens: a stop string was complete there."""
        return replace(
            self,
            tokens=self.tokens[:num_tokens],
            sources=self.sources[:num_tokens],
            rows=self.rows[:num_tokens],
            ends=True,
            is_over=True,
        )
