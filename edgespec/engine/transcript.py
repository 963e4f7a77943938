"""One answer as text: what each pass adds to it, where from, and where a stop string ends it."""

from __future__ import annotations

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

    @property
    def text(self) -> str:
        """All that chunks told so far."""
        return "".join(self._text)

    def take(self, kept: Kept) -> tuple[Kept, Chunk]:
        """A chunk of what a pass gave, and that itself, cut where a stop string was complete."""
        texts: list[str] = []
        logprobs: list[TokenLogprob] = []
        for index, (token, source) in enumerate(zip(kept.tokens, kept.sources, strict=True)):
            self.tokens.append(token)
            if self._num_top is not None:
                logprobs.append(token_logprob(kept.logits(index), token, self._num_top))
            if not self._bridge.is_end(token):
                texts.append(self._stream.push(self._bridge.piece(token), source))
            if self._stream.is_whole:
                self.num_whole = len(self.tokens)
            if self._stream.stopped:
                kept = kept.cut(index + 1)
                break
        if kept.ends:
            self.finish_reason = "stop"
        return kept, self._chunk("".join(texts), tuple(logprobs), kept)

    def finish(self, *, is_cut: bool = False) -> Chunk:
        """What was held back, at the end of the answer.

        Of one that is cut the beginning of a character is left out: the answer may yet go on.
        """
        return self._chunk(self._stream.finish(is_cut=is_cut), (), None)

    def _chunk(self, text: str, logprobs: tuple[TokenLogprob, ...], kept: Kept | None) -> Chunk:
        self._text.append(text)
        progress = kept.progress if kept is not None and not kept.tokens else None
        return Chunk(text, logprobs, spans=self._stream.take_spans(len(text)), progress=progress)
