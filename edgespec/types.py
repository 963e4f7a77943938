"""The values that cross module lines: frozen, slotted, without behaviour beyond derived facts.

A conversation enters as `Message`s in a `CompletionRequest`; text leaves as `Chunk`s, the last of
which carries a `Completion`. Below that line everything is token ids: `edgespec.passes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled"]
Overflow = Literal["error", "drop-oldest"]
Exactness = Literal["identical", "near-ties"]
ConstraintKind = Literal["json_schema", "regex", "lark", "gbnf"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the assistant; `arguments` is the text of a JSON object."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, before any chat template.

    `tool_calls` are the assistant's; a tool's turn may say which call it answers (`tool_call_id`)
    and which tool it is (`name`).
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class TemplateValues:
    """What a chat template is given beside the messages, as JSON text; "" for nothing.

    `tools` is a list of tools in OpenAI's form, `variables` an object of further variables.
    """

    tools: str = ""
    variables: str = ""


NO_TEMPLATE_VALUES = TemplateValues()


Prompt = tuple[Message, ...] | str
"""A conversation, or plain text to be continued."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the whole answer must be: text of a JSON schema, a regular expression or a grammar.

    Grammars are Lark's with the start symbol `start`, or GBNF with the start symbol `root`.
    """

    kind: ConstraintKind
    text: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What the sampler chain does to the logits; by default it is greedy and nothing else is on.

    Temperature 0 is greedy. `seed` is an unsigned 32-bit number. Only tokens that the `constraint`
    allows are drawn. Names and meanings are llama.cpp's (`llama_sampler_init_*`).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 1024
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One question to the target.

    `prompt` is either a conversation, rendered through the target's own chat template with
    `template`, or plain text, tokenized as it stands; where `prompt_tokens` are given they are the
    prompt, and `prompt` is "". `prediction` is text that the answer may well be: it is not read,
    but searched for drafts. `max_tokens` None means until the context is full.
    `num_top_logprobs` None means no log-probabilities; 0 gives the chosen token's only.
    `overflow` "drop-oldest" leaves out the oldest turns (never the system message or the last turn)
    until the prompt fits. `conversation` names the conversation that the answer belongs to: its
    tokens are recorded under this name, its messages are kept by whoever named it. None is one that
    is told by its messages, which are recorded, too. Without `record` nothing of this request is
    kept or learned. With `continue_final_message` the conversation ends in an assistant's message
    that the answer continues. What was computed and remembered for one `owner` is of no use to
    another, so that nobody learns by times or counts what others asked; "" is the user themself.
    """

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    overflow: Overflow = "error"
    num_top_logprobs: int | None = None
    speculate: bool = True
    reuse_prefix: bool = True
    conversation: str | None = None
    record: bool = True
    continue_final_message: bool = False
    template: TemplateValues = NO_TEMPLATE_VALUES
    prompt_tokens: tuple[int, ...] = ()
    prediction: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """The next `length` characters of a chunk came from `source`, a drafter or the target itself.

    `source` is a drafter's name, perhaps with a part of it (`drafter_of`), or TARGET where no draft
    was kept.
    """

    length: int
    source: str


PLAIN = "plain"
"""The way to answer that all others are compared with: one token a pass, in this program."""

PRODUCT = "edgespec"
"""The way to answer that people get when they ask for nothing."""

TARGET = "target"
"""The source of what the target said without a draft."""


