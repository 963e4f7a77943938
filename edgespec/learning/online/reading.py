"""The drafter reads an answer again: what each version would have guessed, and examples.

Read token by token it would cost as much as drafting did; read at once it costs a tenth. The part
of the conversation before the answer is cut to a window, as it is for drafting.

    said by the target   [The][ cat][ sat]        distributions where a token begins
    drafter's tokens     [The][ c][at][ sat]      direct: The, sat; only what was said: c, at
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.learning.online.correction import Floats
from edgespec.learning.online.examples import Examples
from edgespec.learning.online.lesson import DirectMap, Distribution, Place, example
from edgespec.learning.online.version import Version
from edgespec.vocab.tokenizer import ByteTokenizer

NUM_SINKS = 4
WINDOW = 256
"""Tokens before the answer that are read, besides the first `NUM_SINKS`."""

MOST_TOKENS = 384
"""Tokens of an answer, in the drafter's vocabulary, that are learned from."""


class ScoringModel(Protocol):
    """A drafter that tells logits and hidden states of all that it reads."""

    def score(self, tokens: Sequence[int], first: int) -> Iterator[tuple[Floats, Floats]]:
        """Read `tokens` from an empty cache; yield (logits, hidden state) after each from `first`.

        Views, valid until the next is asked for. Raises Cancelled or EdgeSpecError.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AnswerText:
    """An answer to learn from: the drafter's tokens of the prompt, and what the target said.

    `told[i]` is the target's distribution where it said `tokens[i]`.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    told: tuple[Distribution, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A text as examples, and which versions guessed it: `hits` is (num_versions, n), bool.

    Hits are only of positions where a token of the target begins, as a draft does.
    """

    examples: Examples
    hits: NDArray[np.bool_]


class LessonReader:
    """Makes readings of answers with one drafter."""

    def __init__(
        self,
        model: ScoringModel,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        kept: NDArray[np.int32],
    ) -> None:
        """`vocabularies` are the target's and the drafter's; `kept[i]` is the token of row i."""
        self._model = model
        self._target, self._drafter = vocabularies
        self._row_of = {int(token): row for row, token in enumerate(kept)}
        self._direct = direct_map(self._target, self._drafter, kept)

    def read(self, said: AnswerText, versions: Sequence[Version]) -> Reading | None:
        """Read an answer; None if it has no text. Raises what the model raises."""
        tokens, places = self._places(said)
        if not places:
            return None
        prompt = said.prompt
        if len(prompt) > NUM_SINKS + WINDOW:
            prompt = (*prompt[:NUM_SINKS], *prompt[-WINDOW:])
        if not prompt:  # nothing is known of the first token without anything before it
            prompt, tokens, places = (tokens[0],), tokens[1:], places[1:]
        parts, hits = [], []
        scored = self._model.score([*prompt, *tokens[:-1]], len(prompt) - 1)
        for place, (logits, hidden) in zip(places, scored, strict=False):
            parts.append(example(place, logits, hidden, self._direct))
            if place.token is not None:
                hits.append(_hits(versions, logits, hidden, place.row))
        if not parts:
            return None
        judged = np.array(hits, dtype=np.bool_).reshape(-1, len(versions)).T
        return Reading(Examples.joined(parts), judged)

    def _places(self, said: AnswerText) -> tuple[list[int], list[Place]]:
        """The answer in the drafter's tokens, the end of the turn included."""
        ends = np.cumsum([len(self._target.piece(token)) for token in said.tokens]).tolist()
        begun: dict[int, int] = {}
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if end > start:
                begun[start] = number
        encoded = self._drafter.encode(b"".join(map(self._target.piece, said.tokens)))
        tokens = encoded.tokens[:MOST_TOKENS]
        numbers = [begun.get(start) for start in [0, *encoded.ends]][: len(tokens)]
        if said.tokens and len(tokens) == len(encoded.tokens):
            last = said.tokens[-1]
            end_token = self._target.specials.counterpart(last, self._drafter.specials)
            if end_token is not None:
                tokens = [*tokens, end_token]
                numbers.append(len(said.tokens) - 1)
        return tokens, [self._place(*pair, said) for pair in zip(tokens, numbers, strict=True)]

    def _place(self, token: int, number: int | None, said: AnswerText) -> Place:
        row = self._row_of.get(token, -1)
        if number is None:
            return Place(row)
        told = said.told[number] if number < len(said.told) else None
        return Place(row, said.tokens[number], told)


def direct_map(target: ByteTokenizer, drafter: ByteTokenizer, kept: NDArray[np.int32]) -> DirectMap:
    """Rows of the head whose token the target writes in the same bytes, ends of turns by role."""
    num_tokens = target.vocab.num_tokens
    by_piece = {target.piece(token): token for token in reversed(range(num_tokens))}
    by_piece.pop(b"", None)
    rows = [by_piece.get(drafter.piece(int(token)), -1) for token in kept]
    for row, token in enumerate(kept):
        counterpart = drafter.specials.counterpart(int(token), target.specials)
        if counterpart is not None:
            rows[row] = counterpart
    return DirectMap.of(np.array(rows, dtype=np.int32), num_tokens)


def _hits(versions: Sequence[Version], logits: Floats, hidden: Floats, row: int) -> list[bool]:
    """Which versions guess `row`; one that occurs twice is asked once."""
    found: dict[int, bool] = {}
    for version in versions:
        if id(version) not in found:
            found[id(version)] = int(version.apply(logits, hidden).argmax()) == row
    return [found[id(version)] for version in versions]
