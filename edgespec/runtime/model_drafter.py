"""A model as drafter: loaded, checked against its target, and bound to it by the byte bridge."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.drafters.model import ModelDrafter, ModelParts
from edgespec.errors import UsageError
from edgespec.gguf.embeddings import EmbeddingTable, HeadTable
from edgespec.gguf.trim import read_trim_info
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.draft_model import EmbeddingLookup, LlamaDraftModel
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.spare_rows import HeadLookup, SpareRows
from edgespec.runtime.fit import drafter_context
from edgespec.runtime.form import Form
from edgespec.types import Prompt
from edgespec.vocab.tokenizer import ByteTokenizer

_MANY_READ = 32
"""Tokens that are read together for a first time before an answer waits for it."""
_NUM_TIMED = 5
_NUM_COMPARED = 64
_TOLERANCE = 0.05
"""Difference of logits, as a share of the largest, that rounding may make: llama.cpp multiplies
with hidden states in 8 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class DraftWeights:
    """A drafter's weights in memory with a context beside the target's; `close` frees both.

    There is a draft model for each sequence of the context. Row i of the head is token `kept[i]`,
    ascending.
    """

    draft_models: tuple[LlamaDraftModel, ...]
    kept: NDArray[np.int32]
    close: Callable[[], None]

    @property
    def draft_model(self) -> LlamaDraftModel:
        """The first of the draft models."""
        return self.draft_models[0]


@dataclass(frozen=True, slots=True)
class WholeTables:
    """What a trimmed model takes from the whole one: what it reads, and rows that it lacks."""

    embeddings: EmbeddingLookup
    head: HeadLookup
    num_tokens: int

    @staticmethod
    def of(whole: Path) -> WholeTables:
        """Those of a whole model; raises ModelFileError."""
        embeddings = EmbeddingTable(whole)
        return WholeTables(embeddings.rows, HeadTable(whole).rows, embeddings.num_tokens)


@dataclass(slots=True, eq=False)
class BoundDrafter:
    """A drafter bound to its target, and the weights with which it guesses.

    These may be exchanged for others of the same vocabulary; `whole` belongs to a trimmed model.
    """

    drafter: ModelDrafter
    parts: ModelParts
    weights: DraftWeights
    whole: WholeTables | None

    def exchange(self, weights: DraftWeights) -> None:
        """Guess with `weights` from now on, and free what did; only between answers."""
        before, self.weights = self.weights, weights
        self.drafter.use(weights.draft_models)
        before.close()

    def another(self, target: Context, cleanup: contextlib.ExitStack) -> ModelDrafter:
        """A drafter of the same weights with a cache of its own, which learns by itself.

        It knows nothing of guesses yet. Raises NativeLibraryError where memory is out.
        """
        first = self.weights.draft_model
        options = dataclasses.replace(first.context.options, num_sequences=1)
        context = Context(first.context.model, options, beside=target)
        cleanup.callback(context.close)
        model = first.within(context)
        if first.spare is not None and self.whole is not None:
            model.spare = SpareRows(self.whole.head, self.weights.kept, self.whole.num_tokens)
        return ModelDrafter(dataclasses.replace(self.parts, models=(model,)))


def open_model_drafter(
    form: Form, target: Context, cleanup: contextlib.ExitStack, *, of_any_size: bool = False
) -> BoundDrafter:
    """Load the drafter and bind it to `target`, whose threads and abort it shares.

    One as large as the target cannot pay and is refused, unless it may be `of_any_size`. Raises
    ModelFileError, NativeLibraryError or UsageError; `cleanup` closes what was opened.
    """
    spoken, whole = None, None
    if form.trimmed is not None:
        spoken = cleanup.enter_context(Model(form.whole, ModelOptions(vocabulary_only=True)))
        whole = WholeTables.of(form.whole)
    weights = load_weights(form.running, target, whole)
    with contextlib.ExitStack() as failed:
        failed.callback(weights.close)
        own = weights.draft_model.context.model
        if not of_any_size:
            _check_smaller(own, target.model)
        spoken = spoken or own
        parts = ModelParts(
            form.name,
            weights.draft_models,
            (ByteTokenizer(target.model.vocab), ByteTokenizer(spoken.vocab)),
            Renderer(spoken),
            _guess_ms(weights.draft_model),
            time.perf_counter,
        )
        drafter = ModelDrafter(parts)
        drafter.warm_up()
        failed.pop_all()
    bound = BoundDrafter(drafter, parts, weights, whole)
    cleanup.callback(lambda: bound.weights.close())
    return bound


