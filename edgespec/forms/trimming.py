"""A drafter's trimmed form, decided and made: rows of the head that are kept, types of the body.

How a form is chosen: search.py; where it is kept: trimmer.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.errors import ModelFileError
from edgespec.forms.counts import TokenCounts, keep_tokens
from edgespec.forms.notes import Notes
from edgespec.forms.weighing import USUAL_PASS_MS, TokenText, samples_of
from edgespec.forms.words import shipped_words, shipped_words_id
from edgespec.gguf.file import GgufFile, replacing
from edgespec.gguf.quantize import retype
from edgespec.gguf.quantize_child import retype_apart
from edgespec.gguf.trim import check_trimmable, file_sha256, write_trimmed
from edgespec.llama.model import Model, ModelOptions
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.reports import Report
from edgespec.signals import ending_at_once
from edgespec.vocab.tokenizer import ByteTokenizer

AS_SHIPPED = "shipped"
"""Instead of a type: the body as it is."""

_MOST_ATTEMPTS = 3

Count = Callable[[ByteTokenizer], TokenCounts]
"""Counts the tokens of a vocabulary."""


def count_shipped(tokenizer: ByteTokenizer) -> TokenCounts:
    """The counts that came with EdgeSpec."""
    return shipped_words().in_tokens(tokenizer)


@dataclass(frozen=True, slots=True)
class Parent:
    """A whole drafter, and what of its vocabulary decides the trimming.

    `always` are the tokens that every head keeps: those that end an answer, and every single byte.
    `counts` rank the others, `texts` are the samples in its tokens.
    """

    path: Path
    sha256: str
    num_tokens: int
    always: tuple[int, ...]
    counts: TokenCounts
    texts: tuple[TokenText, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """One form of a drafter: rows of the head, type of the body, and what was found of it.

    `token_ms` is the cost of a drafted token, `agreement` the share of the samples' tokens that it
    drafts, None if it was not read; `speed` is what to expect of both (`expected_speed`).
    """

    num_kept: int
    type_name: str
    token_ms: float
    agreement: float | None
    speed: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The form in which a drafter runs here, and those that were weighed.

    `is_sure` is False if the machine was too busy to tell what things cost; it is asked again, in
    all `num_attempts` times. `counts` names the counts that the form rests on, None if they are a
    user's own. `is_whole`: nothing was found to be better than the whole file; `problem` tells why
    if it cannot be trimmed at all.
    """

    num_kept: int
    type_name: str
    tried: tuple[Tried, ...] = ()
    is_sure: bool = True
    counts: str | None = None
    is_whole: bool = False
    problem: str = ""
    num_attempts: int = 1

    @property
    def is_current(self) -> bool:
        """Whether it rests on the counts of today, or a user's own."""
        return self.counts in (None, shipped_words_id())

    @property
    def is_final(self) -> bool:
        """Whether it holds for good."""
        return self.is_current and (self.is_sure or self.num_attempts >= _MOST_ATTEMPTS)

    @property
    def chosen(self) -> list[Tried]:
        """What was found of the form that runs."""
        running = self.num_kept, self.type_name
        return [tried for tried in self.tried if (tried.num_kept, tried.type_name) == running]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Decision | None:
        """Read back `to_json`, or None if it is not of that form."""
        try:
            return Decision(**{**value, "tried": tuple(Tried(**row) for row in value["tried"])})
        except (KeyError, TypeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for remembering."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Workshop:
    """How drafters are opened and measured.

    `scratch` is a folder for files that do not last. `report` gets lines for people. `pass_ms` is
    T(r) of the target, by number of rows. Where work gives way to answers, `pause` ends it, and it
    is taken up again from `notes` and what is whole in `scratch`.
    """

    scratch: Path
    options: ModelOptions
    num_threads: int
    report: Report = lambda _line: None
    pass_ms: Mapping[int, float] = field(default_factory=lambda: USUAL_PASS_MS)
    pause: Pause = NO_PAUSE
    notes: Notes = field(default_factory=Notes)


def read_parent(path: Path, workshop: Workshop, count: Count | None = None) -> Parent:
    """Read a whole drafter's vocabulary and count its tokens, by the shipped counts if not others.

    Raises ModelFileError for what cannot be trimmed or cannot draft, and what `count` raises.
    """
    check_trimmable(GgufFile(path))
    pause = workshop.pause
    with ending_at_once():
        opened = Model(path, ModelOptions(vocabulary_only=True), lambda _share: pause())
    with opened as model:
        if not model.can_generate or not model.can_roll_back:
            raise ModelFileError(
                f"{path.name} ({model.architecture}) cannot draft",
                "use a decoder-only model without a recurrent state",
            )
        tokenizer = ByteTokenizer(model.vocab)
        pause()
        counts = count(tokenizer) if count else shipped_words().in_tokens(tokenizer, pause)
        pause()
        return Parent(
            path=path,
            sha256=file_sha256(path, pause),
            num_tokens=model.vocab.num_tokens,
            always=always_kept(tokenizer),
            counts=counts,
            texts=samples_of(model),
        )


def always_kept(tokenizer: ByteTokenizer) -> tuple[int, ...]:
    """The tokens that every head keeps: those that end an answer, and every single byte."""
    sizes = np.diff(np.array(tokenizer.table.starts))
    return (*sorted(tokenizer.specials.ends), *np.flatnonzero(sizes == 1).tolist())


def make(parent: Parent, choice: Decision, destination: Path, workshop: Workshop) -> None:
    """Write the chosen form of a drafter; raises StorageError, ModelFileError.

    In `workshop.scratch` the trimmed file that is re-typed is left to the caller.
    """
    if choice.type_name == AS_SHIPPED:
        trimmed_file(parent, choice.num_kept, destination, workshop)
        return
    trimmed = workshop.scratch / f"{choice.num_kept}-{AS_SHIPPED}.gguf"
    if not trimmed.exists():
        trimmed_file(parent, choice.num_kept, trimmed, workshop)
    retyped = workshop.scratch / "made.gguf"
    retyped_file(trimmed, retyped, choice.type_name, workshop)
    trimmed.unlink()
    with replacing(destination, retyped.stat().st_size) as part:
        shutil.copyfile(retyped, part)
    retyped.unlink()


def trimmed_file(parent: Parent, num_kept: int, destination: Path, workshop: Workshop) -> None:
    """Write a drafter with so many rows of its head, its body as shipped."""
    counts = parent.counts
    write_trimmed(
        parent.path,
        destination,
        keep_tokens(counts, num_kept, parent.always),
        counts.origin,
        lambda _share: workshop.pause(),
        parent_sha256=parent.sha256,
        is_own=counts.is_own,
    )


def retyped_file(source: Path, destination: Path, type_name: str, workshop: Workshop) -> None:
    """Write a trimmed drafter with another type of body, apart where that may have to end."""
    if workshop.pause is NO_PAUSE:
        with ending_at_once():
            retype(source, destination, type_name, workshop.num_threads)
    else:
        retype_apart(source, destination, type_name, workshop.num_threads, workshop.pause)
