"""What the parts ask of each other, as small protocols; implementations come in by constructor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgespec.types import (
    NO_TEMPLATE_VALUES,
    Chunk,
    Completion,
    CompletionRequest,
    EncodedPrompt,
    Insight,
    Message,
    ServedModel,
    TemplateValues,
)

if TYPE_CHECKING:  # a process that holds no model has no use for numpy, nor for passes
    import numpy as np
    from numpy.typing import NDArray

    from edgespec.passes import Kept, Part, Proposal, SavedPrompt, Stretch


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

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        """Tokens that a conversation takes in the context, template included, or a plain text."""
        ...

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id, for log-probabilities; special tokens are rendered."""
        ...

    def insight(self) -> Insight:
        """What is known now of speed here; at any time, also while answers are under way."""
        ...


class TextCompleter(Completer, Protocol):
    """What a server needs besides: prompts as tokens and as text."""

    def encode(self, request: CompletionRequest) -> tuple[int, ...]:
        """Token ids of a request's prompt, whether they fit the context or not.

        Raises UsageError where the chat template refuses the conversation.
        """
        ...

    def render(self, request: CompletionRequest) -> str:
        """The text that a request's conversation becomes; raises UsageError as `encode`."""
        ...

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> tuple[int, ...]:
        """Token ids of a text, which is not taken for a prompt.

        `add_special` adds what the model wants around a sequence; `parse_special` reads the text of
        control tokens as those tokens.
        """
        ...

    def embed(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """The mean of the target's final hidden states over a text, of length 1.

        Waits for passes of answers, and lets them come between. Raises UsageError for a text that
        is too long, or empty.
        """
        ...


class Target(Protocol):
    """A model with a KV cache of one or several slots, scored together in passes.

    A slot holds one text. The engine owns the order of calls; nothing else may touch the same
    context meanwhile.
    """

    @property
    def num_slots(self) -> int:
        """Texts that the cache holds at a time; they are numbered from 0."""
        ...

    @property
    def num_context(self) -> int:
        """Cells of the KV cache, for all slots together."""
        ...

    @property
    def num_batch(self) -> int:
        """Most tokens of one pass."""
        ...

    @property
    def max_rows(self) -> int:
        """Most rows in one pass for which the logits are those of one row at a time."""
        ...

    @property
    def max_branches(self) -> int:
        """Most leaves of a pass's drafts besides those of their main chains."""
        ...

    @property
    def reads_alike(self) -> bool:
        """Whether a text read in pieces of any size gives the logits of one read whole."""
        ...

    @property
    def can_roll_back(self) -> bool:
        """False where `truncate` can only forget everything (recurrent and hybrid models)."""
        ...

    def num_cached(self, slot: int) -> int:
        """Tokens of a slot in the KV cache: the next one gets this position."""
        ...

    def score(self, parts: Sequence[Part]) -> None:
        """Compute one pass over parts of different slots; then `keep` must be called for each.

        The rows with logits are numbered through, part after part: first the part's last token,
        then the nodes of its draft. Raises Cancelled when `abort` was called, NativeLibraryError on
        failure; the slots then hold what they held before, or nothing where they cannot roll back.
        """
        ...

    def keep(self, slot: int, path: Sequence[int]) -> None:
        """Keep of the last draft the nodes of `path`, from the first on, and drop the others.

        Of a path that leaves the main chain only the nodes before are cached: `num_cached` tells.
        """
        ...

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: shape (num_vocab,), float32, a view.

        Valid until the next pass; not to be written to.
        """
        ...

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Final hidden state of one row: shape (num_embedding,), float32, a view as `logits`.

        Zeros after a pass that read a prompt, where it would cost the logits of every row. Raises
        NativeLibraryError where the target was not opened to give any.
        """
        ...

    def truncate(self, slot: int, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens of a slot.

        Where the target cannot roll back, everything is forgotten instead.
        """
        ...

    def save(self, slot: int) -> tuple[Stretch, ...]:
        """What a slot holds, for `restore`; raises NativeLibraryError."""
        ...

    def restore(self, slot: int, stretches: Sequence[Stretch]) -> None:
        """Put what was saved, from its first token on, into an empty slot.

        Raises NativeLibraryError, also where there is no room; the slot is empty then.
        """
        ...

    def abort(self) -> None:
        """Make the pass under way, or the next one, raise Cancelled; callable from any thread."""
        ...

    def resume(self) -> None:
        """Take back an `abort` that met no pass."""
        ...


class PromptCache(Protocol):
    """Keeps what a target computed of conversations that its slots hold no more; never raises.

    A conversation of the name "" is one that is told by its text. What is kept of an owner's is
    found for this owner only.
    """

    def find(self, prompt: Sequence[int], num_known: int, owner: str = "") -> SavedPrompt | None:
        """What shares more of `prompt` than `num_known` tokens, by enough to be worth loading."""
        ...

    def lacks(self, conversation: str, text: Sequence[int], owner: str = "") -> bool:
        """Whether `keep` would add anything."""
        ...

    def keep(
        self,
        conversation: str,
        text: Sequence[int],
        stretches: Sequence[Stretch],
        owner: str = "",
    ) -> None:
        """Keep the state of a conversation, in the place of an older one; returns at once."""
        ...


class Matcher(Protocol):
    """What a constraint still allows in one answer.

    `accept` alone moves it; the others look ahead, and change nothing that can be seen.
    """

    def allowed(self) -> NDArray[np.intp]:
        """Ids of the tokens that may come next, ascending: shape (num_allowed,), never empty.

        Raises GrammarError where nothing continues.
        """
        ...

    def accept(self, token: int) -> None:
        """The answer goes on with `token`; raises GrammarError if it may not."""
        ...

    def forced(self, tokens: Sequence[int] = ()) -> int | None:
        """The only token that `allowed` would give after `tokens`; None if there are several.

        Also None where the answer can only end.
        """
        ...

    def takes(self, tokens: Sequence[int], token: int) -> bool:
        """Whether `token` may follow `tokens`, ends of the answer left aside."""
        ...


class Sampler(Protocol):
    """Chooses the next token as plain decoding would; holds the chain's state.

    One draw per emitted token, in order: this is what makes speculation exact.
    """

    @property
    def matcher(self) -> Matcher | None:
        """What constrains the draws, if anything does; moved by `sample`."""
        ...

    def begin(self, prompt: Sequence[int]) -> None:
        """Let the chain see the prompt (penalties look back into it); once per answer."""
        ...

    def sample(self, target: Target, row: int) -> int:
        """Draw the token that follows `row` and advance the chain by it."""
        ...

    def close(self) -> None:
        """Free what the chain holds."""
        ...


@dataclass(frozen=True, slots=True)
class Quote:
    """What a drafter asks for its next guesses; a look-up gives the default, which is nothing.

    `guess_ms` is what each proposal takes, `start_ms` what reading takes first, in milliseconds.
    `expected` is the probability that a guess not yet pulled is kept. `fertility` is how many of
    its own tokens the drafter has for one of the target's, in what was last said to the target: 1
    where it uses the target's, more where it has few words for such a text. `guess_bytes` are the
    weights that are read for each proposal.
    """

    guess_ms: float = 0.0
    start_ms: float = 0.0
    expected: float = 1.0
    fertility: float = 1.0
    guess_bytes: int = 0


FREE = Quote()


class Drafter(Protocol):
    """What all answers share of one strategy: weights, estimates, indexes.

    Knows nothing of the target's speed, nor of planners.
    """

    @property
    def name(self) -> str:
        """The strategy's name, as statistics and settings show it."""
        ...

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), matcher: Matcher | None = None
    ) -> DraftSession:
        """Follow an answer to `prompt` of which `said` is there; others may still be open.

        What `matcher` refuses need not be left out: no such guess is verified.
        """
        ...


