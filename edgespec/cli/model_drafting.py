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

from edgespec.cli.options import DrafterFiles
from edgespec.cli.pair_memory import drafter_context
from edgespec.drafters.model import ModelDrafter
from edgespec.errors import UsageError
from edgespec.llama.adapter import LoraAdapter
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context
from edgespec.llama.draft_model import EmbeddingLookup, LlamaDraftModel
from edgespec.llama.model import Model, ModelOptions
from edgespec.types import Prompt
from edgespec.vocab.embeddings import EmbeddingTable
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.trim import read_trim_info

_NUM_TIMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class BoundDrafter:
    """A drafter bound to its target, and what it is made of.

    `feed` gives the embeddings that a trimmed model reads; row i of the head is token `kept[i]`.
    `adapter` is used by its context.
    """

    drafter: ModelDrafter
    draft_model: LlamaDraftModel
    feed: EmbeddingLookup | None
    kept: NDArray[np.int32]
    vocabularies: tuple[ByteTokenizer, ByteTokenizer]
    render: Callable[[Prompt], list[int]]
    adapter: LoraAdapter | None = None


def open_model_drafter(
    files: DrafterFiles,
    target: Context,
    cleanup: contextlib.ExitStack,
    *,
    of_any_size: bool = False,
    adapts: bool = False,
) -> BoundDrafter:
    """Load the drafter and bind it to `target`, whose threads and abort it shares.

    One as large as the target cannot pay and is refused, unless it may be `of_any_size`. One that
    `adapts` tells hidden states, too. Raises ModelFileError, NativeLibraryError or UsageError;
    `cleanup` closes what was opened.
    """
    options = ModelOptions(use_extra_buffers=target.model.options.use_extra_buffers)
    model = cleanup.enter_context(Model(files.running, options))
    adapter = None
    if files.adapter is not None:
        adapter = cleanup.enter_context(LoraAdapter(model, files.adapter))
    _check(model, target.model, of_any_size)
    spoken = model
    embeddings, kept = None, None
    if files.trimmed is not None:
        spoken = cleanup.enter_context(Model(files.whole, ModelOptions(vocabulary_only=True)))
        embeddings, kept = EmbeddingTable(files.whole).rows, _kept_tokens(files.trimmed)
    context_options = dataclasses.replace(
        drafter_context(target.options, spoken.num_context_train), hidden_states=adapts
    )
    context = cleanup.enter_context(Context(model, context_options, beside=target))
    context.use_adapter(adapter)
    draft_model = LlamaDraftModel(context, embeddings, kept)
    vocabularies = (ByteTokenizer(target.model.vocab), ByteTokenizer(spoken.vocab))
    render = Renderer(spoken)
    drafter = ModelDrafter(
        files.name,
        draft_model,
        vocabularies,
        render,
        NgramCache(),
        _guess_ms(draft_model),
        time.perf_counter,
    )
    drafter.warm_up()
    if kept is None:
        kept = np.arange(spoken.vocab.num_tokens, dtype=np.int32)
    return BoundDrafter(drafter, draft_model, embeddings, kept, vocabularies, render, adapter)


def _check(drafter: Model, target: Model, of_any_size: bool) -> None:
    if not drafter.can_roll_back or not drafter.can_generate:
        raise UsageError(
            f"{drafter.path.name} ({drafter.architecture}) cannot take back a wrong guess",
            "use a decoder-only transformer as drafter",
        )
    sizes = [(model.num_parameters, model.num_bytes) for model in (drafter, target)]
    if sizes[0] >= sizes[1] and not of_any_size:
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
    """Milliseconds of one guess; leaves the cache empty."""
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
