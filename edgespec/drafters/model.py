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
from dataclasses import dataclass, field
from typing import Protocol

from edgespec.drafters import Parts
from edgespec.estimates.acceptance import Acceptance
from edgespec.estimates.guess_costs import GuessCosts
from edgespec.lookup.prefix import common_prefix
from edgespec.passes import Kept, Proposal
from edgespec.protocols import FREE, Matcher, Quote
from edgespec.types import EncodedPrompt, Prompt
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

_NUM_PLACES = 3
"""Classes of places in a draft: the first token, the second, all others."""

EXPECTED = 0.7
"""Probability that a guess not yet pulled is kept: what tiny strangers get right (bench/LOG.md)."""

_NUM_WEIGHED = 2000
"""Letters at the end of a prompt that tell how well it can be read."""

_FEW_ALIKE = 8
"""Tokens beyond those counted that are taken to be the same in both vocabularies."""


class DraftModel(Protocol):
    """A model with a KV cache of one sequence that guesses greedily."""

    @property
    def num_context(self) -> int:
        """Cells of the KV cache."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of its weights, which a guess reads."""
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


@dataclass(frozen=True, slots=True)
class ModelParts:
    """A small model that drafts, and how it is spoken to.

    `models` have the same weights and a cache each: so many answers are followed at a time.
    `vocabularies` are the target's and the drafter's; `render` gives a prompt's drafter tokens.
    `guess_ms` is what a guess takes, refined in use. `clock` gives seconds.
    """

    name: str
    models: Sequence[DraftModel]
    vocabularies: tuple[ByteTokenizer, ByteTokenizer]
    render: Callable[[Prompt], list[int]]
    guess_ms: float
    clock: Callable[[], float]


def build(parts: Parts) -> ModelDrafter | None:
    """A drafter around a small model, if there is one."""
    return ModelDrafter(parts.model) if parts.model is not None else None


class ModelDrafter:
    """Implements `edgespec.protocols.Drafter` with small models behind the byte bridge."""

    def __init__(self, parts: ModelParts) -> None:
        """Follow answers with these models."""
        self.name = parts.name
        self.calibration = new_calibration()
        self.ngrams = NgramCache()
        self.vocabularies = parts.vocabularies
        self.render = parts.render
        self.clock = parts.clock
        self.costs = GuessCosts(parts.guess_ms)
        self._caches = [_Cache(model) for model in parts.models]

    @property
    def fingerprints(self) -> tuple[str, str]:
        """Names of the target's and the drafter's vocabularies, under which n-grams are kept."""
        target, drafter = self.vocabularies
        return target.fingerprint, drafter.fingerprint

    def warm_up(self) -> None:
        """Build the tables of both vocabularies now, so that no answer waits for them."""
        tokens = self.vocabularies[0].encode(b"Two words, or three.\n").tokens
        reader = DrafterReader(*self.vocabularies)
        reader.extend(tokens)
        reader.preview(tokens)
        translator = DraftTranslator(*self.vocabularies, self.ngrams)
        translator.start()
        for token in reader.tokens:
            translator.push(token, 0.5)
        reader.take_aligned()

    def use(self, models: Sequence[DraftModel]) -> None:
        """Guess with `models`, of the same vocabulary, from the next answer on; not within one."""
        self._caches = [_Cache(model) for model in models]

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> ModelSession:
        """Follow an answer, with the free cache that holds most of it; without one in silence."""
        self.costs.forget()
        text = [*prompt.tokens, *said]
        free = [cache for cache in self._caches if not cache.is_taken]
        for cache in free:
            if cache.owner != prompt.owner:  # nobody is to be faster by what others said
                cache.clear()
        best = max(free, key=lambda cache: common_prefix(cache.text, text), default=None)
        if best is not None:
            best.owner = prompt.owner
        return ModelSession(self, best, prompt, text)


