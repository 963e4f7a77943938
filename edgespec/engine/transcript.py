"""One answer as text: what each pass adds to it, where from, and where a stop string ends it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edgespec.engine.logprobs import token_logprob
from edgespec.engine.text_stream import TextStream
from edgespec.passes import Kept
from edgespec.protocols import TextBridge
from edgespec.types import Chunk, CompletionRequest, FinishReason, TokenLogprob


class Transcript:
    """Takes what passes give and tells chunks of text.

    The first `num_whole` of its `tokens` end with a whole character.
    """

    def __init__(self, request: CompletionRequest, bridge: TextBridge) -> None:
        """`request` says what stops the text and which log-probabilities are wanted."""
        self.tokens: list[int] = []
        self.num_whole = 0
        self.finish_reason: FinishReason = "length"
        self._num_top = request.num_top_logprobs
        self._bridge = bridge
        self._stream = TextStream(request.stop)
        self._text: list[str] = []
        self._num_told = 0  # characters
        self._held_logprobs: deque[tuple[int, int, TokenLogprob]] = deque()

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text."""
        return self._stream.stop

    @property
    def text(self) -> str:
        """All that chunks told so far."""
        return "".join(self._text)

    def take(self, kept: Kept) -> tuple[Kept, Chunk]:
        """A chunk of what a pass gave, and that itself, cut where a stop string was complete."""
        texts: list[str] = []
        for index, (token, source) in enumerate(zip(kept.tokens, kept.sources, strict=True)):
            self.tokens.append(token)
            if not self._bridge.is_end(token):
                start = self._stream.num_characters
                texts.append(self._stream.push(self._bridge.piece(token), source))
                if self._num_top is not None:
                    logprob = token_logprob(kept.logits(index), token, self._num_top)
                    self._held_logprobs.append((start, self._stream.num_characters, logprob))
            if self._stream.is_whole:
                self.num_whole = len(self.tokens)
            if self._stream.stopped:
                kept = kept.cut(index + 1)
                break
        if kept.ends:
            self.finish_reason = "stop"
        return kept, self._chunk("".join(texts), kept)

    def finish(self, *, is_cut: bool = False) -> Chunk:
        """What was held back, at the end of the answer.

        Of one that is cut the beginning of a character is left out: the answer may yet go on.
        """
        return self._chunk(self._stream.finish(is_cut=is_cut), None)

    def _chunk(self, text: str, kept: Kept | None) -> Chunk:
        self._text.append(text)
        self._num_told += len(text)
        logprobs = tuple(self._told_logprobs(is_last=kept is None or self._stream.stopped))
        progress = kept.progress if kept is not None and not kept.tokens else None
        return Chunk(text, logprobs, spans=self._stream.take_spans(len(text)), progress=progress)

    def _told_logprobs(self, *, is_last: bool) -> Iterator[TokenLogprob]:
        """Those of tokens whose text was told: whole, or in part where nothing comes after it."""
        while self._held_logprobs:
            start, end, logprob = self._held_logprobs[0]
            if end > self._num_told and not (is_last and start < self._num_told):
                break
            self._held_logprobs.popleft()
            yield logprob
