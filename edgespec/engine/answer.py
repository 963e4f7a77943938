"""One answer from its birth to its end: what was said, what waits to be taken, how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator

from edgespec.engine.decoding import Decoding
from edgespec.engine.tally import Tally
from edgespec.engine.transcript import Transcript
from edgespec.errors import EdgeSpecError
from edgespec.passes import Kept
from edgespec.protocols import Observation, Sampler, TextBridge
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    EncodedPrompt,
    Message,
    PrefillProgress,
    Prompt,
)


class EngineAnswer:
    """Implements `edgespec.protocols.Answer`; made by `EngineCompleter.answer`."""

    def __init__(
        self,
        request: CompletionRequest,
        bridge: TextBridge,
        wait: Callable[[EngineAnswer], None],
        interrupt: Callable[[], None],
    ) -> None:
        """`wait` returns once the answer has arrived; `interrupt` has a cancel seen soon."""
        self.request = request
        self.is_cancelled = False
        self.is_prepared = False
        self.prompt: EncodedPrompt | None = None
        self.decoding: Decoding | None = None
        self.sampler: Sampler | None = None
        self.observation: Observation | None = None
        self.transcript = Transcript(request, bridge)
        self._wait = wait
        self._interrupt = interrupt
        self._tally = Tally(time.perf_counter)
        self._chunks: deque[Chunk] = deque()
        self._is_over = False
        self._error: Exception | None = None

    @property
    def has_arrived(self) -> bool:
        """Whether the next chunk, or the end, is there."""
        return bool(self._chunks) or self._is_over

    def __iter__(self) -> Iterator[Chunk]:
        """The answer itself."""
        return self

    def __next__(self) -> Chunk:
        """The next chunk; computes it, and those of others, unless it is there."""
        self._wait(self)
        if self._chunks:
            return self._chunks.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def cancel(self) -> None:
        """End the answer, begun or not, from any thread."""
        self.is_cancelled = True
        if not self._is_over:
            self._interrupt()

    def close(self) -> None:
        """Cancel, and take what is left."""
        self.cancel()
        with contextlib.suppress(EdgeSpecError):
            for _ in self:
                pass

    def begin(self, decoding: Decoding, num_batch: int) -> None:
        """The answer is let in; if reading its prompt takes several passes, that is told."""
        num_prompt, num_cached = len(decoding.prompt.tokens), decoding.num_cached
        if num_prompt - num_cached > num_batch:
            progress = PrefillProgress(num_cached, num_prompt, num_cached)
            self._put(Chunk("", progress=progress))

    def take(self, kept: Kept) -> Kept:
        """Add what a pass gave; returns it cut where a stop string was complete."""
        started = time.perf_counter()
        kept, chunk = self.transcript.take(kept)
        self._tally.take(kept, (time.perf_counter() - started) * 1e3)
        if self.observation is not None:
            self.observation.take(kept)
        if kept.tokens or kept.error is None:
            self._put(chunk)
        return kept

    def finish(self, num_context: int) -> tuple[Prompt, EncodedPrompt] | None:
        """The answer is over: tell who observes it, then put the last chunk.

        If it was cut: what would ask for more of it, and that in the tokens that there are.
        """
        transcript, prompt = self.transcript, self.prompt or EncodedPrompt(())
        reason = "cancelled" if self.is_cancelled else transcript.finish_reason
        chunk = transcript.finish(is_cut=reason != "stop")
        completion = Completion(
            text=transcript.text,
            token_ids=tuple(transcript.tokens),
            finish_reason=reason,
            timings=self._tally.timings(),
            stats=self._tally.stats(),
            num_dropped_messages=prompt.num_dropped_messages,
            is_context_full=reason == "length"
            and len(prompt.tokens) + len(transcript.tokens) >= num_context,
            stop_string=transcript.stop_string,
        )
        if self.observation is not None:
            self.observation.close(completion)
        self._put(dataclasses.replace(chunk, completion=completion))
        self._is_over = True
        if reason == "stop" or isinstance(self.request.prompt, str) or not transcript.text:
            return None
        said = (*prompt.tokens, *transcript.tokens[: transcript.num_whole])
        return _continued(self.request, transcript.text), dataclasses.replace(prompt, tokens=said)

    def fail(self, error: Exception) -> None:
        """An error ended the answer; it is raised after the chunks before it."""
        if self.observation is not None:
            self.observation.close(None)
        self._error = error
        self._is_over = True

    def _put(self, chunk: Chunk) -> None:
        stats, timings = self._tally.stats(), self._tally.timings()
        self._chunks.append(dataclasses.replace(chunk, stats=stats, timings=timings))


def _continued(request: CompletionRequest, text: str) -> Prompt:
    """The conversation that asks for more of an answer that was cut after `text`."""
    before = tuple(message for message in request.prompt if isinstance(message, Message))
    if request.continue_final_message:
        *before_it, begun = before
        return (*before_it, dataclasses.replace(begun, content=begun.content + text))
    return (*before, Message("assistant", text))
