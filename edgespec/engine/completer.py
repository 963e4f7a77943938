"""Text in, text out: what chat, server and benchmark use (`edgespec.protocols.Completer`)."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from edgespec.engine.engine import Engine, Limits
from edgespec.engine.logprobs import token_logprob
from edgespec.engine.prompt import encode_prompt
from edgespec.engine.tally import Tally
from edgespec.engine.text_stream import TextStream
from edgespec.errors import Cancelled
from edgespec.protocols import Sampler, TextBridge
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    FinishReason,
    Message,
    Prompt,
    SamplingParams,
    ServedModel,
    SpeculationStats,
    Timings,
    TokenLogprob,
)

SamplerFactory = Callable[[SamplingParams], Sampler]
AnswerListener = Callable[[CompletionRequest, Sequence[int], Completion], None]
"""Is told each answer: the request, the tokens of its prompt, what came of it; must not raise."""


class EngineCompleter:
    """Implements `edgespec.protocols.Completer` over an engine: one answer at a time."""

    def __init__(
        self,
        engine: Engine,
        bridge: TextBridge,
        make_sampler: SamplerFactory,
        model: ServedModel,
        prompt_readers: Sequence[Callable[[Prompt], None]] = (),
        listeners: Sequence[AnswerListener] = (),
    ) -> None:
        """`make_sampler` builds a fresh chain for each answer and raises on nonsense values.

        `prompt_readers` are told each prompt as text: drafters with a template of their own.
        `listeners` are told each answer, cut short or not, before its last chunk is yielded.
        """
        self._engine = engine
        self._bridge = bridge
        self._make_sampler = make_sampler
        self._model = model
        self._prompt_readers = tuple(prompt_readers)
        self._listeners = tuple(listeners)
        self.turn = threading.Lock()

    @property
    def model(self) -> ServedModel:
        """The loaded target and how it is served."""
        return self._model

    def stream(self, request: CompletionRequest) -> Iterator[Chunk]:
        """Answer `request`; the last chunk carries the `Completion`."""
        self.resume()  # first, so that a `cancel` from here on counts
        yield from self.stream_on(request)

    def resume(self) -> None:
        """Take back a `cancel` that met no answer."""
        self._engine.target.resume()

    def stream_on(self, request: CompletionRequest) -> Iterator[Chunk]:
        """As `stream`, after `resume`."""
        tally = Tally(time.perf_counter)
        num_context = self._engine.target.num_context
        prompt = encode_prompt(request, self._bridge, num_context)
        for read in self._prompt_readers:
            read(prompt.prompt)
        room = num_context - len(prompt.tokens)
        limits = Limits(
            max_tokens=min(request.max_tokens or room, room),
            speculate=request.speculate,
            reuse_prefix=request.reuse_prefix,
        )
        answer = _Answer(self._engine, self._bridge, request, tally, prompt.num_dropped_messages)
        sampler = self._make_sampler(request.sampling)
        try:
            for chunk in answer.run(prompt.tokens, sampler, limits):
                if chunk.completion is not None:
                    self._tell(request, prompt.tokens, chunk.completion)
                yield chunk
        finally:
            sampler.close()

    def answer(self, request: CompletionRequest) -> EngineAnswer:
        """The handle of an answer to `request`; it begins when its first chunk is asked for."""
        return EngineAnswer(self, request)

    def _tell(
        self, request: CompletionRequest, prompt: Sequence[int], completion: Completion
    ) -> None:
        for listener in self._listeners:
            listener(request, prompt, completion)

    def cancel(self) -> None:
        """End the answer under way, from any thread."""
        self._engine.target.abort()

    def forget(self) -> None:
        """Drop the KV cache, so that the next answer starts from nothing."""
        self._engine.forget()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that the conversation takes in the context, template included."""
        return len(self._bridge.encode_chat(messages))

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id, special tokens rendered."""
        return self._bridge.piece(token, special=True)


class EngineAnswer:
    """Implements `edgespec.protocols.Answer` over a completer of one answer at a time."""

    def __init__(self, completer: EngineCompleter, request: CompletionRequest) -> None:
        """Use `EngineCompleter.answer`."""
        self._completer = completer
        self._request = request
        self._lock = threading.Lock()
        self._chunks: Iterator[Chunk] | None = None
        self._is_cancelled = self._is_over = False

    def __iter__(self) -> Iterator[Chunk]:
        """The answer itself."""
        return self

    def __next__(self) -> Chunk:
        """Compute the next chunk."""
        if self._is_over:
            raise StopIteration
        chunks = self._chunks or self._begin()
        if chunks is None:
            self._is_over = True
            return Chunk("", completion=_unbegun())
        try:
            chunk = next(chunks)
        except BaseException:
            self._end()
            raise
        if chunk.completion is not None:
            self._end()
        return chunk

    def _begin(self) -> Iterator[Chunk] | None:
        """Wait for the answers before this one; None if it was cancelled meanwhile."""
        while not self._completer.turn.acquire(timeout=0.02):
            if self._is_cancelled:
                return None
        with self._lock:
            if self._is_cancelled:
                self._completer.turn.release()
                return None
            self._completer.resume()
            self._chunks = self._completer.stream_on(self._request)
            return self._chunks

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
        self._completer.turn.release()

    def cancel(self) -> None:
        """End the answer, begun or not, from any thread."""
        with self._lock:
            self._is_cancelled = True
            if self._chunks is not None and not self._is_over:
                self._completer.cancel()

    def close(self) -> None:
        """Cancel, and take what is left."""
        self.cancel()
        for _ in self:
            pass


def _unbegun() -> Completion:
    """What comes of an answer that was cancelled before it began."""
    return Completion("", (), "cancelled", Timings(0.0, 0.0, 0.0, 0, 0, 0), SpeculationStats())


class _Answer:
    """One answer while it is generated: tokens to text, stops, log-probabilities."""

    def __init__(
        self,
        engine: Engine,
        bridge: TextBridge,
        request: CompletionRequest,
        tally: Tally,
        num_dropped: int,
    ) -> None:
        self._engine = engine
        self._bridge = bridge
        self._request = request
        self._tally = tally
        self._num_dropped = num_dropped
        self._stream = TextStream(request.stop)
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._fresh: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish: FinishReason = "length"

    def run(self, prompt: list[int], sampler: Sampler, limits: Limits) -> Iterator[Chunk]:
        """Yield a chunk after each pass and a last one with the completion."""
        try:
            for _ in self._engine.generate(prompt, sampler, limits, self._take, self._tally):
                self._tally.plain_token_ms = self._engine.plain_token_ms()
                yield self._chunk()
        except Cancelled:
            self._finish = "cancelled"
        self._fresh.append(self._stream.finish())
        last = self._chunk()
        yield dataclasses.replace(last, completion=self._completion())

    def _take(self, token: int, row: int) -> bool:
        """Take one emitted token; True if it ends the answer."""
        self._tokens.append(token)
        if self._request.num_top_logprobs is not None:
            logits = self._engine.target.logits(row)
            self._logprobs.append(token_logprob(logits, token, self._request.num_top_logprobs))
        ended = self._bridge.is_end(token)
        if not ended:
            self._fresh.append(self._stream.push(self._bridge.piece(token)))
        if ended or self._stream.stopped:
            self._finish = "stop"
            return True
        return False

    def _chunk(self) -> Chunk:
        text = "".join(self._fresh)
        self._text.append(text)
        logprobs = tuple(self._logprobs)
        self._fresh.clear()
        self._logprobs.clear()
        return Chunk(text, logprobs, self._tally.stats(), self._tally.timings())

    def _completion(self) -> Completion:
        return Completion(
            text="".join(self._text),
            token_ids=tuple(self._tokens),
            finish_reason=self._finish,
            timings=self._tally.timings(),
            stats=self._tally.stats(),
            num_dropped_messages=self._num_dropped,
        )
