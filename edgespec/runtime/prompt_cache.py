"""What the target computed of recent conversations, on disk: who comes back need not wait.

    a slot is given to another conversation    `keep`: a copy in memory, milliseconds
    idle time                                  `run`: the copy is written
    the end                                    `close`: slots and copies are written, within a bound
    a prompt                                   `find`: the longest beginning that is known is read

A conversation of 2,000 tokens of a model of 1.5 billion weights is 57 MB, read in a hundredth of
the time that it takes to compute it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import Cancelled, StorageError
from edgespec.lookup.prefix import common_prefix
from edgespec.passes import SavedPrompt, Stretch
from edgespec.paths import Paths
from edgespec.pauses import Pause
from edgespec.reports import Report
from edgespec.runtime.prompt_files import (
    Head,
    delete_prompts,
    file_name,
    is_unnamed,
    make_room,
    pattern,
    read_head,
    read_prompt,
    write_prompt,
)

LEAST_TOKENS = 128
"""Fewer tokens are computed again: loading them saves too little."""

MOST_BYTES = 1 << 30
MOST_AGE_S = 30 * 86400.0
_MOST_WAITING = 1 << 29
"""Bytes of copies in memory that wait to be written."""

_CLOSING_S = 2.0
"""How long writing may take at the end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A copy that is to be written; `key` is that of its owner's files."""

    conversation: str
    key: str
    text: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    @property
    def file_name(self) -> str:
        return file_name(self.conversation, self.key, self.text)

    @property
    def num_bytes(self) -> int:
        return sum(len(stretch.data) for stretch in self.stretches)


