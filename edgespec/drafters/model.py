"""The `model` strategy: a small model, of any vocabulary, writes on; the target checks.

The drafter follows the conversation in its own tokens and its own chat template. It reads lazily:
what the target said since it was last asked goes in with its next guess, in one pass, and nothing
is read as long as nobody asks. Guesses come out as target tokens through the byte bridge; their
estimates are the drafter's own probabilities, corrected by how often such guesses were kept.

    reader      what was said, in drafter tokens     [p p p a a a]
    model cache what the model has read              [p p p a g g]   g: its own guesses, refused
    ask         cut the cache to the common part, read the rest, guess, read the guess, guess ...
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from edgespec.estimates.acceptance import Acceptance, log_odds
from edgespec.estimates.counts import Calibration
from edgespec.estimates.recent import Outlook
from edgespec.types import Prompt, Proposal
from edgespec.vocab.aligner import learn
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.translator import BridgedToken, DraftTranslator

NUM_SINKS = 4
"""Tokens at the beginning that are always read: attention rests on them (StreamingLLM)."""

WINDOW = 256
"""Most tokens that are read at once before the first guess: a longer past is cut off, because
reading it would cost more time than the guesses gain."""

_RESERVE = 64
"""Cells of the KV cache kept free for guesses; with fewer, the past is cut to `WINDOW` again."""

_EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.87, 0.92, 0.95, 0.97, 0.98, 0.99)
"""Lower bounds of the classes of probability, but for the first, which begins at 0."""

_HEAD = (-0.5, 0.35, 0.3, -0.1, 0.9, 0.35, 0.0, 0.0)
"""First weights of the acceptance head: what two tiny strangers taught it (bench/LOG.md)."""

_NUM_PLACES = 3
"""Classes of places in a draft: the first token, the second, all others."""

PRIOR_OUTLOOK = 0.7
"""Share of the first guesses that tiny strangers get right on ordinary text (bench/LOG.md)."""

_NUM_WEIGHED = 2000
"""Letters at the end of a prompt that tell how well it can be read."""

_FEW_ALIKE = 8
"""Tokens beyond those counted that are taken to be the same in both vocabularies."""

_READ_SHARE = 0.12
"""What a token takes that is read together with others, of a guess; only a start."""

_COST_RATE = 0.05
_READ_RATE = 0.3
_MANY_TOKENS = 16  # tell what reading costs
_FEW_TOKENS = 3  # more of them read at once say nothing of what a guess costs


class DraftModel(Protocol):
    """A model with a KV cache of one sequence that guesses greedily."""

    @property
    def num_context(self) -> int:
        """Cells of the KV cache."""
        ...

    def read(self, tokens: Sequence[int]) -> None:
        """Append `tokens` (at least one) to the cache; raises with the cache empty."""
        ...

    def guess(self) -> tuple[int, float]:
        """The likeliest token after those read, and its probability."""
        ...

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens."""
        ...


