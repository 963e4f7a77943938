"""The server as llama-benchy measures it: the recipe of docs/serve.md, on a tiny model.

It takes prompts from a book that it downloads, and wants a tokenizer to cut them: both are given
here, so that nothing is asked of a network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import SLOW
from server_support import Running, running_server
from tiny_models import write_tiny_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from edgespec.paths import user_paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.server.settings import ServerSettings

COMMAND = Path(sys.executable).with_name("llama-benchy")
BOOK = "http://book.invalid/mill.txt"
NUM_PROMPT, NUM_SAID, NUM_RUNS = 32, 30, 2


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("benchy")
    path = folder / "tiny.gguf"
    write_tiny_model(path, SLOW)
    paths = dataclasses.replace(user_paths(), data=folder, cache=folder)
    loading = LoadRequest(num_slots=2, num_threads=1, remember=False, idle=False)
    with (
        load(loading, path, paths, report=lambda _line: None) as loaded,
        running_server(loaded.completer, ServerSettings(port=0, slots=2)) as it,
    ):
        yield it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the book where llama-benchy keeps books, and a tokenizer of bytes."""
    cache = tmp_path / ".cache" / "llama-benchy"
    cache.mkdir(parents=True)
    name = hashlib.md5(BOOK.encode(), usedforsecurity=False).hexdigest()
    (cache / f"{name}.txt").write_text("The mill stood empty for many years. " * 400)
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def measured(server: Running, home: Path, *options: str) -> dict[str, Any]:
    out = home / "out.json"
    done = subprocess.run(
        [
            *(str(COMMAND), "--base-url", server.url, "--model", "tiny", "--book-url", BOOK),
            *("--tokenizer", str(home / "tokenizer.json"), "--latency-mode", "none"),
            *("--pp", str(NUM_PROMPT), "--tg", str(NUM_SAID), "--runs", str(NUM_RUNS)),
            *("--skip-coherence", "--exit-on-first-fail", "--format", "json"),
            *("--save-result", str(out), *options),
        ],
        env=os.environ | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    read = json.loads(out.read_text())
    assert isinstance(read, dict)
    return read


def test_it_measures_one_and_several_clients(tiny_server: Running, home: Path) -> None:
    report = measured(tiny_server, home, "--concurrency", "1", "2", "--no-cache")
    assert report["model"] == "tiny"
    assert [each["concurrency"] for each in report["benchmarks"]] == [1, 2]
    for each in report["benchmarks"]:
        assert (each["prompt_size"], each["response_size"]) == (NUM_PROMPT, NUM_SAID)
        assert len(each["tg_req_throughput"]["values"]) == NUM_RUNS * each["concurrency"]
        assert all(value > 0 for value in each["tg_req_throughput"]["values"])
        assert all(value > 0 for value in each["e2e_ttft"]["values"])
