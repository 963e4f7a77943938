"""A LoRA as a GGUF file, of the form that llama.cpp's convert_lora_to_gguf.py writes.

    general.type = adapter, adapter.type = lora, adapter.lora.alpha
    blk.0.attn_q.weight.lora_a   (rank, columns in)
    blk.0.attn_q.weight.lora_b   (columns out, rank)

Besides, under `edgespec.`, whom it was trained for and what it was judged by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGUFWriter

from edgespec.errors import ModelFileError, StorageError
from edgespec.gguf.file import GgufFile, replacing
from edgespec.learning.distillation.lora import Lora, LowRank

Way = Literal["adapter", "merged"]
"""How it serves: beside the drafter's matrices, or added to them in a file of its own."""

_FORMAT = 1
_ABOUT = "edgespec.training"
_DOWN, _UP = ".lora_a", ".lora_b"
_SPACE = 1 << 16
"""Bytes for everything but the numbers, and more."""


@dataclass(frozen=True, slots=True)
class About:
    """Whom a training serves, what it came from and what it was judged by.

    `target` is the fingerprint of the target's vocabulary, `drafter` that of the drafter's whole
    file and `parent_sha256` that file's hash; the names are for people. Shares are of the
    `num_judged` tokens of held-out answers that were guessed right: alone and as trained.
    """

    target: str
    drafter: str
    target_name: str
    drafter_name: str
    parent_sha256: str
    way: Way
    num_steps: int
    num_answers: int
    num_judged: int
    share_alone: float
    share_trained: float


def write_lora(lora: Lora, about: About, architecture: str, path: Path) -> None:
    """Write a LoRA, whole or not at all; its numbers as float16. Raises StorageError."""
    num_bytes = 2 * lora.num_parameters + _SPACE
    with replacing(path, num_bytes) as scratch:
        writer = GGUFWriter(scratch, architecture)
        try:
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", lora.alpha)
            writer.add_name(f"{about.drafter_name} trained for {about.target_name}")
            writer.add_string(_ABOUT, json.dumps({"format": _FORMAT, **asdict(about)}))
            for name, change in lora.changes.items():
                writer.add_tensor(name + _DOWN, change.down.astype(np.float16))
                writer.add_tensor(name + _UP, change.up.astype(np.float16))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def read_about(path: Path) -> About:
    """Whom a file serves; raises StorageError if it is cut off or none that EdgeSpec wrote."""
    return _about(_opened(path))


def read_lora(path: Path) -> tuple[Lora, About]:
    """A LoRA and whom it serves; raises StorageError if it is cut off, foreign or damaged."""
    file = _opened(path)
    about = _about(file)
    downs = [name.removesuffix(_DOWN) for name in file.tensors if name.endswith(_DOWN)]
    try:
        changes = {
            name: LowRank(*(_values(file, name + part) for part in (_DOWN, _UP))) for name in downs
        }
        alpha = float(file.value("adapter.lora.alpha", 0.0))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not changes or len(file.tensors) != 2 * len(changes) or not 0 < alpha < np.inf:
        raise _damaged(path, "it is no LoRA")
    for name, change in changes.items():
        if not change.is_sound:
            raise _damaged(path, f"{name} is not of the right form")
    return Lora(alpha, changes), about


def _opened(path: Path) -> GgufFile:
    try:
        return GgufFile(path)
    except ModelFileError as error:
        raise _damaged(path, error.problem) from error


def _values(file: GgufFile, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(file.tensors[name].data, np.float32)


def _about(file: GgufFile) -> About:
    text = file.value(_ABOUT, None)
    if not isinstance(text, str):
        raise _damaged(file.path, "EdgeSpec did not train it")
    try:
        value: Mapping[str, Any] = json.loads(text)
        if value["format"] != _FORMAT or value["way"] not in ("adapter", "merged"):
            raise ValueError("it is of another version")
        return About(
            target=str(value["target"]),
            drafter=str(value["drafter"]),
            target_name=str(value["target_name"]),
            drafter_name=str(value["drafter_name"]),
            parent_sha256=str(value["parent_sha256"]),
            way="merged" if value["way"] == "merged" else "adapter",
            num_steps=int(value["num_steps"]),
            num_answers=int(value["num_answers"]),
            num_judged=int(value["num_judged"]),
            share_alone=float(value["share_alone"]),
            share_trained=float(value["share_trained"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file.path, str(error)) from error


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"{path} is no training that can be used ({reason})", "`edgespec adapt reset` deletes it"
    )