def drafter_of(source: str) -> str:
    """The drafter of a source, which may name one of its parts behind a slash.

    >>> drafter_of("database/statistics"), drafter_of("context")
    ('database', 'context')
    """
    return source.partition("/")[0]


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """How far reading the prompt is, in tokens; `num_cached` of them were known already.

    The first one of a long prompt comes before anything is computed. `token_ms` is what a token
    took in the last pass, 0 before.
    """

    num_read: int
    num_prompt_tokens: int
    num_cached: int
    token_ms: float = field(default=0.0, compare=False)

    @property
    def left_ms(self) -> float | None:
        """How long reading the rest will take, by the last pass; None before there was one."""
        left = self.num_prompt_tokens - self.num_read
        return left * self.token_ms if self.token_ms else None


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of a prompt, what of it they stand for, and how many messages were left out.

    `owner` is that of the request. `prediction` are tokens that the answer may well be.
    """

    tokens: tuple[int, ...]
    prompt: Prompt = ""
    num_dropped_messages: int = 0
    prediction: tuple[int, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of an emitted token under the target's unmodified logits.

    `top` holds the most likely tokens, best first, as (token id, log-probability).
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class DrafterCounts:
    """Tokens that one drafter proposed, and how many of them the target kept."""

    proposed: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class SpeculationStats:
    """Counts of one answer; the metrics are those of docs/metrics.md.

    `target_passes` counts verification passes, the prefill pass that gave the first token included.
    """

    emitted: int = 0
    target_passes: int = 0
    by_drafter: Mapping[str, DrafterCounts] = field(default_factory=dict)

    @property
    def proposed(self) -> int:
        """Draft tokens that the target verified."""
        return sum(counts.proposed for counts in self.by_drafter.values())

    @property
    def accepted(self) -> int:
        """Draft tokens that the target kept."""
        return sum(counts.accepted for counts in self.by_drafter.values())

    @property
    def acceptance_rate(self) -> float:
        """Accepted over proposed; 0 when nothing was proposed."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def block_efficiency(self) -> float:
        """Emitted tokens per target pass, passes with an empty draft included."""
        return self.emitted / self.target_passes if self.target_passes else 0.0


LOOK_UPS = frozenset({"context", "database", "grammar"})
"""Drafters that read no weights."""


def memory_bound_speedup(
    stats: SpeculationStats, guess_bytes: Mapping[str, int | float | None], target_bytes: int | None
) -> float | None:
    """MBSU: tau / (c * gamma + 1), where several drafters read weights their bytes add up.

    `guess_bytes` are those that each drafter reads for a guess, `target_bytes` those of a pass.
    None before a pass, or where what a drafter reads is not known.

    >>> stats = SpeculationStats(20, 10, {"small": DrafterCounts(20, 10)})
    >>> round(memory_bound_speedup(stats, {"small": 100}, 1000), 3)
    1.667
    """
    if not stats.target_passes:
        return None
    num_bytes = 0.0
    for name, counts in stats.by_drafter.items():
        if counts.proposed and name not in LOOK_UPS:
            read = guess_bytes.get(name)
            if read is None:
                return None
            num_bytes += read * counts.proposed
    if not num_bytes:
        return stats.block_efficiency
    if not target_bytes:
        return None
    return stats.block_efficiency / (num_bytes / (stats.target_passes * target_bytes) + 1)


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock times of one answer, in milliseconds.

    `prompt_ms` runs from the request to the first token's logits; `decode_ms` from there to the
    last token. `plain_token_ms` is what one token would have taken without drafts while this answer
    was written, told by its own passes, so that other load slows both alike; None when they are too
    few to tell, or were shared with other answers. `text_ms` of decoding went into making text.
    """

    prompt_ms: float
    decode_ms: float
    time_to_first_token_ms: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_decoded_tokens: int
    plain_token_ms: float | None = None
    text_ms: float = 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, per second of decoding; 0 for answers of one token."""
        if self.decode_ms <= 0 or self.num_decoded_tokens < 2:
            return 0.0
        return (self.num_decoded_tokens - 1) / (self.decode_ms / 1e3)

    @property
    def speedup(self) -> float | None:
        """Speed against what plain decoding would have had; None when either is unknown."""
        if self.plain_token_ms is None or not self.decode_tokens_per_second:
            return None
        return self.decode_tokens_per_second * self.plain_token_ms / 1e3


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer.

    `token_ids` holds every token the target emitted, an end-of-turn token or the tokens of a stop
    string included; `text` holds what the user sees, without either. `is_context_full` tells an
    answer of the finish reason "length" that the context ended from one that `max_tokens` did;
    `stop_string` is the one that ended an answer, None where the target did.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    stats: SpeculationStats
    num_dropped_messages: int = 0
    is_context_full: bool = False
    stop_string: str | None = None


