"""Text in, text out: what chat, server and benchmark use (`edgespec.protocols.Completer`).

Nothing here owns a thread. Whoever waits for a chunk of an answer computes the next pass, for all
answers that are open; others who wait meanwhile find their chunks when it is over.

    answer(request)  waiting -> open (a slot, a sampler) -> over        cancel: at any time
    next(answer)     has a chunk? take it. Else step: let in, one pass, hand out, end

What constrains an answer is compiled by whoever iterates it, before it waits for its turn, so that
nobody else is held up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from edgespec.engine.answer import EngineAnswer
from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.engine.prompt import encode_prompt, prompt_tokens
from edgespec.engine.slots import TOLD_BY_TEXT
from edgespec.errors import Cancelled, UsageError
from edgespec.passes import Kept
from edgespec.protocols import Observer, Sampler, TextBridge
from edgespec.types import (
    CompletionRequest,
    EncodedPrompt,
    Insight,
    Message,
    Prompt,
    SamplingParams,
    ServedModel,
    TemplateValues,
)

SamplerFactory = Callable[[SamplingParams], Sampler]
ReadVector = Callable[[Sequence[int]], Iterator[tuple[float, ...] | None]]

_Asked = tuple[str, TemplateValues, Prompt]
"""Who asked what; of a template, what it is given."""

_MOST_CUT = 4
"""Answers that were cut whose tokens are known, so that they go on as if they never had been."""


class EngineCompleter:
    """Implements `edgespec.protocols.Completer`: as many answers at a time as there are slots."""

    def __init__(
        self,
        engine: Engine,
        bridge: TextBridge,
        make_sampler: SamplerFactory,
        model: ServedModel,
        observer: Observer | None = None,
        complete: Callable[[Insight], Insight] = lambda insight: insight,
        read_vector: ReadVector | None = None,
    ) -> None:
        """`make_sampler` builds a fresh chain for each answer and raises on nonsense values.

        `observer` is told of every answer; it is called by the threads that iterate. `complete`
        adds to an insight what the engine does not know. `read_vector` reads a text in parts and
        gives a vector after the last one, None after the others.
        """
        self._engine = engine
        self.bridge = bridge
        self._make_sampler = make_sampler
        self._model = model
        self._observer = observer
        self._complete = complete
        self._read_vector = read_vector
        self._embedding = threading.Lock()
        self._cut: deque[tuple[_Asked, EncodedPrompt]] = deque(maxlen=_MOST_CUT)
        self._changed = threading.Condition()
        self._is_stepping = False
        self._waiting: deque[EngineAnswer] = deque()
        self._open: list[EngineAnswer] = []

    @property
    def model(self) -> ServedModel:
        """The loaded target and how it is served."""
        return self._model

    def answer(self, request: CompletionRequest) -> EngineAnswer:
        """The handle of an answer to `request`; it begins once somebody waits for its chunks."""
        answer = EngineAnswer(request, self.bridge, self.wait_for, self.interrupt)
        answer.is_prepared = request.sampling.constraint is None
        if answer.is_prepared:
            with self._changed:
                self._waiting.append(answer)
        return answer

    def disown(self, conversation: str) -> None:
        """Keep nothing of what was computed of a conversation, which was deleted."""
        self._engine.disown(conversation)

    def keep_prompts(self) -> None:
        """Hand what was computed of conversations to the prompt cache, between answers."""
        self._engine.keep_prompts()

    def forget(self) -> None:
        """Drop the KV cache of answers that are over, so that the next one starts from nothing."""
        self._engine.forget()

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        """Tokens that a conversation takes in the context, template included, or a plain text."""
        encode = self.bridge.encode
        return len(encode(text) if isinstance(text, str) else self.bridge.encode_chat(text))

    def encode(self, request: CompletionRequest) -> tuple[int, ...]:
        """Token ids of a request's prompt, whether they fit the context or not."""
        return tuple(prompt_tokens(request, self.bridge))

    def render(self, request: CompletionRequest) -> str:
        """The text that a request's conversation becomes; a plain prompt is that already."""
        if isinstance(request.prompt, str):
            return request.prompt
        return self.bridge.render_chat(
            request.prompt,
            continue_final_message=request.continue_final_message,
            template=request.template,
        )

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> tuple[int, ...]:
        """Token ids of a text, which is not taken for a prompt."""
        tokens = self.bridge.tokenize(text, add_special=add_special, parse_special=parse_special)
        return tuple(tokens)

    def embed(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """The mean of the target's final hidden states over a text, of length 1."""
        most = self._model.details.num_embedded
        if self._read_vector is None or not 1 <= len(tokens) <= most:
            raise UsageError(f"a text of {len(tokens)} tokens", f"send 1 to {most}")
        with self._embedding:
            parts = self._read_vector(tokens)
            vector = None
            while vector is None:
                with self._turn():
                    vector = next(parts)
        return vector

    def insight(self) -> Insight:
        """What is known now of speed here."""
        return self._complete(self._engine.insight())

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id, special tokens rendered."""
        return self.bridge.piece(token, special=True)

    def wait_for(self, answer: EngineAnswer) -> None:
        """Step until `answer` has a chunk or is over; one thread steps at a time."""
        if not answer.is_prepared:
            self._prepare(answer)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: answer.has_arrived or not self._is_stepping)
                if answer.has_arrived:
                    return
                self._is_stepping = True
            try:
                self._step()
            finally:
                self._end_turn()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else computes in this block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_stepping)
            self._is_stepping = True
        try:
            yield
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        with self._changed:
            self._is_stepping = False
            self._changed.notify_all()

    def interrupt(self) -> None:
        """End the pass under way, if there is one, so that a cancel is seen."""
        if self._is_stepping:
            self._engine.target.abort()

    def _prepare(self, answer: EngineAnswer) -> None:
        """Make the sampler of an answer, which may take long, then let it wait for its turn."""
        answer.is_prepared = True
        try:
            if not answer.is_cancelled:
                answer.sampler = self._make_sampler(answer.request.sampling)
        except Exception as error:  # noqa: BLE001 - it is this answer's alone
            answer.fail(error)
        finally:
            if not answer.has_arrived:
                with self._changed:
                    self._waiting.append(answer)

    def _step(self) -> None:
        """End who is cancelled; else let in who waits, compute one pass, hand out what it gave."""
        self._engine.target.resume()  # first, so that a cancel from here on ends the pass
        cancelled = self._take_cancelled()
        for each in cancelled:
            self._end(each)
        if cancelled:  # who waits for them is not to wait for a pass of the others
            return
        self._let_in()
        open_now = {each.decoding: each for each in self._open if each.decoding is not None}
        if not open_now:
            return
        try:
            emitted = self._engine.step(list(open_now))
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - of all who share the pass, each hears of it
            for each in list(self._open):
                self._fail(each, error)
            return
        except BaseException:  # who computes is interrupted: what came before stands
            for each in self._open:
                each.is_cancelled = True
            raise
        for decoding, kept in emitted:
            self._hand_out(open_now[decoding], kept)

    def _take_cancelled(self) -> list[EngineAnswer]:
        """The answers that are to end; those that were not begun do not wait any more."""
        with self._changed:  # others may ask for answers meanwhile
            waiting = [each for each in self._waiting if each.is_cancelled]
            for each in waiting:
                self._waiting.remove(each)
        return waiting + [each for each in self._open if each.is_cancelled]

    def _let_in(self) -> None:
        """Begin answers in the order in which they came, as long as there is room."""
        while self._waiting:
            first = self._waiting[0]
            try:
                if not self._begin(first):
                    return
            except Exception as error:  # noqa: BLE001 - it is this answer's alone
                self._fail(first, error)
            self._waiting.popleft()

    def _begin(self, answer: EngineAnswer) -> bool:
        """Open an answer; False if it has to wait for room. Raises EdgeSpecError."""
        request, num_context = answer.request, self._engine.target.num_context
        if answer.prompt is None:
            prompt = encode_prompt(request, self.bridge, num_context)
            prediction = (
                self.tokenize(request.prediction)[:num_context] if request.prediction else ()
            )
            prompt = dataclasses.replace(prompt, owner=request.owner, prediction=prediction)
            answer.prompt = self._as_it_was(request, prompt)
        room = num_context - len(answer.prompt.tokens)
        limits = Limits(
            max_tokens=min(request.max_tokens or room, room),
            speculate=request.speculate,
            reuse_prefix=request.reuse_prefix,
            conversation=(request.conversation or TOLD_BY_TEXT) if request.record else None,
            owner=request.owner,
        )
        if not self._engine.has_room(answer.prompt, limits):
            return False
        if self._observer is not None:
            answer.observation = self._observer.open(request, answer.prompt)
        if answer.sampler is None:
            answer.sampler = self._make_sampler(request.sampling)
        answer.decoding = self._engine.open(answer.prompt, answer.sampler, limits)
        self._open.append(answer)
        answer.begin(answer.decoding, self._engine.target.num_batch)
        return True

    def _as_it_was(self, request: CompletionRequest, prompt: EncodedPrompt) -> EncodedPrompt:
        """The prompt of an answer that goes on, in the tokens that it was cut with.

        Its text alone may be cut into other ones, after which the target may say something else.
        """
        if not request.continue_final_message:
            return prompt
        asked = request.owner, request.template, request.prompt
        known = next((cut for key, cut in self._cut if key == asked), None)
        if known is None or known.num_dropped_messages != prompt.num_dropped_messages:
            return prompt
        fits = len(known.tokens) < self._engine.target.num_context
        return dataclasses.replace(prompt, tokens=known.tokens) if fits else prompt

    def _hand_out(self, answer: EngineAnswer, kept: Kept) -> None:
        """Give an answer what a pass gave it."""
        kept = answer.take(kept)
        if kept.error is not None:
            self._fail(answer, kept.error)
        elif kept.is_over:
            self._end(answer)

    def _end(self, answer: EngineAnswer) -> None:
        """An answer is over; one that is cancelled may not have begun."""
        self._let_go(answer)
        cut = answer.finish(self._engine.target.num_context)
        if cut is not None:
            request = answer.request
            self._cut.append(((request.owner, request.template, cut[0]), cut[1]))

    def _fail(self, answer: EngineAnswer, error: Exception) -> None:
        """An error ended an answer."""
        self._let_go(answer)
        answer.fail(error)

    def _let_go(self, answer: EngineAnswer) -> None:
        """Give back what an answer holds."""
        if answer.decoding is not None:
            self._engine.close(answer.decoding, len(answer.transcript.tokens))
            answer.decoding = None
            self._open.remove(answer)
        if answer.sampler is not None:
            answer.sampler.close()
            answer.sampler = None