def load_weights(
    path: Path,
    target: Context,
    whole: WholeTables | None,
    on_progress: Callable[[float], None] = lambda _share: None,
) -> DraftWeights:
    """Load a drafter's file, a trimmed one if there are tables of the `whole` model.

    `on_progress` may raise Cancelled, between the steps, too. Raises as `open_model_drafter`;
    nothing stays open then.
    """
    kept = _kept_tokens(path) if whole is not None else None
    options = ModelOptions(use_extra_buffers=target.model.options.use_extra_buffers)
    with contextlib.ExitStack() as opened:
        model = opened.enter_context(Model(path, options, on_progress))
        if not model.can_roll_back or not model.can_generate:
            raise UsageError(
                f"{path.name} ({model.architecture}) cannot take back a wrong guess",
                "use a decoder-only transformer as drafter",
            )
        on_progress(1.0)
        lacks_rows = whole is not None and model.vocab.num_tokens < whole.num_tokens
        context_options = dataclasses.replace(
            drafter_context(target.options, model.num_context_train), hidden_states=lacks_rows
        )
        context = opened.enter_context(Context(model, context_options, beside=target))
        on_progress(1.0)
        if whole is None or kept is None:
            rows = np.arange(model.vocab.num_tokens, dtype=np.int32)
            draft_model = LlamaDraftModel(context)
        else:
            rows, draft_model = kept, LlamaDraftModel(context, whole.embeddings, kept)
            if lacks_rows and _is_linear(draft_model, whole.head, kept):
                draft_model.spare = SpareRows(whole.head, kept, whole.num_tokens)
        return DraftWeights(_for_each_sequence(draft_model), rows, opened.pop_all().close)


def _for_each_sequence(model: LlamaDraftModel) -> tuple[LlamaDraftModel, ...]:
    count = model.context.options.num_sequences
    return (model, *(model.beside(sequence) for sequence in range(1, count)))


def _is_linear(model: LlamaDraftModel, head: HeadLookup, kept: NDArray[np.int32]) -> bool:
    """Whether logits are the head's rows times hidden states: some models scale or bend them.

    Leaves the cache empty.
    """
    model.read([int(kept[-1])])
    logits, hidden = model.context.logits(0), model.context.hidden_state(0)
    some = np.linspace(0, len(kept) - 1, _NUM_COMPARED).astype(np.int64)
    expected = head(kept[some].tolist()) @ hidden
    model.truncate(0)
    most = _TOLERANCE * float(np.abs(logits[some]).max())
    return bool(np.abs(expected - logits[some]).max() <= most)


def _check_smaller(drafter: Model, target: Model) -> None:
    sizes = [(model.num_parameters, model.num_bytes) for model in (drafter, target)]
    if sizes[0] >= sizes[1]:
        raise UsageError(
            f"the drafter {drafter.path.name} is as large as {target.path.name}, or larger",
            "use a smaller drafter, or none",
        )


def _kept_tokens(trimmed: Path) -> NDArray[np.int32]:
    info = read_trim_info(trimmed)
    if info is None:
        raise UsageError(f"{trimmed.name} is not a trimmed model", "run `edgespec trim` again")
    return info.kept


def _guess_ms(model: LlamaDraftModel) -> float:
    """Milliseconds of one guess; leaves the cache empty, and the ways of both sizes warm."""
    model.read([0] * _MANY_READ)
    model.read([0])
    times = []
    for _ in range(_NUM_TIMED):
        started = time.perf_counter()
        model.guess()
        model.read([0])
        times.append((time.perf_counter() - started) * 1e3)
    model.truncate(0)
    return min(times)


class Renderer:
    """A prompt in the drafter's own tokens and template."""

    def __init__(self, model: Model) -> None:
        try:
            self._bridge = ModelBridge(model)
        except UsageError as error:
            raise UsageError(f"{model.path.name}: {error.problem}", error.remedy) from error
        self._has_template = model.chat_template is not None

    def __call__(self, prompt: Prompt) -> list[int]:
        """Token ids; where the drafter's template cannot say it, plain text."""
        if isinstance(prompt, str):
            return self._bridge.encode(prompt)
        if self._has_template:
            try:
                return self._bridge.encode_chat(prompt)
            except UsageError:  # some templates know no system role
                pass
        turns = (f"{message.role}: {message.content}\n" for message in prompt)
        return self._bridge.encode("".join(turns) + "assistant: ")