@dataclass(slots=True, eq=False)
class _Cache:
    """A model's KV cache: the drafter's tokens that it holds, and the text that these stand for.

    `num_skipped` tokens after the first NUM_SINKS of that text were not read.
    """

    model: DraftModel
    tokens: list[int] = field(default_factory=list)
    text: list[int] = field(default_factory=list)
    num_skipped: int = 0
    is_taken: bool = False
    owner: str = ""

    def append(self, tokens: Sequence[int]) -> None:
        """Read on; raises with the cache empty."""
        try:
            self.model.read(tokens)
        except BaseException:
            self.tokens.clear()
            raise
        self.tokens.extend(tokens)

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens`."""
        self.model.truncate(num_tokens)
        del self.tokens[num_tokens:]

    def clear(self) -> None:
        """Forget everything."""
        self.truncate(0)
        self.text.clear()

    def past(self, said: Sequence[int]) -> list[int]:
        """What of all that was said is read."""
        return [*said[:NUM_SINKS], *said[NUM_SINKS + self.num_skipped :]]


class ModelSession:
    """Implements `edgespec.protocols.DraftSession`: a drafter's model follows one answer."""

    def __init__(
        self,
        drafter: ModelDrafter,
        cache: _Cache | None,
        prompt: EncodedPrompt,
        text: Sequence[int],
    ) -> None:
        """Use `ModelDrafter.open`; `text` is the prompt and what was said, in target tokens."""
        self.bridge_ms = 0.0
        self._drafter = drafter
        self._cache = cache
        self._prompt = prompt
        self._text = list(text)
        self._unread = self._text[len(prompt.tokens) :]
        self._reader: DrafterReader | None = None  # as long as it was not asked
        self._translator = DraftTranslator(*drafter.vocabularies, drafter.ngrams)
        self._fertility: float | None = None
        self._num_read = 0  # of the text, when it was last asked
        self._num_valid = 0  # tokens of the cache that need not be compared again
        if cache is not None:
            cache.is_taken = True
            self._num_read = common_prefix(cache.text, self._text)

    @property
    def quote(self) -> Quote:
        """What the next guesses cost and promise."""
        if self._cache is None:
            return FREE
        costs = self._drafter.costs
        num_unread = max(len(self._text) - self._num_read - 1, 0)
        return Quote(
            costs.proposal_ms,
            costs.read_ms * min(num_unread, WINDOW),
            EXPECTED,
            self._known_fertility(),
            round(self._cache.model.num_bytes * costs.guesses_per_proposal),
        )

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Guess on, token by token; each `next` costs about `Quote.guess_ms`."""
        cache, drafter, clock = self._cache, self._drafter, self._drafter.clock
        self.bridge_ms = 0.0
        if cache is None:
            return
        started = clock()
        num_read = self._catch_up(cache, prefix)
        if not num_read:
            return
        self._num_read, cache.text = len(self._text), list(self._text)
        self._translator.start()
        place = len(prefix)
        while True:
            token, probability = cache.model.guess()
            bridged = self._bridged(token, probability)
            drafter.costs.observe(clock() - started, num_read, len(bridged))
            for guess in bridged:
                yield self._proposal(guess, place)
                place += 1
            if self._translator.is_over or len(cache.tokens) >= cache.model.num_context:
                return
            started, num_read = clock(), 1
            cache.append([token])

    def learn(self, kept: Kept) -> None:
        """Count every guess that the target's answer judged; what it said is read when asked."""
        drafter = self._drafter
        for proposals, tokens in kept.guesses_of(drafter.name):
            drafter.calibration.learn(proposals, tokens)
        self._unread.extend(kept.tokens)
        self._text.extend(kept.tokens)

    def close(self) -> None:
        """Leave the cache to the next answer."""
        if self._cache is not None:
            self._cache.is_taken = False
            self._cache = None

    def _bridged(self, token: int, probability: float) -> Sequence[BridgedToken]:
        """What of the target's tokens a guess completes; its time is taken."""
        started = self._drafter.clock()
        bridged = self._translator.push(token, probability)
        self.bridge_ms += (self._drafter.clock() - started) * 1e3
        return bridged

    def _proposal(self, guess: BridgedToken, place: int) -> Proposal:
        kind = evidence_kind(guess.acceptance, place)
        return Proposal(guess.token, self._drafter.calibration.estimate(kind), kind)

    def _known_fertility(self) -> float:
        """Its own tokens for one of the target's, in the last message of the prompt."""
        if self._fertility is None:
            text = _last_said(self._prompt.prompt)[-_NUM_WEIGHED:]
            target, own = (
                len(each.encode(text.encode("utf-8", "replace")).tokens)
                for each in self._drafter.vocabularies
            )
            self._fertility = (own + _FEW_ALIKE) / (target + _FEW_ALIKE)
        return self._fertility

    def _catch_up(self, cache: _Cache, prefix: Sequence[int]) -> int:
        """Bring the cache to all that was said, and `prefix`; returns the tokens read, or 0.

        0 means that what was said, or `prefix`, ends in a way that this model cannot go on from.
        """
        started = self._drafter.clock()
        reader = self._follow(cache)
        draft = reader.preview(prefix)
        self.bridge_ms += (self._drafter.clock() - started) * 1e3
        if draft is None or not reader.can_draft:
            return 0
        said, extra = reader.tokens[: draft.num_keep], draft.tokens
        wanted = [*cache.past(said), *extra]
        if not wanted:
            return 0
        same = min(self._num_valid, len(wanted) - len(extra))
        num_kept = common_prefix(cache.tokens, wanted, same)
        num_context = cache.model.num_context
        if len(wanted) - num_kept > WINDOW or len(wanted) + _RESERVE > num_context:
            cache.num_skipped = max(len(said) - NUM_SINKS - min(WINDOW, num_context // 2), 0)
            wanted = [*cache.past(said), *extra]
            num_kept = common_prefix(cache.tokens, wanted)
        num_kept = min(num_kept, len(wanted) - 1)  # the last one is read for what follows it
        cache.truncate(num_kept)
        cache.append(wanted[num_kept:])
        self._num_valid = len(wanted) - len(extra)
        return len(wanted) - num_kept

    def _follow(self, cache: _Cache) -> DrafterReader:
        """Turn what was said since it was last asked into its own tokens."""
        if self._reader is None:
            self._reader = DrafterReader(*self._drafter.vocabularies)
            self._reader.begin(self._drafter.render(self._prompt_or_text()))
            if not _is_continued(cache, self._reader.tokens):
                cache.num_skipped = 0  # what is not read is of a conversation that is over
        feed = self._reader.extend(self._unread)
        self._unread = []
        for stretch in self._reader.take_aligned():
            learn(self._drafter.ngrams, self._drafter.vocabularies[0], stretch)
        self._num_valid = max(min(self._num_valid, feed.num_keep - cache.num_skipped), 0)
        return self._reader

    def _prompt_or_text(self) -> Prompt:
        """The prompt as it was asked; as the text of its tokens where only these are known."""
        if self._prompt.prompt:
            return self._prompt.prompt
        return self._drafter.vocabularies[0].decode(self._prompt.tokens).decode("utf-8", "replace")


def _is_continued(cache: _Cache, said: Sequence[int]) -> bool:
    """Whether a new prompt, cut as the last one was, begins with most of what was read."""
    same = common_prefix(cache.tokens, cache.past(said))
    return same > max(len(cache.tokens) // 2, NUM_SINKS)


def _last_said(prompt: Prompt) -> str:
    """The last message, or the whole of a plain text."""
    if isinstance(prompt, str):
        return prompt
    return prompt[-1].content if prompt else ""


def new_calibration() -> Acceptance:
    """Estimates by the kinds of evidence of this strategy; the prior believes the drafter."""
    bounds = (0.0, *_EDGES, 1.0)
    middles = [(low + high) / 2 for low, high in itertools.pairwise(bounds)]
    return Acceptance(middles * _NUM_PLACES)


def evidence_kind(probability: float, place: int) -> int:
    """Number of the class of evidence behind a guess at a place in the draft."""
    return bisect.bisect_right(_EDGES, probability) + min(place, _NUM_PLACES - 1) * (
        len(_EDGES) + 1
    )