class DraftSession(Protocol):
    """One drafter following one answer; called in turns `propose` and `learn`."""

    @property
    def quote(self) -> Quote:
        """What the next guesses cost and promise."""
        ...

    @property
    def bridge_ms(self) -> float:
        """What of the last `propose` went into another vocabulary, in milliseconds."""
        ...

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """Yield one guess after another, the first following the text and then `prefix`.

        Lazy: another one is pulled only while it is worth its cost. Changes nothing visible. Valid
        until the next `learn` or `propose`. May yield nothing.
        """
        ...

    def learn(self, kept: Kept) -> None:
        """Follow the target: append `kept.tokens`, and calibrate by `kept.guesses_of(name)`."""
        ...

    def close(self) -> None:
        """The answer is over."""
        ...


class Observer(Protocol):
    """Is told all that happens in answers: records it, learns from it, puts other work aside."""

    def open(self, request: CompletionRequest, prompt: EncodedPrompt) -> Observation:
        """An answer begins, before anything is computed; quick, and never raises."""
        ...


class Observation(Protocol):
    """One answer under way; quick, and never raises."""

    def take(self, kept: Kept) -> None:
        """A pass gave the answer something; views of its rows are valid until this returns."""
        ...

    def close(self, completion: Completion | None) -> None:
        """The answer is over; None where an error ended it."""
        ...


class TextBridge(Protocol):
    """Text to the target's token ids and back: the only place where the two meet."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the model wants around it."""
        ...

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> list[int]:
        """Token ids of a conversation in the model's own template, up to the assistant's turn.

        With `continue_final_message` the last message is the assistant's and stays open.
        """
        ...

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        template: TemplateValues = NO_TEMPLATE_VALUES,
    ) -> str:
        """The text whose token ids `encode_chat` gives."""
        ...

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text, which is not taken for a prompt."""
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
