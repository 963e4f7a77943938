"""Files of what a target computed of conversations: one for each conversation, build and model.

    edgespec-prompt 1\n
    <CRC-32 of the next line, 8 hex digits> <JSON: key, tokens, stretches [tokens, bytes, CRC-32]>\n
    <the stretches, as llama.cpp saved them, one behind the other>

A name tells the conversation and the key only to who knows them. The key names everything that the
cells depend on: the model's file, the build, the machine, KV types. Nothing is handed to llama.cpp
whose sizes and checksums do not hold. Standard library only: whoever deletes a chat needs this.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.files.scratch import taking_the_place_of
from edgespec.passes import SavedPrompt, Stretch

_MAGIC = b"edgespec-prompt 1\n"
_SUFFIX = ".kv"
_UNNAMED = "text-"
_LONGEST_HEAD = 1 << 24
_CHUNK = 1 << 22
_ABANDONED_S = 3600.0


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself: `stretches` are (tokens, bytes, CRC-32), from byte `start` on."""

    tokens: tuple[int, ...]
    stretches: tuple[tuple[int, int, int], ...]
    start: int


def file_name(conversation: str, key: str, tokens: Sequence[int] = ()) -> str:
    """The name of the file of a conversation; that of one that nobody named is by its `tokens`."""
    name = (
        f"{_UNNAMED}{_digest(repr(tuple(tokens)))}" if not conversation else _digest(conversation)
    )
    return f"{name}-{_digest(key)}{_SUFFIX}"


def is_unnamed(path: Path) -> bool:
    """Whether a file is of a conversation that nobody named."""
    return path.name.startswith(_UNNAMED)


def pattern(key: str) -> str:
    """What the names of all files with a key match."""
    return f"*-{_digest(key)}{_SUFFIX}"


def read_head(path: Path, key: str) -> Head:
    """What a file holds; raises ValueError where it is damaged or foreign, OSError."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("of another kind")
        line = file.readline(_LONGEST_HEAD)
        start, size = file.tell(), os.fstat(file.fileno()).st_size
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise ValueError("damaged")
    about = json.loads(text)
    head = Head(tuple(about["tokens"]), tuple(map(tuple, about["stretches"])), start)
    num_tokens = sum(count for count, _, _ in head.stretches)
    is_whole = start + sum(length for _, length, _ in head.stretches) == size
    if about["key"] != key or num_tokens != len(head.tokens) or not is_whole:
        raise ValueError("cut off, or of another model")
    return head


def read_prompt(path: Path, head: Head, num_shared: int) -> SavedPrompt:
    """The stretches that hold the first `num_shared` tokens; raises ValueError, OSError."""
    stretches: list[Stretch] = []
    num_read = 0
    with path.open("rb") as file:
        file.seek(head.start)
        for count, length, checksum in head.stretches:
            if num_read >= num_shared:
                break
            data = file.read(length)
            if len(data) != length or zlib.crc32(data) != checksum:
                raise ValueError("damaged")
            stretches.append(Stretch(count, data))
            num_read += count
    return SavedPrompt(num_shared, tuple(stretches))


def write_prompt(
    path: Path,
    key: str,
    tokens: Sequence[int],
    stretches: Sequence[Stretch],
    pause: Callable[[], None],
) -> None:
    """Write a file, or nothing if `pause`, called every few milliseconds, raises; raises OSError.

    It is not waited for until the disk has it: what a lost write leaves is found out by reading.
    """
    shapes = []
    for stretch in stretches:
        pause()
        shapes.append((stretch.num_tokens, len(stretch.data), zlib.crc32(stretch.data)))
    about = {"key": key, "tokens": list(tokens), "stretches": shapes}
    text = json.dumps(about, separators=(",", ":")).encode()
    with taking_the_place_of(path, is_synced=False) as scratch, scratch.open("wb") as file:
        file.write(_MAGIC + b"%08x " % zlib.crc32(text) + text + b"\n")
        for stretch in stretches:
            for start in range(0, len(stretch.data), _CHUNK):
                pause()
                file.write(stretch.data[start : start + _CHUNK])


def delete_prompts(folder: Path, conversation: str | None = None) -> None:
    """Delete what is kept of a conversation, or of all; what cannot be deleted stays.

    What nobody named may be of it, too.
    """
    wanted = ["*"] if conversation is None else [f"{_digest(conversation)}-*", f"{_UNNAMED}*"]
    for each in wanted:
        for path in [*folder.glob(f"{each}{_SUFFIX}"), *folder.glob(f".{each}{_SUFFIX}.*.part")]:
            with contextlib.suppress(OSError):
                path.unlink()


def make_room(folder: Path, num_bytes: int, most_bytes: int, most_age_s: float) -> None:
    """Delete the oldest files until `num_bytes` more come to `most_bytes`; all that are too old."""
    now = time.time()
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < now - _ABANDONED_S:
                path.unlink()
    files = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = num_bytes + sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if total <= most_bytes and used >= now - most_age_s:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:24]