class PromptCache:
    """Implements `edgespec.protocols.PromptCache` and `edgespec.runtime.idle.IdleTask`."""

    name = "conversations are kept computed"

    def __init__(self, paths: Paths, key: str, report: Report, *, learns: bool = True) -> None:
        """`key` names all that the cells depend on; without `learns` nothing is written."""
        self._paths = paths
        self._folder = paths.prompts
        self._key = key
        self._report = report
        self._learns = learns
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._heads: dict[Path, tuple[tuple[int, int], Head]] = {}

    def find(self, prompt: Sequence[int], num_known: int, owner: str = "") -> SavedPrompt | None:
        """What shares more of `prompt` than is known, by `LEAST_TOKENS` at least."""
        key = self._key_of(owner)
        waiting = self._copies(key)
        num_copied, copy = max(
            ((common_prefix(each.text, prompt), each) for each in waiting),
            key=lambda found: found[0],
            default=(0, None),
        )
        on_disk = [(common_prefix(head.tokens, prompt), path) for path, head in self._known(key)]
        for num_shared, path in sorted(on_disk, reverse=True):
            if num_shared < max(num_known + LEAST_TOKENS, num_copied + 1):
                break
            try:
                saved = read_prompt(path, self._heads[path][1], num_shared)
                with contextlib.suppress(OSError):
                    os.utime(path)  # the one that was not used for longest goes first
            except ValueError:
                _delete(path)
            except (OSError, MemoryError):
                continue
            else:
                return saved
        if copy is None or num_copied < num_known + LEAST_TOKENS:
            return None
        return SavedPrompt(num_copied, copy.stretches)

    def lacks(self, conversation: str, text: Sequence[int], owner: str = "") -> bool:
        """Whether more of the conversation is there than is kept."""
        if not self._learns or len(text) < LEAST_TOKENS:
            return False
        key = self._key_of(owner)
        path = self._folder / file_name(conversation, key)
        kept = [
            head.tokens
            for known, head in self._known(key)
            if known == path or (not conversation and is_unnamed(known))
        ]
        kept += [each.text for each in self._copies(key) if each.conversation == conversation]
        return all(common_prefix(tokens, text) < len(text) for tokens in kept)

    def keep(
        self,
        conversation: str,
        text: Sequence[int],
        stretches: Sequence[Stretch],
        owner: str = "",
    ) -> None:
        """Have it written soon, in the place of what there is of the conversation."""
        entry = _Waiting(conversation, self._key_of(owner), tuple(text), tuple(stretches))
        with self._lock:
            others = [each for each in self._waiting if not _replaces(entry, each)]
            self._waiting = [*others, entry]
            while sum(each.num_bytes for each in self._waiting) > _MOST_WAITING:
                del self._waiting[0]

    def forget(self, conversation: str) -> None:
        """Delete what there is of a conversation; from any thread."""
        with self._lock:
            self._waiting = [
                each for each in self._waiting if each.conversation not in (conversation, "")
            ]
        delete_prompts(self._folder, conversation)

    def run(self, pause: Pause) -> bool:
        """Write a copy; see `IdleTask.run`. Raises StorageError, and nothing more is kept then."""
        return self._write_next(pause)

    def close(self, keep_all: Callable[[], None]) -> None:
        """Write what `keep_all` hands over, and what waits, as far as the time allows."""
        keep_all()
        deadline = time.monotonic() + _CLOSING_S

        def pause() -> None:
            if time.monotonic() > deadline:
                raise Cancelled

        with contextlib.suppress(Cancelled):
            try:
                while self._write_next(pause):
                    pass
            except StorageError as error:
                self._report(f"{self.name} no more: {error}")

    def _write_next(self, pause: Callable[[], None]) -> bool:
        """Write the copy that came last; whether there are more."""
        with self._lock:
            if not self._waiting:
                return False
            entry = self._waiting[-1]
        path = self._folder / entry.file_name
        try:
            self._paths.ensure(self._folder)
            if entry.num_bytes < MOST_BYTES:
                make_room(self._folder, entry.num_bytes, MOST_BYTES, MOST_AGE_S)
                write_prompt(path, entry.key, entry.text, entry.stretches, pause)
                self._drop_beginnings(entry)
        except FileNotFoundError:  # another process deleted it, or all of them, meanwhile
            pass
        except (OSError, StorageError) as error:
            with self._lock:
                self._learns, self._waiting = False, []
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"cannot write to {self._folder}: {error.strerror or error}", "free space there"
            ) from error
        with self._lock:
            is_wanted = entry in self._waiting
            self._waiting = [each for each in self._waiting if each is not entry]
            has_more = bool(self._waiting)
        if not is_wanted:  # it was deleted meanwhile
            _delete(path)
        return has_more

    def _key_of(self, owner: str) -> str:
        return prompt_key(self._key, owner) if owner else self._key

    def _copies(self, key: str) -> list[_Waiting]:
        with self._lock:
            return [each for each in self._waiting if each.key == key]

    def _drop_beginnings(self, entry: _Waiting) -> None:
        """What nobody named and was written of a text that went on is of no more use."""
        if entry.conversation:
            return
        for path, head in self._known(entry.key):
            num_tokens = len(head.tokens)
            if is_unnamed(path) and head.tokens == entry.text[:num_tokens] != entry.text:
                _delete(path)

    def _known(self, key: str) -> list[tuple[Path, Head]]:
        """The files of this target for an owner; what is damaged is deleted."""
        known = []
        for path in self._folder.glob(pattern(key)):
            with contextlib.suppress(OSError, MemoryError):
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                seen = self._heads.get(path)
                try:
                    head = seen[1] if seen and seen[0] == version else read_head(path, key)
                except (ValueError, KeyError, TypeError, RecursionError):
                    _delete(path)
                    continue
                self._heads[path] = (version, head)
                known.append((path, head))
        here = {path for path, _ in known}
        for path in [path for path in self._heads if path not in here and not path.exists()]:
            del self._heads[path]
        return known


def _replaces(new: _Waiting, old: _Waiting) -> bool:
    """Whether `old` is of the same conversation as `new`, or the beginning of the same text."""
    if (new.key, new.conversation) != (old.key, old.conversation):
        return False
    return bool(new.conversation) or old.text == new.text[: len(old.text)]


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def prompt_key(*facts: str | int | bool) -> str:
    """One name for all that cells depend on."""
    return json.dumps(facts)