def figures_of(completion: Completion, request: CompletionRequest) -> dict[str, float]:
    """What a chat keeps of an answer's figures, by their names in docs/metrics.md; times in ms."""
    stats, timings = completion.stats, completion.timings
    figures: dict[str, float] = {
        "tokens": timings.num_decoded_tokens,
        "tokens_per_second": round(timings.decode_tokens_per_second, 3),
        "decode_ms": round(timings.decode_ms, 1),
        "time_to_first_token_ms": round(timings.time_to_first_token_ms, 1),
        "prompt_tokens": timings.num_prompt_tokens,
        "cached_tokens": timings.num_cached_tokens,
        "proposed": stats.proposed,
        "accepted": stats.accepted,
        "target_passes": stats.target_passes,
        "seed": request.sampling.seed,
    }
    return figures if request.speculate else {**figures, "plain": 1.0}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer as it is streamed: whole characters, no part of a stop string.

    The lengths of `spans` add up to that of `text`. Before the first token chunks without text may
    carry `progress`. Only the last chunk carries `completion`. `stats` and `timings` are those so
    far.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    stats: SpeculationStats = SpeculationStats()
    timings: Timings | None = None
    completion: Completion | None = None
    spans: tuple[Span, ...] = ()
    progress: PrefillProgress | None = None


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What a model file tells of itself; 0 and "" where it does not.

    `end_tokens` end an answer. `infill_tokens` stand before what is before a gap, what is after it
    and what fills it, None where the model has none. `chat_template` is Jinja text. Texts of up to
    `num_embedded` tokens can be made vectors.
    """

    architecture: str = ""
    quantization: str = ""
    num_parameters: int = 0
    num_vocab: int = 0
    num_embedding: int = 0
    num_context_train: int = 0
    bos_token: str = ""
    eos_token: str = ""
    end_tokens: tuple[int, ...] = ()
    infill_tokens: tuple[int, int, int] | None = None
    chat_template: str = ""
    num_embedded: int = 0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a front end shows of the loaded target."""

    name: str
    description: str
    num_context: int
    size_bytes: int
    drafter: str
    exactness: Exactness
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    details: ModelDetails = ModelDetails()


@dataclass(frozen=True, slots=True)
class DrafterInsight:
    """One drafter since the model was loaded, or since it took its place.

    `guess_ms` is what it asks for a guess, 0 for a look-up; `balance_ms` what it may still lose,
    None for one that was never asked or costs nothing. `guess_bytes` are the weights that are read
    for a guess, 0 as long as that is not known, and for a look-up.
    """

    name: str
    counts: DrafterCounts
    guess_ms: float = 0.0
    balance_ms: float | None = None
    guess_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Insight:
    """What is known now of speed on this machine; times in milliseconds.

    `pass_ms` is T(r), what a target pass over r rows takes after `context` tokens. Where it
    `is_provisional` it is a usual curve bent by passes; else it was measured. `spread` is how much
    longer single rows took then in the median than at the least: 1 on a quiet machine.
    `load_average` is that of the machine when a pass without a draft last told what plain decoding
    takes, None before. `read_token_ms` is what a token of a prompt took to read when one was read
    last. `idle` says what is done while nobody asks, "" if nothing is.
    """

    pass_ms: Mapping[int, float]
    context: int
    drafters: tuple[DrafterInsight, ...] = ()
    is_provisional: bool = False
    spread: float = 1.0
    load_average: float | None = None
    read_token_ms: float | None = None
    idle: str = ""

    @property
    def plain_token_ms(self) -> float:
        """What a token takes without drafts, sampling left aside."""
        return self.pass_ms[1]
