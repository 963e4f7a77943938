"""What the probe claims of a model is true: every number of rows it allows gives the same bits.

The probe looks at a few row counts after two contexts, one of them made of copies. Here the claim
is held against every row count up to it, after real contexts of many lengths: those around 256 and
512 cells, where attention takes other ways through its kernels, one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from rigs import SMALL, OpenModel, corpus_tokens, prefill, score
from tiny_models import Architecture, Quantization, TinySpec

from edgespec.errors import NativeLibraryError
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model
from edgespec.llama.target import LlamaTarget
from edgespec.machine.facts import measure_model
from edgespec.machine.identity import this_machine
from edgespec.machine.probe import (
    CANDIDATES,
    CONTEXTS,
    ROWS,
    KVSetting,
    SettingResult,
    probe_model,
    probe_setting,
)
from edgespec.planning.cost import CostModel

QUANTIZATIONS: tuple[Quantization, ...] = ("F32", "F16", "Q8_0", "Q4_0", "Q4_K")
RECURRENT: tuple[Architecture, ...] = ("mamba", "lfm2")
SPANS = ((1, 1), (64, 64), (250, 260), (500, 530), (700, 700))
"""First and last of the context lengths, in tokens, that the claims are held against."""

FEW_SPANS = ((1, 1), (64, 64), (255, 256), (508, 514), (700, 700))
"""For several threads: they wait for each other by spinning, which takes long on a busy machine."""


def invariant_rows(model: Model, setting: KVSetting, num_threads: int, most: int) -> int:
    """Most rows, up to `most`, that equal single rows bit by bit after every context length."""
    spans = SPANS if num_threads == 1 else FEW_SPANS
    options = ContextOptions(
        num_context=1024,
        num_threads=num_threads,
        type_k=setting.type_k,
        type_v=setting.type_v,
    )
    tokens = corpus_tokens(model, spans[-1][1] + most)
    with Context(model, options) as context:
        target = LlamaTarget(context, most)
        for first, last in spans:
            most = _invariant_rows(target, tokens, first, last, most)
    return most


def _invariant_rows(
    target: LlamaTarget, tokens: Sequence[int], first: int, last: int, most: int
) -> int:
    """The same after `first` to `last` tokens.

    cache:  [0 ........ first)[first ...... length)[length ... length + rows)
             one prefill       single rows          the pass under test
    """
    target.truncate(0, 0)
    prefill(target, tokens[:first])
    alone = []
    for token in tokens[first : last + most]:
        score(target, [token])
        alone.append(target.logits(0).copy())
    for length in range(last, first - 1, -1):
        for rows in range(2, most + 1):
            target.truncate(0, length)
            score(target, tokens[length : length + rows])
            together = [target.logits(row) for row in range(rows)]
            if not all(map(np.array_equal, together, alone[length - first :])):
                most = rows - 1
                break
    return most


def check_claims(model: Model, num_threads: int) -> SettingResult:
    results = probe_model(model, num_threads)
    chosen = results[-1]
    for result in results:
        check_form(result)
        assert result.max_rows <= chosen.max_rows
    assert len({result.setting for result in results}) == len(results)
    if chosen.max_rows == ROWS[-1]:  # the cheapest that agrees throughout
        tried = [result.setting for result in results]
        assert tried == list(CANDIDATES[: len(tried)])
    elif chosen.max_rows == 1:  # drafts are verified all the same, whatever the rows
        assert sorted(chosen.long_ms) == sorted(chosen.short_ms) == [1, *ROWS]
    return chosen


def check_form(result: SettingResult) -> None:
    """Rows and margin agree, and every allowed row count that was probed has its time."""
    assert result.max_rows in (1, *ROWS)
    assert (result.margin > 0) == (result.max_rows < ROWS[-1])
    assert {rows for rows in (1, *ROWS) if rows <= result.max_rows} <= result.long_ms.keys()
    assert result.long_ms.keys() == result.short_ms.keys()
    assert min(*result.long_ms.values(), *result.short_ms.values()) > 0
    assert result.spread >= 1


@pytest.mark.parametrize(
    ("quantization", "num_threads"),
    [*((quantization, 1) for quantization in QUANTIZATIONS), ("F16", 2), ("Q8_0", 2), ("Q4_K", 2)],
)
def test_the_claimed_rows_hold_after_every_context(
    open_model: OpenModel, quantization: Quantization, num_threads: int
) -> None:
    model = open_model(TinySpec(quantization=quantization, num_layers=1))
    chosen = check_claims(model, num_threads)
    found = invariant_rows(model, chosen.setting, num_threads, ROWS[-1])
    assert found >= chosen.max_rows
    # Nor does it give away rows that it looked at.
    assert max(rows for rows in (1, *ROWS) if rows <= found) == chosen.max_rows


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
def test_the_claims_hold_for_other_models(
    open_model: OpenModel, architecture: Architecture
) -> None:
    """Biases, norms of heads, a window of attention shorter than the context."""
    spec = dataclasses.replace(SMALL, architecture=architecture, sliding_window=128)
    model = open_model(spec)
    chosen = check_claims(model, 1)
    assert invariant_rows(model, chosen.setting, 1, ROWS[-1]) >= chosen.max_rows


def test_a_setting_that_differs_is_not_probed_further(open_model: OpenModel) -> None:
    """Full precision differs from the second row on: no more is timed, unless it is asked for."""
    model = open_model(TinySpec(quantization="F32", num_layers=1))
    f16 = CANDIDATES[0]
    stopped = probe_setting(model, f16, 1)
    whole = probe_setting(model, f16, 1, to_the_end=True)
    check_form(stopped)
    check_form(whole)
    assert stopped.max_rows == whole.max_rows
    assert stopped.margin <= whole.margin
    assert sorted(whole.long_ms) == [1, *ROWS]
    allowed = [rows for rows in ROWS if rows > stopped.max_rows][:1]
    assert max(stopped.long_ms) == (allowed[0] if allowed else ROWS[-1])


@pytest.mark.parametrize("quantization", ["F16", "Q8_0"])
def test_a_model_is_run_as_its_probe_says(
    open_model: OpenModel, quantization: Quantization
) -> None:
    model = open_model(dataclasses.replace(SMALL, quantization=quantization))
    machine = dataclasses.replace(this_machine(), num_threads=1)
    lines: list[str] = []
    facts = measure_model(model, machine, lines.append)
    chosen = probe_model(model, 1)[-1]
    assert facts.setting == chosen.setting
    if chosen.max_rows > 1:
        assert (facts.exactness, facts.max_rows) == ("identical", chosen.max_rows)
    else:
        assert (facts.exactness, facts.max_rows) == ("near-ties", ROWS[-1])
        assert facts.margin == chosen.margin > 0
    tried = [name for name, *_ in facts.tried]
    assert tried[-1] == facts.setting.name
    told = [
        setting.name
        for setting in CANDIDATES
        if any(f"measuring with {setting.name} KV cache (once" in line for line in lines)
    ]
    assert len(lines) == len(told) >= len(tried)
    assert set(tried) <= set(told)
    curve = CostModel(facts.table, facts.max_rows).curve_ms(300)
    assert len(curve) == facts.max_rows
    assert curve.min() > 0


def test_a_setting_that_llama_cpp_refuses_is_passed_over(open_model: OpenModel) -> None:
    """Heads of 16 numbers cannot be cut into the blocks of 32 that Q8_0 is made of."""
    model = open_model(dataclasses.replace(SMALL, quantization="F16"))
    refused = KVSetting("q8_0", "q8_0")
    with pytest.raises(NativeLibraryError):
        probe_setting(model, refused, 1)
    results = probe_model(model, 1)
    assert refused not in [result.setting for result in results]
    assert len(results) == len(CANDIDATES) - 1 or results[-1].max_rows == ROWS[-1]


@pytest.mark.parametrize("architecture", RECURRENT)
def test_a_model_that_cannot_forget_gets_one_row(
    open_model: OpenModel, architecture: Architecture
) -> None:
    model = open_model(dataclasses.replace(SMALL, architecture=architecture))
    machine = dataclasses.replace(this_machine(), num_threads=1)
    facts = measure_model(model, machine, lambda _line: None)
    assert (facts.max_rows, facts.exactness, facts.margin) == (1, "identical", 0.0)
    assert facts.setting == CANDIDATES[0]
    assert facts.table.short_ms.keys() == facts.table.long_ms.keys() == {1}
    assert (facts.table.short_context, facts.table.long_context) == CONTEXTS
    assert CostModel(facts.table, 1).pass_ms(1, 300) > 0
    options = ContextOptions(num_context=256, num_threads=1)
    with Context(model, options) as context:  # the claim itself: the last token stays
        context.decode(corpus_tokens(model, 8), 0)
        with pytest.raises(NativeLibraryError, match="cannot forget"):
            context.remove(7)
