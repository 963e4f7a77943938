"""What the parts ask of each other, as small protocols; implementations come in by constructor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgespec.types import Chunk, CompletionRequest, Message, Proposal, ServedModel

if TYPE_CHECKING:  # a process that holds no model has no use for numpy
    import numpy as np
    from numpy.typing import NDArray


class Answer(Protocol):
    """The handle of one request, from its birth: iterate its chunks, or end it.

    The last chunk carries the `Completion`. Iterating raises EdgeSpecError (overflow, bad sampler
    values, a grammar that does not parse) before the first chunk with text. One thread iterates;
    `cancel` may come from any other, at any time.
    """

    def __iter__(self) -> Iterator[Chunk]:
        """The answer itself."""
        ...

    def __next__(self) -> Chunk:
        """Wait for the next chunk; raises StopIteration after the last one."""
        ...

    def cancel(self) -> None:
        """End the answer within 100 ms, begun or not; what came before stands.

        The last chunk then has the finish reason "cancelled". Does nothing once it is over.
        """
        ...

    def close(self) -> None:
        """Cancel, and let go of what is left; for those who iterate no further."""
        ...


class Completer(Protocol):
    """What a front end (chat, server, benchmark) needs: questions in, streamed text out.

    Any thread may ask at any time; whose turn it is when several answers are open is the
    completer's business.
    """

    @property
    def model(self) -> ServedModel:
        """The loaded target and how it is served."""
        ...

    def answer(self, request: CompletionRequest) -> Answer:
        """The handle of an answer to `request`; returns at once and never raises.

        What was computed stays in the KV cache for the next turn, however the answer ends.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens that the conversation takes in the context, template included."""
        ...

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id, for log-probabilities; special tokens are rendered."""
        ...


class Target(Protocol):
    """A model with a KV cache of one sequence, scored row by row.

    The engine owns the order of calls; nothing else may touch the same context meanwhile.
    """

    @property
    def num_context(self) -> int:
        """Cells of the KV cache."""
        ...

    @property
    def num_cached(self) -> int:
        """Tokens in the KV cache: the next scored token gets this position."""
        ...

    @property
    def max_rows(self) -> int:
        """Most rows in one pass for which the logits are those of one row at a time."""
        ...

    @property
    def can_roll_back(self) -> bool:
        """False where `truncate` can only forget everything (recurrent and hybrid models)."""
        ...

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append `tokens` (at least one); row 0 of the logits is then the last token's.

        Raises Cancelled when `abort` was called, NativeLibraryError on failure; `num_cached` then
        tells how many of `tokens` the cache holds.
        """
        ...

    def score(self, tokens: Sequence[int]) -> None:
        """Append `tokens` in one pass and keep the logits of every row; raises as `prefill`."""
        ...

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: shape (num_vocab,), float32, a view.

        Valid until the next pass; not to be written to.
        """
        ...

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens of the cache.

        Where the target cannot roll back, everything is forgotten instead.
        """
        ...

    def abort(self) -> None:
        """Make the pass under way, or the next one, raise Cancelled; callable from any thread."""
        ...

    def resume(self) -> None:
        """Take back an `abort` that met no pass."""
        ...


class Sampler(Protocol):
    """Chooses the next token as plain decoding would; holds the chain's state.

    One draw per emitted token, in order: this is what makes speculation exact.
    """

    def begin(self, prompt: Sequence[int]) -> None:
        """Let the chain see the prompt (penalties look back into it); once per answer."""
        ...

    def sample(self, target: Target, row: int) -> int:
        """Draw the token that follows `row` and advance the chain by it."""
        ...

    def close(self) -> None:
        """Free what the chain holds."""
        ...


class RowWatcher(Protocol):
    """Is shown what the target said, and how likely it found it; quick, and never raises."""

    def watch(self, tokens: Sequence[int], target: Target) -> None:
        """`tokens[i]` was drawn at row i of the last pass, whose logits are still valid."""
        ...


class Drafter(Protocol):
    """Proposes tokens that may follow the conversation so far; knows nothing of the target's speed.

    The engine calls `begin` once per answer, then in turns `propose`, `learn` and `extend`.
    """

    @property
    def name(self) -> str:
        """The strategy's name, as statistics and settings show it."""
        ...

    @property
    def cost_ms(self) -> float:
        """Measured milliseconds to propose one more token; 0 for look-ups."""
        ...

    @property
    def start_ms(self) -> float:
        """Expected milliseconds, besides `cost_ms`, to read what was said since it was asked."""
        ...

    @property
    def fertility(self) -> float:
        """Its own tokens for one of the target's, in what was last said to the target.

        1 where it uses the target's; more where it has few words for such a text.
        """
        ...

    @property
    def outlook(self) -> float:
        """Share of its guesses that were kept lately: what to expect of one not yet pulled."""
        ...

    def begin(self, prompt: Sequence[int]) -> None:
        """Start an answer to `prompt` (all tokens of the context, system message included)."""
        ...

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield one guess after another, the first following the conversation and then `prefix`.

        Lazy: the planner pulls another token only while it is worth `cost_ms`. Changes nothing
        visible. Valid until the next `extend` or `propose`. May yield nothing.
        """
        ...

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Calibrate the estimates: `proposals` is what was pulled in a row from one `propose`.

        `kept` is what the target said from there on; it judges guesses that were never verified,
        too. Those beyond it, or beyond the first wrong one, are not judged.
        """
        ...

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens that the target kept."""
        ...


class TextBridge(Protocol):
    """Text to the target's token ids and back: the only place where the two meet."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the model wants around it."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own template, up to the assistant's turn."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; control tokens are empty unless `special`."""
        ...

    def is_end(self, token: int) -> bool:
        """True if `token` ends an answer."""
        ...


class FactStore(Protocol):
    """Remembers small JSON values between runs; losing one costs a measurement, never an answer."""

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The remembered value, or None."""
        ...

    def put(self, kind: str, key: str, value: Mapping[str, Any]) -> bool:
        """Remember `value`; False if that was not possible."""
        ...