class ModelDrafter:
    """Implements `edgespec.protocols.Drafter` with a `DraftModel` behind the byte bridge."""

    def __init__(
        self,
        name: str,
        model: DraftModel,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        render: Callable[[Prompt], list[int]],
        ngrams: NgramCache,
        cost_ms: float,
        clock: Callable[[], float],
        calibration: Acceptance | None = None,
    ) -> None:
        """`vocabularies` are the target's and the drafter's; `render` gives a prompt's drafter

        tokens. `cost_ms` is what a guess takes, refined in use. `clock` gives seconds.
        `calibration` must have been made by `new_calibration`.
        """
        self.name = name
        self.window = WINDOW
        self.calibration = calibration if calibration is not None else new_calibration()
        self.ngrams = ngrams
        self._outlook = Outlook(PRIOR_OUTLOOK)
        self._guess_ms = cost_ms
        self._proposals_per_guess = 1.0
        self._model = model
        self._target, self._vocab = vocabularies
        self._reader = DrafterReader(self._target, self._vocab)
        self._translator = DraftTranslator(self._target, self._vocab, ngrams)
        self._render = render
        self._clock = clock
        self._prompt: Prompt | None = None
        self._asked = ""  # the end of what was said to the target
        self._fertility: float | None = None
        self._read_ms = cost_ms * _READ_SHARE
        self._text: list[int] = []  # of this answer and its prompt, in target tokens
        self._num_read = 0  # of these, when it was last asked
        self._unread: list[int] = []
        self._num_skipped = 0  # tokens after the first NUM_SINKS that were not read
        self._cached: list[int] = []
        self._num_valid = 0  # tokens of the cache that need not be compared again
        self._was_asked = False
        self._is_new = True  # the prompt has not been read yet

    @property
    def cost_ms(self) -> float:
        """Milliseconds until the next proposal; not every guess completes a token of the target."""
        return self._guess_ms / max(self._proposals_per_guess, 0.25)

    @property
    def outlook(self) -> float:
        """Share of its guesses that were kept lately."""
        return self._outlook.value

    @property
    def start_ms(self) -> float:
        """Milliseconds of reading, besides `cost_ms`, before the next first guess."""
        return self._read_ms * min(max(len(self._text) - self._num_read - 1, 0), self.window)

    @property
    def fertility(self) -> float:
        """Its own tokens for one of the target's, in the last message of the prompt."""
        if self._fertility is None:
            data = self._asked.encode("utf-8", "replace")
            own, others = (len(each.encode(data).tokens) for each in (self._vocab, self._target))
            self._fertility = (own + _FEW_ALIKE) / (others + _FEW_ALIKE)
        return self._fertility

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Names of the target's and the drafter's vocabularies, under which n-grams are kept."""
        return self._target.fingerprint, self._vocab.fingerprint

    def warm_up(self) -> None:
        """Build the tables of both vocabularies now, so that no answer waits for them."""
        tokens = self._target.encode(b"Two words, or three.\n").tokens
        self._reader.begin(())
        self._reader.extend(tokens)
        self._reader.preview(tokens)
        self._translator.start()
        for token in self._reader.tokens:
            self._translator.push(token, 0.5)
        self._reader.take_aligned()

    def use(self, model: DraftModel) -> None:
        """Guess with `model`, of the same vocabulary, from the next answer on; not within one."""
        self._model = model
        self._cached, self._num_valid, self._num_skipped, self._num_read = [], 0, 0, 0

    def read_prompt(self, prompt: Prompt) -> None:
        """What the next answer is to: the conversation as messages, or plain text."""
        self._prompt = prompt

    def begin(self, prompt: Sequence[int]) -> None:
        """Start an answer; the prompt comes by `read_prompt`, or else as these target tokens."""
        if self._prompt is None:
            self._prompt = b"".join(map(self._target.piece, prompt)).decode("utf-8", "replace")
        self._asked, self._fertility = _last_said(self._prompt)[-_NUM_WEIGHED:], None
        self._num_read = _common_prefix(self._text[: self._num_read], prompt, 0)
        self._text = list(prompt)
        self._unread = []
        self._is_new = True
        self.calibration.begin()
        self._outlook.begin()

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Guess on, token by token; each `next` costs about `cost_ms`."""
        started = self._clock()
        self._was_asked = True
        num_read = self._catch_up(prefix)
        if not num_read:
            return
        self._num_read = len(self._text)
        self._translator.start()
        place = len(prefix)
        while True:
            token, probability = self._model.guess()
            bridged = self._translator.push(token, probability)
            self._measure(self._clock() - started, num_read, len(bridged))
            for guess in bridged:
                kind, features = evidence_kind(guess.acceptance, place), _features(guess, place)
                yield Proposal(
                    guess.token, self.calibration.estimate(kind, features), kind, features
                )
                place += 1
            if self._translator.is_over or len(self._cached) >= self._model.num_context:
                return
            started, num_read = self._clock(), 1
            self._append([token])

    def _measure(self, seconds: float, num_read: int, num_proposals: int) -> None:
        """Learn from one guess what guesses cost and give; one that was interrupted counts less."""
        self._proposals_per_guess += _COST_RATE * (num_proposals - self._proposals_per_guess)
        if num_read >= _MANY_TOKENS:
            read_ms = max(seconds * 1e3 - self._guess_ms, 0.0) / num_read
            self._read_ms += _READ_RATE * (read_ms - self._read_ms)
        if num_read <= _FEW_TOKENS:
            elapsed_ms = min(seconds * 1e3, 2 * self._guess_ms)
            self._guess_ms += _COST_RATE * (elapsed_ms - self._guess_ms)

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Count every guess that the target's answer judged, up to the first wrong one."""
        for right in self.calibration.learn(proposals, kept):
            self._outlook.observe(right)

    def extend(self, tokens: Sequence[int]) -> None:
        """Note what the target kept; it is read when the next guess is asked for."""
        self._unread.extend(tokens)
        self._text.extend(tokens)
        self._outlook.end_pass(asked=self._was_asked)
        self._was_asked = False

    def _catch_up(self, prefix: Sequence[int]) -> int:
        """Bring the cache to all that was said, and `prefix`; returns the tokens read, or 0.

        0 means that what was said, or `prefix`, ends in a way that this model cannot go on from.
        """
        self._follow()
        draft = self._reader.preview(prefix)
        if draft is None or not self._reader.can_draft:
            return 0
        said, extra = self._reader.tokens[: draft.num_keep], draft.tokens
        wanted = [*self._past(said), *extra]
        if not wanted:
            return 0
        same = min(self._num_valid, len(wanted) - len(extra))
        num_kept = _common_prefix(self._cached, wanted, same)
        if len(wanted) - num_kept > self.window or len(wanted) + _RESERVE > self._model.num_context:
            window = min(self.window, self._model.num_context // 2)
            self._num_skipped = max(len(said) - NUM_SINKS - window, 0)
            wanted = [*self._past(said), *extra]
            num_kept = _common_prefix(self._cached, wanted, 0)
        num_kept = min(num_kept, len(wanted) - 1)  # the last one is read for what follows it
        self._model.truncate(num_kept)
        del self._cached[num_kept:]
        self._append(wanted[num_kept:])
        self._num_valid = len(wanted) - len(extra)
        return len(wanted) - num_kept

    def _follow(self) -> None:
        """Turn what was said since it was last asked into its own tokens."""
        if self._is_new:
            assert self._prompt is not None
            self._reader.begin(self._render(self._prompt))
            self._prompt, self._is_new, self._num_valid = None, False, 0
            if not self._is_continued():  # what is not read is of a conversation that is over
                self._num_skipped = 0
        feed = self._reader.extend(self._unread)
        self._unread = []
        for stretch in self._reader.take_aligned():
            learn(self.ngrams, self._target, stretch)
        self._num_valid = max(min(self._num_valid, feed.num_keep - self._num_skipped), 0)

    def _is_continued(self) -> bool:
        """Whether a new prompt, cut as the last one was, begins with most of what was read."""
        same = _common_prefix(self._cached, self._past(self._reader.tokens), 0)
        return same > max(len(self._cached) // 2, NUM_SINKS)

    def _past(self, said: Sequence[int]) -> list[int]:
        """What of all that was said is read."""
        return [*said[:NUM_SINKS], *said[NUM_SINKS + self._num_skipped :]]

    def _append(self, tokens: list[int]) -> None:
        try:
            self._model.read(tokens)
        except BaseException:
            self._cached, self._num_valid = [], 0
            raise
        self._cached.extend(tokens)


def _last_said(prompt: Prompt) -> str:
    """The last message, or the whole of a plain text."""
    if isinstance(prompt, str):
        return prompt
    return prompt[-1].content if prompt else ""


def new_calibration() -> Acceptance:
    """Estimates by the kinds of evidence of this strategy; the prior believes the drafter."""
    bounds = (0.0, *_EDGES, 1.0)
    middles = [(low + high) / 2 for low, high in itertools.pairwise(bounds)]
    return Acceptance(Calibration(middles * _NUM_PLACES), _HEAD)


def evidence_kind(probability: float, place: int) -> int:
    """Number of the class of evidence behind a guess at a place in the draft."""
    return bisect.bisect_right(_EDGES, probability) + min(place, _NUM_PLACES - 1) * (
        len(_EDGES) + 1
    )


def _features(guess: BridgedToken, place: int) -> tuple[float, ...]:
    """What the head weighs of a guess."""
    return (
        log_odds(guess.acceptance) / 2.0,
        float(guess.kind == "ngram"),
        min(guess.num_drafter_tokens, 4) - 1.0,
        min(place, 4) / 4.0,
    )


def _common_prefix(cached: Sequence[int], wanted: Sequence[int], start: int) -> int:
    """Length of the common prefix, the first `start` being known to be equal."""
    length = min(len(cached), len(wanted))
    for index in range(min(start, length), length):
        if cached[index] != wanted[index]:
            return index
    return length
