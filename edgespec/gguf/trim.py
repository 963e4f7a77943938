"""A drafter's head cut down to the tokens that matter (VocabTrim, arXiv 2506.22694).

The output layer of a tiny model is most of its bytes: one row per token of the vocabulary. A
trimmed file keeps some rows, sliced in their quantized form, and is otherwise as its parent:

- tied models: `token_embd.weight` holds the kept rows, which llama.cpp takes as the head, too;
- others: `output.weight` holds them, and `token_embd.weight` the same rows of the embeddings,
  because llama.cpp wants both to have one row per token;
- `tokenizer.ggml.model` is "none" and `{arch}.vocab_size` the number of rows: no tokenizer.

Token i of the file is token `kept[i]` of the parent, in and out. Tokens that were not kept can
still be read, though never said: feed their embeddings (see embeddings.py) instead of ids.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType, GGUFWriter
from numpy.typing import NDArray

from edgespec.errors import ModelFileError, StorageError, UsageError
from edgespec.gguf.file import EMBEDDINGS, HEAD, GgufFile, replacing

FORMAT_VERSION = 1
"""Of the keys `edgespec.trim.*`."""

_PREFIX = "edgespec.trim."
_CHUNK_BYTES = 1 << 22
_GLANCE_BYTES = 1 << 17
_RECURRENT_PARTS = ("ssm_", "time_mix_", "shortconv.")
"""Parts of tensor names that only models with a recurrent state have."""


@dataclass(frozen=True, slots=True, eq=False)
class TrimInfo:
    """What a trimmed file says of itself.

    `kept` holds the parent's token ids by row, ascending, int32, of `num_parent_tokens` in all.
    `origin` tells where the counts came from by which they were chosen. `parent_name` is the file
    name that the parent had. `is_own` tells whether they rest on what was said to this user.
    """

    kept: NDArray[np.int32]
    num_parent_tokens: int
    parent_sha256: str
    origin: str
    parent_name: str = ""
    is_own: bool = False

    @property
    def num_kept(self) -> int:
        """Tokens that the trimmed model can say."""
        return len(self.kept)


def write_trimmed(
    source: Path,
    destination: Path,
    kept: NDArray[np.int32],
    origin: str,
    on_progress: Callable[[float], None] = lambda _share: None,
    parent_sha256: str | None = None,
    is_own: bool = False,
) -> TrimInfo:
    """Write `source` with only the rows `kept` (ids in any order, each once) of its head.

    `on_progress` gets the share written, 0 to 1. `parent_sha256` is computed if not given. The
    file appears whole or not at all. Raises ModelFileError for a model that cannot be trimmed,
    UsageError for ids outside the vocabulary, StorageError, and what `on_progress` raises.
    """
    parent = GgufFile(source)
    num_tokens = check_trimmable(parent)
    rows = _rows(kept, num_tokens, source)
    sha256 = parent_sha256 or file_sha256(source)
    name, origin = (_as_text(text) for text in (source.name, origin))
    info = TrimInfo(rows, num_tokens, sha256, origin, name, is_own)
    _write(destination, parent, parent, info, on_progress)
    return info


def write_other_rows(
    source: Path,
    trimmed: GgufFile,
    destination: Path,
    kept: NDArray[np.int32],
    origin: str,
    on_progress: Callable[[float], None] = lambda _share: None,
    *,
    is_own: bool,
) -> TrimInfo:
    """Write `trimmed`, which was made from `source`, with other rows, as many, of its head.

    Its body is copied, whatever types it has; `destination` may be its own path. Otherwise as
    `write_trimmed`.
    """
    parent, before = GgufFile(source), trim_info(trimmed)
    if before is None or before.num_parent_tokens != parent.tensors[EMBEDDINGS].shape[1]:
        raise ModelFileError(
            f"{trimmed.path.name} was not trimmed from {source.name}", "trim it again"
        )
    rows = _rows(kept, before.num_parent_tokens, source)
    if len(rows) != before.num_kept:
        raise UsageError(f"{len(rows)} ids to keep in place of {before.num_kept}")
    info = dataclasses.replace(before, kept=rows, origin=_as_text(origin), is_own=is_own)
    _write(destination, parent, trimmed, info, on_progress)
    return info


def _rows(kept: NDArray[np.int32], num_tokens: int, source: Path) -> NDArray[np.int32]:
    """Ids in order; raises UsageError for one that occurs twice or is none."""
    rows = np.unique(kept).astype(np.int32)
    if len(rows) != len(kept) or not len(rows):
        raise UsageError(f"{len(kept)} ids to keep, {len(rows)} of them different")
    if rows[0] < 0 or rows[-1] >= num_tokens:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise UsageError(f"token {wrong} is not one of the {num_tokens:,} of {source.name}")
    return rows


def read_trim_info(path: Path) -> TrimInfo | None:
    """What a trimmed file says of itself; None for a model that is not trimmed.

    Raises ModelFileError for a file that is no GGUF or was trimmed in another format's version.
    """
    return trim_info(GgufFile(path))


def trim_info(file: GgufFile) -> TrimInfo | None:
    """`read_trim_info` of an open file."""
    version = file.value(f"{_PREFIX}version", None)
    if version is None:
        return None
    kept = file.array(f"{_PREFIX}kept")
    if version != FORMAT_VERSION or kept is None:
        raise ModelFileError(
            f"{file.path} was trimmed in format {version}, this is {FORMAT_VERSION}",
            "trim it again",
        )
    return TrimInfo(
        kept=np.array(kept, dtype=np.int32),
        num_parent_tokens=int(file.value(f"{_PREFIX}parent_tokens", 0)),
        parent_sha256=str(file.value(f"{_PREFIX}parent_sha256", "")),
        origin=str(file.value(f"{_PREFIX}origin", "")),
        parent_name=str(file.value(f"{_PREFIX}parent_name", "")),
        is_own=bool(file.value(f"{_PREFIX}own", False)),
    )


def is_trimmed(path: Path) -> bool:
    """Whether a file says that it is trimmed, by a glance at its beginning; False if unreadable.

    A trimmed file has no vocabulary, so all of its metadata comes early.
    """
    try:
        with path.open("rb") as file:
            return f"{_PREFIX}version".encode() in file.read(_GLANCE_BYTES)
    except OSError:
        return False


def forget_own_rows(paths: Iterable[Path]) -> list[Path]:
    """Delete those files whose rows rest on what was said to this user, and return them.

    What cannot be read is no such file. Raises StorageError.
    """
    own = []
    for path in paths:
        with contextlib.suppress(ModelFileError):
            info = read_trim_info(path)
            if info is not None and info.is_own:
                own.append(path)
    for path in own:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problem = f"cannot delete {path}: {error.strerror or error}"
            raise StorageError(problem, "delete it by hand") from error
    return own


def check_trimmable(parent: GgufFile) -> int:
    """Tokens of the vocabulary; raises ModelFileError, with the reason, if it cannot be trimmed."""
    name = parent.path.name
    if trim_info(parent) is not None:
        raise ModelFileError(f"{name} is trimmed already", "give the model it was made from")
    embeddings = parent.tensors.get(EMBEDDINGS)
    if embeddings is None or len(embeddings.shape) != 2:
        raise ModelFileError(
            f"{name} ({parent.architecture}) has no tensor {EMBEDDINGS}", "it cannot be trimmed"
        )
    check_not_recurrent(parent)
    num_tokens = int(embeddings.shape[1])
    for tensor in parent.tensors.values():
        in_body = tensor.name.startswith("blk.")
        if tensor.name in (EMBEDDINGS, HEAD) or in_body:
            continue
        if num_tokens in tensor.shape.tolist():
            raise ModelFileError(
                f"{name} ({parent.architecture}) keeps {tensor.name} by token, too",
                "it cannot be trimmed",
            )
    head = parent.tensors.get(HEAD, embeddings)
    if head.shape.tolist() != embeddings.shape.tolist():
        raise ModelFileError(f"{name} has a head of another shape", "it cannot be trimmed")
    return num_tokens


def check_not_recurrent(model: GgufFile) -> None:
    """Raise ModelFileError for one whose state cannot forget single tokens, as wrong guesses."""
    for name in model.tensors:
        if any(part in name for part in _RECURRENT_PARTS):
            raise ModelFileError(
                f"{model.path.name} ({model.architecture}) is recurrent",
                "it cannot serve as drafter",
            )


def file_sha256(path: Path, between: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file in hexadecimal; raises ModelFileError if it cannot be read.

    `between` is called every few milliseconds, and may raise to end it.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                between()
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def _as_text(name: str) -> str:
    """A file's name, or a text with one in it, without bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _write(
    destination: Path,
    parent: GgufFile,
    body: GgufFile,
    info: TrimInfo,
    on_progress: Callable[[float], None],
) -> None:
    """Write metadata and tensors of `body`; quantized rows stay as they are in `parent`."""
    tensors: dict[str, NDArray[Any]] = {t.name: t.data for t in body.tensors.values()}
    types = {t.name: t.tensor_type for t in body.tensors.values()}
    for name in {EMBEDDINGS, HEAD} & set(tensors):
        tensors[name] = parent.tensors[name].data[info.kept]
        types[name] = parent.tensors[name].tensor_type
    needed = sum(data.nbytes for data in tensors.values()) + 16 * info.num_kept + (1 << 20)
    with replacing(destination, needed) as scratch:
        writer = GGUFWriter(scratch, parent.architecture)
        try:
            _add_metadata(writer, body, info)
            for name, data in tensors.items():
                writer.add_tensor(name, data, raw_dtype=types[name])
            _write_tensors(writer, tensors, on_progress)
        finally:
            writer.close()


