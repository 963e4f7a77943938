"""What a command asks to be loaded; nothing here loads the native library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgespec.errors import UsageError
from edgespec.models.registry import DEFAULT_TARGET

LOOK_UP_ONLY = "context"
NO_DRAFTER = "none"
BEST_DRAFTER = "auto"
DEFAULT_CONTEXT = 8192
Source = Literal["all", "recorded", "corpus"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""Answers that a drafter learns from."""

MOST_CONTEXT = 1 << 24
"""More than any model has; llama.cpp counts tokens in 32 bits and would take the rest of more."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a command asks to be loaded; None means the default.

    `drafter` is a model, "auto" (the best on disk), "context" (look-ups only) or "none".
    `remember` lets drafters use what was learned in earlier runs; with `learn`, what they learn now
    is kept. `memory_at` is a token database to be used in place of the user's own. `trim` lets a
    drafting model run in its trimmed form. `idle` lets what was not measured and made yet be so
    while nobody waits. `drafter_path` is the file of the model that `drafter` names. `num_slots`
    answers may be open at a time. The machines of `workers`, addresses of `parse_workers`, compute
    the target's layers. `hidden_states` has the target give what its logits are read off.
    Where answers need not be `exact`, passes have as many rows as are known, whatever was proved.
    """

    model: str = DEFAULT_TARGET
    drafter: str = LOOK_UP_ONLY
    num_context: int | None = None
    num_threads: int | None = None
    verbose: bool = False
    remember: bool = True
    learn: bool = True
    memory_at: Path | None = None
    trim: bool = True
    idle: bool = True
    drafter_path: Path | None = None
    num_slots: int = 1
    workers: tuple[str, ...] = ()
    hidden_states: bool = False
    exact: bool = True

    def __post_init__(self) -> None:
        if self.num_context is not None and self.num_context < 64:
            raise UsageError(
                f"a context of {self.num_context} tokens is too small", "give 64 or more"
            )
        if self.num_context is not None and self.num_context > MOST_CONTEXT:
            raise UsageError(
                f"a context of {self.num_context} tokens is too large",
                f"give {MOST_CONTEXT} or less",
            )
        check_threads(self.num_threads)


def check_threads(num_threads: int | None) -> None:
    """Raises UsageError for a number of threads that makes no sense; None is left open."""
    if num_threads is not None and not 1 <= num_threads <= 1024:
        raise UsageError(f"{num_threads} threads make no sense", "give 1 to 1024")
