"""Whether a pair fits: told before it is loaded, and without the drafter the answer is the same."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from cli_support import Cli
from rigs import SMALL, OpenModel, WriteModel
from server_support import wait_until
from tiny_models import TinySpec, write_tiny_model
from tiny_models.spec import Architecture

from edgespec.gguf.file import GgufFile
from edgespec.llama.context import ContextOptions
from edgespec.machine.memory_need import memory_need
from edgespec.paths import Paths
from edgespec.runtime.fit import MemoryRoom, drafter_context
from edgespec.runtime.form import Form
from edgespec.runtime.request import BEST_DRAFTER, LOOK_UP_ONLY, LoadRequest
from edgespec.runtime.running import load
from edgespec.types import CompletionRequest

DRAFTER = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q8_0", repetitive=True)
OPTIONS = ContextOptions(num_context=1024, num_threads=1, num_batch=64, type_k="bf16")
GIBIBYTE = 1 << 30


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture
def paths(tmp_path: Path, cli: Cli) -> Paths:
    found = cli.remembered_in(tmp_path / "home")
    found.models.mkdir()
    return found


def answered(
    cli: Cli, paths: Paths, options: LoadRequest, available: int | None
) -> tuple[tuple[int, ...], str, list[str]]:
    """Tokens of an answer, the drafters that serve, and what was told while loading."""
    lines: list[str] = []
    options = dataclasses.replace(options, num_threads=1, trim=False, learn=False)
    with load(options, cli.quick, paths, lines.append, lambda: available) as loaded:
        *_, last = loaded.completer.answer(CompletionRequest("Tell me a story.", max_tokens=24))
        assert last.completion is not None
        return last.completion.token_ids, loaded.completer.model.drafter, lines


def test_a_pair_that_fits_is_told_and_drafts(cli: Cli, paths: Paths, tmp_path: Path) -> None:
    drafter = write_tiny_model(tmp_path / "small.gguf", DRAFTER)
    plain, _, _ = answered(cli, paths, LoadRequest(drafter="none"), None)
    options = LoadRequest(drafter="small", drafter_path=drafter)
    tokens, serving, lines = answered(cli, paths, options, 8 * GIBIBYTE)
    assert tokens == plain
    assert serving.endswith("+small")
    (line,) = [line for line in lines if "drafter" in line]
    pattern = r"loading the drafter small \(0 MB\), both models take about 0\.\d GB of memory, "
    assert re.fullmatch(pattern + r"8\.6 GB are free", line), line


def test_one_that_does_not_fit_is_left_out(cli: Cli, paths: Paths, tmp_path: Path) -> None:
    drafter = write_tiny_model(tmp_path / "small.gguf", DRAFTER)
    plain, _, _ = answered(cli, paths, LoadRequest(drafter="none"), None)
    options = LoadRequest(drafter="small", drafter_path=drafter)
    tokens, serving, lines = answered(cli, paths, options, 1_000_000)
    assert tokens == plain
    assert "small" not in serving
    assert serving.startswith(LOOK_UP_ONLY)
    (line,) = [line for line in lines if not line.startswith(("loading", "measuring"))]
    assert line.startswith("small does not draft: both models take about 0.")
    assert line.endswith(" of memory, 0.0 GB are free")


def test_where_nobody_can_tell_it_is_tried(cli: Cli, paths: Paths, tmp_path: Path) -> None:
    drafter = write_tiny_model(tmp_path / "small.gguf", DRAFTER)
    options = LoadRequest(drafter="small", drafter_path=drafter)
    _, serving, lines = answered(cli, paths, options, None)
    assert serving.endswith("+small")
    assert lines[-1].endswith("of memory")


def test_no_model_of_the_folder_is_taken_that_does_not_fit(cli: Cli, paths: Paths) -> None:
    write_tiny_model(paths.models / "small.gguf", DRAFTER)
    request = LoadRequest(drafter=BEST_DRAFTER, num_threads=1, trim=False, learn=False)
    lines: list[str] = []

    def is_told() -> bool:
        return any(line.startswith("small does not draft: both models") for line in lines)

    with load(request, cli.quick, paths, lines.append, lambda: 1_000_000) as loaded:
        wait_until(is_told, timeout_s=60)  # weighed in idle time
        assert "small" not in loaded.completer.model.drafter


@pytest.fixture
def memory(open_model: OpenModel) -> Callable[[int | None], MemoryRoom]:
    target = open_model(SMALL)
    return lambda available: MemoryRoom(available, target, OPTIONS, 8)


def test_both_models_count(
    memory: Callable[[int | None], MemoryRoom], write_model: WriteModel
) -> None:
    """Just enough fits, a little less does not; the whole of the drafter's context counts."""
    files = Form(write_model(DRAFTER))
    context = drafter_context(OPTIONS, SMALL.num_context)
    needs = [
        memory_need(GgufFile(write_model(SMALL)), OPTIONS, 8),
        memory_need(GgufFile(files.whole), context, 1),
    ]
    total = sum(need.total for need in needs)
    assert memory(int(total / 0.95) + 1).fit(files).is_room
    assert not memory(int(total / 0.95) - 1000).fit(files).is_room
    assert memory(None).fit(files).is_room


def test_the_parts_of_what_is_needed(write_model: WriteModel) -> None:
    path = write_model(SMALL)
    need = memory_need(GgufFile(path), OPTIONS, 8)
    assert path.stat().st_size * 0.5 < need.weights < path.stat().st_size
    head_bytes = SMALL.width // SMALL.num_heads * (2 + 2)
    assert need.kv_cache == 1024 * SMALL.num_layers * SMALL.num_kv_heads * head_bytes
    double = dataclasses.replace(OPTIONS, num_context=2048, num_batch=128)
    larger = memory_need(GgufFile(path), double, 8)
    assert larger.kv_cache == 2 * need.kv_cache
    assert larger.compute > 2 * need.compute - 8 * 4 * SMALL.num_vocab
    assert larger.weights == need.weights
    quantized = dataclasses.replace(OPTIONS, type_k="q8_0", type_v="q8_0")
    assert memory_need(GgufFile(path), quantized, 8).kv_cache < 0.6 * need.kv_cache


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_every_architecture_can_be_told(
    write_model: WriteModel, architecture: Architecture
) -> None:
    path = write_model(dataclasses.replace(SMALL, architecture=architecture))
    need = memory_need(GgufFile(path), OPTIONS, 8)
    assert 0 < need.weights < path.stat().st_size
    assert need.compute > 0
    assert need.vocabulary > 0
    assert (need.kv_cache == 0) == (architecture == "mamba")
