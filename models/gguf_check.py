"""Tells a sound GGUF file from a truncated, damaged or foreign one without loading it.

The header names every tensor with its shape, type and offset, so it says how long the file must be.
Only the header is read (memory-mapped), 0.2 s for a vocabulary of 150,000 tokens; a file that was
checksummed when it was pulled and has not changed since is not read at all.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from edgespec.errors import ModelFileError
from edgespec.models.records import is_verified

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MOST_ENTRIES = 1 << 20
_MAX_DIMS = 4
_STRING, _ARRAY = 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_PULL_AGAIN = "pull it again"
_TOKENS = b"tokenizer.ggml.tokens"


def check_gguf(path: Path) -> None:
    """Raise ModelFileError unless `path` is a sound GGUF file; reads the header at most."""
    if not is_verified(path):
        gguf_size(path)


def gguf_size(path: Path) -> int:
    """Bytes that `path` must have by its header; raises ModelFileError if it has fewer, or is none.

    And for a vocabulary that has a token twice.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size == 0:
                raise ModelFileError(f"{path} is empty", _PULL_AGAIN)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                required = _Header(path, view, size).read()
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no file {path}", "check the path or pull it") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    if size < required:
        raise ModelFileError(
            f"{path} is truncated: it has {size:,} of {required:,} bytes", _PULL_AGAIN
        )
    return required


class _Header:
    """A reader that walks over the header once; every step checks that the file goes on."""

    def __init__(self, path: Path, view: mmap.mmap, size: int) -> None:
        self._path = path
        self._view = view
        self._size = size
        self._at = 0

    def read(self) -> int:
        """Magic, version, key-value pairs, tensor table; returns the bytes the file must have."""
        magic = self._view[:4]
        if magic != _MAGIC:
            raise ModelFileError(
                f"{self._path} is not a GGUF file (it begins with {magic!r})",
                "give a model in GGUF format",
            )
        self._at = 4
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ModelFileError(
                f"{self._path} is GGUF of version {version}, which cannot be read",
                f"convert it to little-endian GGUF of version {_VERSIONS[-1]}",
            )
        num_tensors, num_pairs = self._number("<Q"), self._number("<Q")
        if max(num_tensors, num_pairs) > _MOST_ENTRIES:
            raise self._damaged(f"{num_tensors} tensors and {num_pairs} settings")
        alignment = self._pairs(num_pairs)
        end = self._tensors(num_tensors)
        data = -(-self._at // alignment) * alignment
        return data + end if num_tensors else self._at

    def _pairs(self, count: int) -> int:
        """Skip the key-value pairs; returns the alignment of the tensor data."""
        alignment = _DEFAULT_ALIGNMENT
        for _ in range(count):
            key = self._bytes()
            kind = self._number("<I")
            if key == b"general.alignment" and kind == 4:
                alignment = self._number("<I")
                if not 0 < alignment <= _MOST_ENTRIES:
                    raise self._damaged(f"an alignment of {alignment}")
            elif kind == _ARRAY:
                start = self._at
                self._skip_array()
                if key == _TOKENS:
                    self._check_tokens(start)
            elif kind == _STRING:
                self._bytes()
            else:
                self._skip(self._width(kind))
        return alignment

    def _skip_array(self) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if kind != _STRING:
            self._skip(count * self._width(kind))
            return
        at, last, view, length_of = self._at, self._size - 8, self._view, struct.Struct("<Q")
        for _ in range(count):  # the one loop that matters: two turns per token of the vocabulary
            if at > last:
                raise self._ends_early()
            at += 8 + length_of.unpack_from(view, at)[0]
        self._at = at
        self._skip(0)

    def _check_tokens(self, at: int) -> None:
        """Raise ModelFileError for a token that is there twice, over which llama.cpp aborts.

        Empty ones are given names of their own. `at` is where the array begins; it was walked over.
        """
        view, length_of = self._view, struct.Struct("<Q")
        (count,) = length_of.unpack_from(view, at + 4)
        at += 12
        seen = set()
        for _ in range(count if view[at - 12] == _STRING else 0):
            end = at + 8 + length_of.unpack_from(view, at)[0]
            piece = view[at + 8 : end]
            if piece and piece in seen:
                text = piece[:40].decode("utf-8", "replace")
                raise ModelFileError(
                    f"{self._path} has the token {text!r} twice in its vocabulary",
                    "convert it again or use another file",
                )
            seen.add(piece)
            at = end

    def _tensors(self, count: int) -> int:
        """Read the tensor table; returns where the last tensor ends, from the start of the data."""
        end = 0
        for _ in range(count):
            name = self._bytes()
            num_dims = self._number("<I")
            if num_dims > _MAX_DIMS:
                raise self._damaged(f"a tensor {name[:40]!r} of {num_dims} dimensions")
            num_elements = 1
            for _ in range(num_dims):
                num_elements *= self._number("<Q")
            kind, offset = self._number("<I"), self._number("<Q")
            end = max(end, offset + _tensor_bytes(num_elements, kind))
        return end

    def _bytes(self) -> bytes:
        length = self._number("<Q")
        start = self._at
        self._skip(length)
        return self._view[start : self._at]

    def _number(self, layout: str) -> int:
        start = self._at
        self._skip(struct.calcsize(layout))
        (value,) = struct.unpack_from(layout, self._view, start)
        return int(value)

    def _width(self, kind: int) -> int:
        if kind not in _VALUE_BYTES:
            raise self._damaged(f"a value of type {kind}")
        return _VALUE_BYTES[kind]

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > self._size:
            raise self._ends_early()

    def _ends_early(self) -> ModelFileError:
        return ModelFileError(
            f"{self._path} is truncated or damaged: its header runs past its {self._size:,} bytes",
            _PULL_AGAIN,
        )

    def _damaged(self, found: str) -> ModelFileError:
        return ModelFileError(f"{self._path} is damaged: its header tells of {found}", _PULL_AGAIN)


def _tensor_bytes(num_elements: int, kind: int) -> int:
    """Bytes of a tensor; 0 for a type newer than the installed gguf package."""
    from gguf.constants import GGML_QUANT_SIZES  # 0.2 s to import, and seldom needed

    for known, (block, block_bytes) in GGML_QUANT_SIZES.items():
        if int(known) == kind:
            return int(num_elements // block * block_bytes)
    return 0
