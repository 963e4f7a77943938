"""GGUF files as arrays: read without the vocabulary's pieces, and written whole or not at all.

The gguf package makes an object of each element of each array, seconds for a large vocabulary. Here
an array of numbers is one numpy array, and long arrays of strings, which only tokenizers have, are
passed over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.gguf_reader import ReaderField, ReaderTensor

from edgespec.errors import ModelFileError, StorageError
from edgespec.files.scratch import taking_the_place_of

_MOST_STRINGS = 4096
"""Longer arrays of strings are passed over."""

EMBEDDINGS, HEAD = "token_embd.weight", "output.weight"
_LOOKED_UP = (EMBEDDINGS, "per_layer_token_embd.weight", "position_embd.weight")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class GgufFile:
    """Metadata and memory-mapped tensors of one GGUF file."""

    def __init__(self, path: Path) -> None:
        """Raises ModelFileError when `path` is missing, foreign, damaged or split over files."""
        self.path = path
        try:
            self._reader = _Reader(path)
        except OSError as error:
            raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
            raise ModelFileError(
                f"{path} is not a whole GGUF file ({error})", "pull or convert it again"
            ) from error
        if self._reader.byte_order != "I":
            raise ModelFileError(
                f"{path} is of the other byte order", "convert it for this machine"
            )
        if int(self.value("split.count", 1)) > 1:
            raise ModelFileError(
                f"{path} is one of several files of a model", "merge them into one first"
            )
        self.tensors: dict[str, ReaderTensor] = {t.name: t for t in self._reader.tensors}

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example "qwen2"."""
        return str(self.value("general.architecture", "unknown"))

    @property
    def pass_bytes(self) -> int:
        """Bytes of weights that a pass over one row reads.

        Of tables in which a token is looked up it reads a row, which is not counted, unless there
        is no other head; of experts those that are used.
        """
        looked_up = {name for name in _LOOKED_UP if name != EMBEDDINGS or HEAD in self.tensors}
        used, num_experts = (
            int(self.value(f"{self.architecture}.expert_{name}", 0))
            for name in ("used_count", "count")
        )
        num_bytes = 0
        for name, tensor in self.tensors.items():
            if name not in looked_up:
                is_shared_out = num_experts and "_exps." in name
                num_bytes += (
                    tensor.n_bytes * used // num_experts if is_shared_out else tensor.n_bytes
                )
        return int(num_bytes)

    def fields(self) -> Iterator[ReaderField]:
        """Every key of the metadata whose value was read, in the order of the file."""
        for name, field in self._reader.fields.items():
            if not name.startswith("GGUF.") and field.data:
                yield field

    def value(self, key: str, default: Any) -> Any:  # noqa: ANN401 - metadata is of any type
        """The value of a key as Python numbers, strings and lists, or `default`."""
        field = self._reader.fields.get(key)
        return field.contents() if field is not None and field.data else default

    def array(self, key: str) -> np.ndarray[Any, Any] | None:
        """An array of numbers, as a view into the file, or None."""
        field = self._reader.fields.get(key)
        return None if field is None or not field.data else field.parts[field.data[0]]


class _Reader(GGUFReader):  # type: ignore[misc] # gguf is untyped
    """The package's reader with arrays taken in one piece."""

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        item, start = GGUFValueType(int(kind[0])), orig_offs + 12
        types = [GGUFValueType.ARRAY, item]
        number = self.gguf_scalar_to_np.get(item)
        if number is not None:
            values = self._get(start, number, int(count[0]))
            if len(values) != count[0]:
                raise ValueError(f"an array of {count[0]} ends early")
            return 12 + int(values.nbytes), [kind, count, values], [2] * bool(len(values)), types
        if item == GGUFValueType.STRING and count[0] > _MOST_STRINGS:
            return self._end_of_strings(start, int(count[0])) - orig_offs, [kind, count], [], types
        return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]

    def _end_of_strings(self, at: int, count: int) -> int:
        length_of = struct.Struct("<Q").unpack_from
        view = memoryview(self.data)
        for _ in range(count):
            at += 8 + length_of(view, at)[0]
        return at


@contextlib.contextmanager
def replacing(destination: Path, num_bytes: int) -> Iterator[Path]:
    """A scratch file beside `destination` that takes its place when the block ends well.

    Whatever else ends the block, nothing of it stays. Raises StorageError when `num_bytes` are not
    free, and for every OSError of the block.
    """
    folder = destination.parent
    try:
        if shutil.disk_usage(folder).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with taking_the_place_of(destination) as scratch:
            yield scratch
    except OSError as error:
        if error.errno in _FULL:
            problem = f"not enough space in {folder}: {num_bytes:,} bytes are needed"
            raise StorageError(problem, "free some or choose another folder") from error
        problem = f"cannot write {destination}: {error.strerror or error}"
        raise StorageError(problem, "choose a folder you can write to") from error
