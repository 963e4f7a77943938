"""The target as everything else finds it: its weights, what was measured of it, its context."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.errors import ModelFileError
from edgespec.llama import library
from edgespec.llama.context import ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.target import SINGLE_SLOT_SEQUENCES, num_sequences
from edgespec.machine.facts import ModelFacts, SoundnessCheck
from edgespec.machine.identity import Machine
from edgespec.machine.probe import probe_setting
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.reports import Report
from edgespec.runtime.request import DEFAULT_CONTEXT, LoadRequest
from edgespec.signals import ending_at_once
from edgespec.types import ModelDetails, ServedModel

_BATCH_BY_SIZE = ((2e9, 512), (4e9, 256), (9e9, 128), (float("inf"), 64))
"""Most tokens of one prefill pass by number of parameters: bounds the wait for a cancel."""

_MOST_DRIFT = 3.0
_USUAL_CONTEXT = 256
"""Tokens of context at which the cost of a pass is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Home:
    """Where a user's files are and what is remembered; `report` gets lines for people."""

    paths: Paths
    database: Database
    report: Report

    @property
    def facts(self) -> Facts:
        """What was measured and computed, by kind and key."""
        return Facts(self.database)


@dataclass(frozen=True, slots=True, eq=False)
class OpenTarget:
    """An open model, how it is best run here, and the context that it will have."""

    model: Model
    facts: ModelFacts
    machine: Machine
    context: ContextOptions


def open_model(
    path: Path,
    store: Facts,
    machine: Machine,
    report: Report,
    workers: tuple[str, ...] = (),
) -> Model:
    """Load weights as the library's soundness allows, which is found out meanwhile.

    Raises ModelFileError, NativeLibraryError; NetworkError where a worker would not serve us.
    """
    with SoundnessCheck(store, machine) as check, contextlib.ExitStack() as failed:
        report(f"loading {path.stem} ({path.stat().st_size / 1e6:,.0f} MB)")
        use_extra_buffers = check.expected
        model = _loaded(path, use_extra_buffers, workers)
        failed.callback(model.close)
        soundness = check.result()
        failed.pop_all()
    for finding in soundness.findings:
        report(finding)
    if soundness.use_extra_buffers != use_extra_buffers:
        model.close()
        model = _loaded(path, soundness.use_extra_buffers, workers)
    if not model.can_generate:
        kind = model.architecture
        model.close()
        raise ModelFileError(
            f"{path.name} ({kind}) cannot continue a text", "use a decoder-only language model"
        )
    return model


def _loaded(path: Path, use_extra_buffers: bool, workers: tuple[str, ...]) -> Model:
    options = ModelOptions(use_extra_buffers=use_extra_buffers)
    with ending_at_once():
        return Model(path, options, workers=workers)


def context_options(
    request: LoadRequest, model: Model, facts: ModelFacts, machine: Machine
) -> ContextOptions:
    """Context size, threads, batch, sequences, and the KV setting that is invariant."""
    trained = model.num_context_train
    num_batch = next(batch for limit, batch in _BATCH_BY_SIZE if model.num_parameters <= limit)
    num_context = request.num_context or min(DEFAULT_CONTEXT, trained)
    slots = num_slots(request, model)
    sequences = num_sequences(slots) if slots > 1 else SINGLE_SLOT_SEQUENCES
    return ContextOptions(
        num_context=num_context,
        num_threads=machine.num_threads,
        num_batch=min(num_batch, num_context),
        num_sequences=sequences if model.can_roll_back else 1,
        type_k=facts.setting.type_k,
        type_v=facts.setting.type_v,
        hidden_states=request.hidden_states,
    )


def num_slots(request: LoadRequest, model: Model) -> int:
    """Answers that may be open at a time: one where the model cannot forget tokens."""
    return request.num_slots if model.can_roll_back else 1


def pass_costs(costs: CostModel) -> dict[int, float]:
    """T(r) in milliseconds after a usual number of tokens, by number of rows."""
    return dict(enumerate(costs.curve_ms(_USUAL_CONTEXT).tolist(), start=1))


def present_costs(model: Model, facts: ModelFacts, machine: Machine) -> dict[int, float]:
    """T(r) as it is now, told by a few single rows."""
    now = probe_setting(model, facts.setting, machine.num_threads, seconds=0.0).short_ms[1]
    drift = min(max(now / facts.table.short_ms[1], 1 / _MOST_DRIFT), _MOST_DRIFT)
    costs = CostModel(facts.table, facts.max_rows)
    return {rows: drift * ms for rows, ms in pass_costs(costs).items()}


def pass_bytes(model: Model) -> int:
    """Bytes of weights that a pass over one row reads; all where the file's parts are unknown."""
    from edgespec.gguf.file import GgufFile  # much to load

    try:
        return GgufFile(model.path).pass_bytes
    except ModelFileError:  # one of several files
        return model.num_bytes


def served_model(
    target: OpenTarget, num_context: int, drafter: str, num_embedded: int = 0
) -> ServedModel:
    """What front ends show of a target with a context of `num_context` tokens and its drafters.

    Texts of up to `num_embedded` tokens can be made vectors.
    """
    model, options, facts = target.model, target.context, target.facts
    return ServedModel(
        name=model.path.stem,
        description=model.description,
        num_context=num_context,
        size_bytes=model.num_bytes,
        drafter=drafter,
        exactness=facts.exactness,
        settings={
            "model": str(model.path),
            "drafter": drafter,
            "context": num_context,
            "threads": options.num_threads,
            "batch": options.num_batch,
            "kv_type_k": options.type_k,
            "kv_type_v": options.type_v,
            "flash_attention": options.flash_attention,
            "extra_buffers": model.options.use_extra_buffers,
            "max_rows": facts.max_rows,
            "provisional": facts.is_provisional,
            "library": library.build_id(),
            "workers": model.placement_key,
        },
        details=_details(model, num_embedded),
    )


def _details(model: Model, num_embedded: int) -> ModelDetails:
    """What the file tells of itself."""
    vocab = model.vocab
    bos, eos = (
        vocab.piece(token, special=True).decode("utf-8", "replace") if token is not None else ""
        for token in (vocab.bos, vocab.eos)
    )
    return ModelDetails(
        architecture=model.architecture,
        quantization=" ".join(model.description.split()[2:]),  # after architecture and size
        num_parameters=model.num_parameters,
        num_vocab=vocab.num_tokens,
        num_embedding=model.num_embedding,
        num_context_train=model.num_context_train,
        bos_token=bos,
        eos_token=eos,
        end_tokens=tuple(sorted(vocab.end_tokens)),
        infill_tokens=vocab.infill,
        chat_template=model.chat_template or "",
        num_embedded=num_embedded,
    )
