"""The decode loop: propose, plan, score, verify, keep, emit. Token ids only, no I/O.

Invariant between passes: a slot's cache holds the first tokens of its answer's text, all but the
last one, whatever was drafted (a few less after a sibling was kept). Plain and speculative decoding
leave the same cache behind, so the next turn starts from the same state.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from edgespec.engine.decoding import Decoding, Limits
from edgespec.engine.slots import Slots
from edgespec.engine.verify import Verified, verify
from edgespec.errors import UsageError
from edgespec.passes import Kept, Part, PassRecord
from edgespec.planning.planner import Plan, Planner, Want
from edgespec.protocols import PromptCache, Sampler, Target
from edgespec.types import TARGET, EncodedPrompt, Insight, PrefillProgress

NUM_AHEAD = 256
"""Cells that are reserved for an answer beyond its text: how much it grows before others may have
to make room."""

MOST_WAIT = 3.0
"""Reading beside other answers takes at most so many of their passes at a time for each prompt that
waits, about: with less the others would hardly be faster, and the prompts are read in passes that
pay for few tokens."""

LEAST_CHUNK = 8
"""Fewer tokens are never read in a pass."""

Emitted = list[tuple[Decoding, Kept]]
"""What one pass gave, by answer; views of rows are valid until the next pass."""


class Engine:
    """One target, its planner, and the answers that are open."""

    def __init__(
        self,
        target: Target,
        planner: Planner,
        is_end: Callable[[int], bool],
        clock: Callable[[], float],
        prompts: PromptCache | None = None,
        num_ahead: int = NUM_AHEAD,
    ) -> None:
        """`is_end` tells tokens that end an answer; `clock` gives seconds and never goes back.

        `prompts` keeps what slots hold no more. Cells for `num_ahead` more tokens are reserved for
        an answer, so that it need not be put aside soon.
        """
        self.target = target
        self._planner = planner
        self._is_end = is_end
        self._clock = clock
        self._slots = Slots(target, prompts)
        self._num_ahead = num_ahead
        self._open: list[Decoding] = []  # the eldest first
        self._num_shared = 0  # answers that had a turn in rounds of passes too small for all
        self._read_token_ms: float | None = None
        self._chunk_token_ms: float | None = None  # of the last chunk that was read beside others
        self._write_ms: float | None = None  # what the last pass of the others took
        self._has_read = False  # the last pass read a prompt: the others are next
        self._num_reads = 0

    @property
    def planner(self) -> Planner:
        """Who plans."""
        return self._planner

    def plan_with(self, planner: Planner) -> None:
        """Have another planner plan from the next answer on; only while none is open."""
        assert not self._open, "answers end with the planner that they began with"
        self._planner = planner

    def has_room(self, prompt: EncodedPrompt, limits: Limits) -> bool:
        """Whether an answer can be opened now; one can always be where none is open.

        Those that were put aside come first.
        """
        if any(each.aside is not None for each in self._open):
            return False
        return self._slots.has_room(self._ahead(len(prompt.tokens), self._end(prompt, limits)))

    def open(self, prompt: EncodedPrompt, sampler: Sampler, limits: Limits) -> Decoding:
        """Begin an answer: a slot is taken, nothing is computed yet; needs `has_room`.

        Raises UsageError for an empty prompt.
        """
        if not prompt.tokens:
            raise UsageError("the prompt is empty", "give at least one word")
        end = self._end(prompt, limits)
        slot = self._slots.take(
            prompt.tokens,
            self._ahead(len(prompt.tokens), end),
            reuse=limits.reuse_prefix,
            conversation=limits.conversation,
            owner=limits.owner,
        )
        sampler.begin(prompt.tokens)
        num_cached = self.target.num_cached(slot)
        decoding = Decoding(prompt, sampler, limits, slot, end, list(prompt.tokens), num_cached)
        self._open.append(decoding)
        return decoding

    def step(self, decodings: Sequence[Decoding]) -> Emitted:
        """One target pass over rows of open `decodings` (at least one): what it gave them.

        A prompt is read alone, in turns with the passes of the others: a batch a pass, or less so
        that the others wait no longer than they do for a few of their own. Of several prompts the
        eldest and the one with the least left have turns. What it gave is nothing where all
        `decodings` are put aside for others. Raises Cancelled when the target is aborted, after
        which the step may be repeated, and NativeLibraryError.
        """
        active = self._with_cells(decodings)
        if not active:
            return []
        reading = [each for each in active if self._is_reading(each)]
        writing = [each for each in active if not self._is_reading(each)]
        self._has_read = bool(reading) and not (writing and self._has_read)
        if not self._has_read:
            return self._write(self._sharing(writing))
        decoding = self._next_to_read(reading)
        return [(decoding, self._read(decoding, len(reading), is_alone=not writing))]

    def close(self, decoding: Decoding, num_tokens: int | None = None) -> None:
        """End an answer; of what it said only the first `num_tokens` stay, if that is given."""
        if num_tokens is not None and num_tokens < decoding.num_emitted:
            del decoding.text[len(decoding.prompt.tokens) + num_tokens :]
            decoding.ends = True
        self._planner.close(decoding.contenders or ())
        self._open.remove(decoding)
        if decoding.aside is None:
            self._slots.give_back(decoding.slot, decoding.text)

    def forget(self) -> None:
        """Drop what is cached of answers that are over, so that the next prompt is read whole."""
        self._slots.forget()

    def keep_prompts(self) -> None:
        """Hand the conversations of answers that are over to the prompt cache."""
        self._slots.keep()

    def disown(self, conversation: str) -> None:
        """Keep nothing of a conversation, which was deleted; from any thread."""
        self._slots.disown(conversation)

    def insight(self) -> Insight:
        """What the planner knows of speed; from any thread."""
        insight = self._planner.insight(self.target.max_rows)
        return dataclasses.replace(insight, read_token_ms=self._read_token_ms)

    def _write(self, decodings: Sequence[Decoding]) -> Emitted:
        """A pass that gives each answer a token at least: propose, plan, score, verify, keep."""
        wants = [self._want(each) for each in decodings]
        started = self._clock()
        plans = self._planner.plan(wants, self.target.max_rows)
        plan_ms = (self._clock() - started) * 1e3
        plan_ms -= sum(sum(plan.drafter_ms.values()) for plan in plans)
        parts = [
            Part(decoding.slot, self._unread(decoding), plan.draft)
            for decoding, plan in zip(decodings, plans, strict=True)
        ]
        target_ms = self._write_ms = self._score(parts)
        first_rows = list(itertools.accumulate((part.num_outputs for part in parts), initial=0))
        started = self._clock()
        verified = self._verify(decodings, parts, first_rows)
        times = target_ms, plan_ms, (self._clock() - started) * 1e3
        num_rows = sum(map(len, parts))
        kept = [
            self._kept(decoding, each, row, plan, _record(part, plan, want, num_rows, *times))
            for decoding, each, row, plan, part, want in zip(
                decodings, verified, first_rows, plans, parts, wants, strict=False
            )
        ]
        self._planner.settle(wants, plans, kept, target_ms)
        return list(zip(decodings, kept, strict=True))

    def _read(self, decoding: Decoding, num_waiting: int, *, is_alone: bool) -> Kept:
        """Read on in one of the prompts that wait; after the last of it the next token is drawn."""
        num_cached = self.target.num_cached(decoding.slot)
        num_tokens = self.target.num_batch if is_alone else self._chunk(num_cached, num_waiting)
        part = Part(decoding.slot, self._unread(decoding)[:num_tokens])
        target_ms = self._score([part])
        self._read_token_ms = target_ms / len(part)
        if not is_alone:
            self._chunk_token_ms = self._read_token_ms
        record = PassRecord(len(part), len(part), num_cached, target_ms)
        num_read, num_tokens = num_cached + len(part), len(decoding.text)
        progress = PrefillProgress(num_read, num_tokens, decoding.num_cached, self._read_token_ms)
        if num_read < num_tokens:
            self.target.keep(decoding.slot, ())
            return Kept((), (), (), record, progress=progress)
        [verified] = self._verify([decoding], [part], [0])
        return self._kept(decoding, verified, 0, Plan(), record, progress)

    def _next_to_read(self, reading: Sequence[Decoding]) -> Decoding:
        """Short prompts need not wait for long ones, and long ones come to an end."""
        self._num_reads += 1
        if self._num_reads % 2:
            return min(reading, key=self._open.index)
        return min(reading, key=lambda each: len(self._unread(each)))

    def _chunk(self, context: int, num_waiting: int) -> int:
        """Tokens to be read while others wait, by what they took last.

        Where a text read in pieces would give other bits, all that a pass holds.
        """
        if not self.target.reads_alike:
            return self.target.num_batch
        curve = self._planner.costs.curve_ms(context).tolist()
        token_ms = self._chunk_token_ms or curve[-1] / len(curve)
        most_ms = num_waiting * MOST_WAIT * (self._write_ms or curve[0])
        count = int(most_ms / token_ms) if token_ms else LEAST_CHUNK
        return min(max(count, LEAST_CHUNK), self.target.num_batch)

    def _with_cells(self, decodings: Sequence[Decoding]) -> list[Decoding]:
        """Those of `decodings` that can have a pass: what is aside comes back where there is room.

        Where cells are short the youngest is put aside for the eldest, which thus never waits.
        """
        for each in self._open:
            if each.aside is not None and not self._bring_back(each):
                break
        for each in [each for each in self._open if each in decodings]:
            while each.aside is None and not self._has_cells(each):
                others = [other for other in self._open if other.aside is None]
                others[-1].aside = self._slots.put_aside(others[-1].slot)
        return [each for each in decodings if each.aside is None]

    def _has_cells(self, decoding: Decoding) -> bool:
        """Reserve what a pass may need, and more so as not to ask soon, if that is there."""
        slot, num_tokens = decoding.slot, len(decoding.text)
        least = min(num_tokens + self.target.max_rows, decoding.end)
        return (
            self._slots.reserved(slot) >= least
            or self._slots.reserve(slot, self._ahead(num_tokens, decoding.end))
            or self._slots.reserve(slot, least)
        )

    def _bring_back(self, decoding: Decoding) -> bool:
        num_tokens = self._ahead(len(decoding.text), decoding.end)
        if not self._slots.has_room(num_tokens):
            return False
        decoding.slot = self._slots.bring_back(
            decoding.aside or (),
            num_tokens,
            conversation=decoding.limits.conversation,
            owner=decoding.limits.owner,
        )
        decoding.aside = None
        return True

    def _ahead(self, num_tokens: int, end: int) -> int:
        """Cells for a text of so many tokens and what comes next."""
        return min(num_tokens + self._num_ahead, end)

    def _verify(
        self, decodings: Sequence[Decoding], parts: Sequence[Part], first_rows: Sequence[int]
    ) -> list[Verified]:
        """Draw what the target says at each answer's rows; of its draft the cache keeps no more."""
        paths: list[Sequence[int]] = [()] * len(parts)
        try:
            verified = [
                verify(self.target, decoding.sampler, part.draft, row, self._is_end)
                for decoding, part, row in zip(decodings, parts, first_rows, strict=False)
            ]
            paths = [each.path for each in verified]
        finally:  # whatever was raised, no draft is left in the cache
            for part, path in zip(reversed(parts), reversed(paths), strict=True):
                self.target.keep(part.slot, path)  # the last first: its end is the cache's
        return verified

    def _kept(
        self,
        decoding: Decoding,
        verified: Verified,
        first_row: int,
        plan: Plan,
        record: PassRecord,
        progress: PrefillProgress | None = None,
    ) -> Kept:
        """Append what was emitted to the answer's text, and tell of it."""
        decoding.text.extend(verified.tokens)
        decoding.ends = verified.ends
        draft, num_tokens = plan.draft, len(verified.tokens)
        return Kept(
            verified.tokens,
            (*(draft.sources[node] for node in verified.path), TARGET)[:num_tokens],
            (first_row, *(first_row + 1 + node for node in verified.path))[:num_tokens],
            record,
            plan.guesses,
            draft,
            progress,
            verified.ends,
            decoding.is_over,
            self.target,
            verified.error,
        )

    def _score(self, parts: Sequence[Part]) -> float:
        """One target pass; milliseconds that it took."""
        started = self._clock()
        self.target.score(parts)
        return (self._clock() - started) * 1e3

    def _unread(self, decoding: Decoding) -> tuple[int, ...]:
        """The end of an answer's text that the cache does not hold; never empty."""
        return tuple(decoding.text[self.target.num_cached(decoding.slot) :])

    def _want(self, decoding: Decoding) -> Want:
        """What the planner is asked for; the draft never emits beyond the answer's end.

        A target that cannot forget a wrong guess gets none.
        """
        num_cached, num_tokens = self.target.num_cached(decoding.slot), len(decoding.text)
        num_rows = num_tokens - num_cached
        room = max(min(self.target.max_rows - num_rows, decoding.end - num_tokens - 1), 0)
        matcher = decoding.sampler.matcher
        may_draft = decoding.limits.speculate and self.target.can_roll_back and room > 0
        if decoding.contenders is None and may_draft:
            said = decoding.text[len(decoding.prompt.tokens) :]
            max_tokens = decoding.end - len(decoding.prompt.tokens)
            decoding.contenders = self._planner.open(decoding.prompt, said, max_tokens, matcher)
        return Want(decoding.contenders or (), num_cached, room, num_rows, matcher)

    def _is_reading(self, decoding: Decoding) -> bool:
        """Whether an answer has more to read than a pass with exact rows holds."""
        num_unread = len(decoding.text) - self.target.num_cached(decoding.slot)
        return decoding.num_emitted == 0 or num_unread > max(self.target.max_rows, 1)

    def _sharing(self, writing: Sequence[Decoding]) -> Sequence[Decoding]:
        """Of the answers that are written as many as have exact rows in one pass, in rounds."""
        chosen: list[Decoding] = []
        room = max(self.target.max_rows, 1)
        first = self._num_shared % len(writing)
        for decoding in [*writing[first:], *writing[:first]]:
            room -= len(self._unread(decoding))
            if chosen and room < 0:
                break
            chosen.append(decoding)
        self._num_shared = first + len(chosen) if len(chosen) < len(writing) else 0
        return chosen

    def _end(self, prompt: EncodedPrompt, limits: Limits) -> int:
        """Tokens of the prompt and the longest answer to it."""
        return min(len(prompt.tokens) + limits.max_tokens, self.target.num_context)


def _record(
    part: Part,
    plan: Plan,
    want: Want,
    num_rows: int,
    target_ms: float,
    plan_ms: float,
    verify_ms: float,
) -> PassRecord:
    return PassRecord(
        len(part),
        num_rows,
        want.context,
        target_ms,
        plan.predicted_ms,
        plan.drafter_ms,
        plan.bridge_ms,
        plan.plain_ms,
        plan_ms,
        verify_ms,
    )
