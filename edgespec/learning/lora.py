"""Low-rank changes of a drafter's matrices, W' = W + scale * up @ down: kept, and added to it.

The file is a GGUF file of the form that llama.cpp's convert_lora_to_gguf.py writes; besides, under
`edgespec.`, it tells whom it was trained for and what it was judged by.

    general.type = adapter, adapter.type = lora, adapter.lora.alpha
    blk.0.attn_q.weight.lora_a   (rank, columns in)
    blk.0.attn_q.weight.lora_b   (columns out, rank)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, quants
from numpy.typing import NDArray

from edgespec.errors import ModelFileError, StorageError
from edgespec.gguf.file import GgufFile, replacing
from edgespec.gguf.quantize import quantized_rows

Floats = NDArray[np.float32]

DOWN, UP = ".lora_a", ".lora_b"
"""Ends of the names under which a change's factors are kept."""

_FORMAT = 1
_ABOUT = "edgespec.training"
_SPACE = 1 << 16
"""Bytes for everything but the numbers, and more."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """The change of one matrix: `down` (rank, columns in), `up` (columns out, rank)."""

    down: Floats
    up: Floats

    @property
    def is_sound(self) -> bool:
        """Whether the two fit each other and hold numbers only."""
        fits = self.down.ndim == self.up.ndim == 2 and self.up.shape[1] == len(self.down) > 0
        return fits and bool(np.isfinite(self.down).all() and np.isfinite(self.up).all())


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """Changes by the names of the tensors that they change, as GGUF lays these out.

    Each is multiplied by `alpha` over its rank, as LoRA's authors do (arXiv 2106.09685, section 4).
    """

    alpha: float
    changes: Mapping[str, LowRank]

    def delta(self, name: str) -> Floats:
        """What is added to a tensor: (columns out, columns in)."""
        change = self.changes[name]
        product: Floats = change.up @ change.down
        return product * np.float32(self.alpha / len(change.down))

    def factors(self) -> dict[str, Floats]:
        """All numbers, by the names under which they are kept."""
        return {
            f"{name}{part}": factor
            for name, change in self.changes.items()
            for part, factor in ((DOWN, change.down), (UP, change.up))
        }

    @staticmethod
    def of(alpha: float, factors: Mapping[str, NDArray[np.floating]]) -> Lora:
        """`factors` read back; raises KeyError or ValueError if they are none."""
        changes = {}
        for name in (key.removesuffix(DOWN) for key in factors if key.endswith(DOWN)):
            pair = (np.array(factors[f"{name}{part}"], np.float32) for part in (DOWN, UP))
            changes[name] = LowRank(*pair)
            if not changes[name].is_sound:
                raise ValueError(f"{name} is not of the right form")
        if not changes or len(factors) != 2 * len(changes) or not 0 < alpha < np.inf:
            raise ValueError("it is no LoRA")
        return Lora(alpha, changes)


@dataclass(frozen=True, slots=True)
class About:
    """Whom a training serves, what it came from and what it was judged by.

    `target` is the fingerprint of the target's vocabulary, `drafter` that of the drafter's whole
    file and `parent_sha256` that file's hash; the names are for people. Shares are of the
    `num_judged` tokens of held-out answers that were guessed right: alone and as trained. What was
    learned `by_itself`, in idle time, comes from chats alone.
    """

    target: str
    drafter: str
    target_name: str
    drafter_name: str
    parent_sha256: str
    num_steps: int
    num_answers: int
    num_judged: int
    share_alone: float
    share_trained: float
    by_itself: bool = False


def write_lora(lora: Lora, about: About, architecture: str, path: Path) -> None:
    """Write a LoRA, whole or not at all; its numbers as float16. Raises StorageError."""
    factors = {name: factor.astype(np.float16) for name, factor in lora.factors().items()}
    with replacing(path, sum(factor.nbytes for factor in factors.values()) + _SPACE) as scratch:
        writer = GGUFWriter(scratch, architecture)
        try:
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", lora.alpha)
            writer.add_name(f"{about.drafter_name} trained for {about.target_name}")
            writer.add_string(_ABOUT, json.dumps({"format": _FORMAT, **asdict(about)}))
            for name, factor in factors.items():
                writer.add_tensor(name, factor)
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
    try:
        factors = {name: np.asarray(tensor.data) for name, tensor in file.tensors.items()}
        return Lora.of(float(file.value("adapter.lora.alpha", 0.0)), factors), about
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def merge(
    lora: Lora,
    whole: Path,
    running: Path,
    destination: Path,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Write `running`, a form of `whole`, with the changes added; all metadata stays.

    What is added is small against the steps of four-bit types, so it is not added to the numbers of
    `running`, which lie on those steps and would mostly stay there, but to the whole drafter's; the
    sum is then rounded to the type of the file that runs.

    The file appears whole or not at all; `between` is called before each matrix, and may raise.
    Raises ModelFileError if the changes are not of this drafter or a type cannot be made,
    StorageError.
    """
    parent, file = GgufFile(whole), GgufFile(running)
    for name, change in lora.changes.items():
        shape = (len(change.up), change.down.shape[1])
        if any(_shape(source, name) != shape for source in (parent, file)):
            raise ModelFileError(
                f"{running.name} has no {name} of the form that was trained", "train anew"
            )
    with replacing(destination, running.stat().st_size) as scratch:
        shutil.copyfile(running, scratch)
        with scratch.open("rb+") as copy:
            for name in lora.changes:
                between()
                tensor, source = file.tensors[name], parent.tensors[name]
                values = quants.dequantize(source.data, source.tensor_type)
                changed = np.asarray(values, np.float32) + lora.delta(name)
                copy.seek(int(tensor.data_offset))
                copy.write(quantized_rows(changed, tensor.tensor_type).tobytes())


def _shape(file: GgufFile, name: str) -> tuple[int, ...] | None:
    tensor = file.tensors.get(name)
    return None if tensor is None else tuple(int(size) for size in reversed(tensor.shape))


def _opened(path: Path) -> GgufFile:
    try:
        return GgufFile(path)
    except ModelFileError as error:
        raise _damaged(path, error.problem) from error


def _about(file: GgufFile) -> About:
    text = file.value(_ABOUT, None)
    if not isinstance(text, str):
        raise _damaged(file.path, "EdgeSpec did not train it")
    try:
        value = json.loads(text)
        if value["format"] != _FORMAT:
            raise ValueError("it is of another version")
        kinds = {"str": str, "int": int, "float": float, "bool": bool}
        value.setdefault("by_itself", False)  # earlier files do not tell
        return About(
            **{each.name: kinds[str(each.type)](value[each.name]) for each in fields(About)}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file.path, str(error)) from error


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"{path} is no training that can be used ({reason})", "`edgespec learn reset` deletes it"
    )
