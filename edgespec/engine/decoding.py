"""One answer inside the engine: its text, its slot, its sampler, its limits, who drafts for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.passes import Stretch
from edgespec.planning.planner import Contender
from edgespec.protocols import Sampler
from edgespec.types import EncodedPrompt


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends, and whether it may be drafted.

    What is computed of a `conversation` may be kept when its slot is taken by another one: under
    its name, "" is one that is told by its text, None one of which nothing is kept. It is used for
    `owner` alone.
    """

    max_tokens: int
    speculate: bool = True
    reuse_prefix: bool = True
    conversation: str | None = None
    owner: str = ""


@dataclass(slots=True, eq=False)
class Decoding:
    """An answer under way; made by `Engine.open`, changed by the engine alone.

    `text` is the prompt and all that the target said; the slot holds its first tokens, all but the
    last one as a rule. It never grows beyond `end`. `num_cached` tokens of the prompt were in the
    slot before. `contenders` are asked for drafts, None as long as none was needed. `ends` is True
    once the target ended the answer. One that is put `aside` has no slot but what one held.
    """

    prompt: EncodedPrompt
    sampler: Sampler
    limits: Limits
    slot: int
    end: int
    text: list[int]
    num_cached: int
    contenders: Sequence[Contender] | None = None
    ends: bool = False
    aside: tuple[Stretch, ...] | None = None

    @property
    def num_emitted(self) -> int:
        """Tokens that the target said so far."""
        return len(self.text) - len(self.prompt.tokens)

    @property
    def is_over(self) -> bool:
        """Whether the target ended the answer, or a limit does."""
        return self.ends or len(self.text) >= self.end