def _write_tensors(
    writer: GGUFWriter, tensors: dict[str, NDArray[Any]], on_progress: Callable[[float], None]
) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    total, done = sum(data.nbytes for data in tensors.values()), 0
    for data in tensors.values():  # not the writer's own way, which hides why a disk refused
        content = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        for start in range(0, len(content), _CHUNK_BYTES):
            done += file.write(content[start : start + _CHUNK_BYTES])
            on_progress(done / total)
        writer.write_padding(file, data.nbytes)


def _add_metadata(writer: GGUFWriter, body: GgufFile, info: TrimInfo) -> None:
    vocab_size = f"{body.architecture}.vocab_size"
    # The writer adds the architecture itself and aligns by the default.
    ours = {"general.architecture", "general.alignment", vocab_size}
    for field in body.fields():
        if field.name in ours or field.name.startswith(("tokenizer.", _PREFIX)):
            continue
        kind, *rest = field.types
        writer.add_key_value(field.name, field.contents(), kind, rest[-1] if rest else None)
    writer.add_uint32(vocab_size, info.num_kept)
    writer.add_tokenizer_model("none")
    writer.add_uint32(f"{_PREFIX}version", FORMAT_VERSION)
    writer.add_uint32(f"{_PREFIX}parent_tokens", info.num_parent_tokens)
    writer.add_string(f"{_PREFIX}parent_sha256", info.parent_sha256)
    writer.add_string(f"{_PREFIX}parent_name", info.parent_name)
    writer.add_string(f"{_PREFIX}origin", info.origin)
    writer.add_bool(f"{_PREFIX}own", info.is_own)
    kept = info.kept.tolist()
    writer.add_key_value(f"{_PREFIX}kept", kept, GGUFValueType.ARRAY, GGUFValueType.INT32)
