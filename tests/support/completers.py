"""A completer over fakes, its answers, and what observers are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fakes import (
    FakeDrafter,
    FakeSampler,
    FakeTarget,
    ScriptedSampler,
    TinyBridge,
    make_engine,
    oracle,
)

from edgespec.drafters.context import ContextDrafter
from edgespec.engine.answer import EngineAnswer
from edgespec.engine.completer import EngineCompleter, ReadVector
from edgespec.errors import UsageError
from edgespec.passes import Kept
from edgespec.protocols import Drafter, Observer, Sampler
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    EncodedPrompt,
    ModelDetails,
    SamplingParams,
    ServedModel,
)

BRIDGE = TinyBridge()
A, B, C, SPACE, AB, LEAD, TRAIL = range(BRIDGE.num_first, BRIDGE.num_vocab)
END = BRIDGE.END
DETAILS = ModelDetails(num_embedded=9)
MODEL = ServedModel("fake", "a pseudo-model", 64, 0, "none", "identical", details=DETAILS)
ASK = CompletionRequest("abc")


class Rig:
    """A completer over fakes, and the parts it was made of."""

    def __init__(
        self,
        drafter: Drafter | None = None,
        *,
        script: Sequence[int] | None = None,
        num_context: int = 64,
        num_slots: int = 1,
        bridge: TinyBridge = BRIDGE,
        observer: Observer | None = None,
        read_vector: ReadVector | None = None,
    ) -> None:
        self.target = FakeTarget(
            num_vocab=BRIDGE.num_vocab, num_context=num_context, num_slots=num_slots
        )
        self.samplers: list[FakeSampler | ScriptedSampler] = []
        self.script = script
        engine = make_engine(self.target, drafter, ends=frozenset({END}))
        self.completer = EngineCompleter(
            engine, bridge, self._make_sampler, MODEL, observer, read_vector=read_vector
        )

    def _make_sampler(self, params: SamplingParams) -> Sampler:
        if params.temperature < 0:
            raise UsageError(f"temperature is {params.temperature}", "give at least 0")
        sampler: FakeSampler | ScriptedSampler = (
            FakeSampler(params.temperature, params.seed)
            if self.script is None
            else ScriptedSampler(self.script)
        )
        self.samplers.append(sampler)
        return sampler

    def ask(self, request: CompletionRequest = ASK) -> EngineAnswer:
        return self.completer.answer(request)

    def chunks(self, request: CompletionRequest = ASK) -> list[Chunk]:
        return list(self.ask(request))

    def answer(self, request: CompletionRequest = ASK) -> Completion:
        return completion_of(self.chunks(request))


def completion_of(chunks: list[Chunk]) -> Completion:
    assert all(chunk.completion is None for chunk in chunks[:-1])
    completion = chunks[-1].completion
    assert completion is not None
    return completion


@dataclass
class Notes:
    """Implements `edgespec.protocols.Observation`: what was told of one answer."""

    request: CompletionRequest
    prompt: EncodedPrompt
    taken: list[Kept] = field(default_factory=list)
    closed: list[Completion | None] = field(default_factory=list)

    def take(self, kept: Kept) -> None:
        assert not self.closed, "what is over is told no more"
        self.taken.append(kept)

    def close(self, completion: Completion | None) -> None:
        assert not self.closed, "an answer is over once"
        self.closed.append(completion)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for kept in self.taken for token in kept.tokens)


class Notebook:
    """Implements `edgespec.protocols.Observer`: notes of all answers, in order."""

    def __init__(self) -> None:
        self.notes: list[Notes] = []

    def open(self, request: CompletionRequest, prompt: EncodedPrompt) -> Notes:
        self.notes.append(Notes(request, prompt))
        return self.notes[-1]


def alone(request: CompletionRequest) -> Completion:
    """The answer of a target that was just started, which is asked nothing else."""
    return Rig(num_context=300).answer(request)


def said(completion: Completion | None) -> tuple[str, tuple[int, ...], str]:
    """What a completion says, times and counts apart."""
    assert completion is not None
    return completion.text, completion.token_ids, completion.finish_reason


def drafter_of(kind: str) -> Drafter | None:
    """A drafter that looks up, one that knows what greedy decoding says, or none."""
    if kind == "context":
        return ContextDrafter()
    return FakeDrafter(oracle(Rig().target)) if kind == "oracle" else None
