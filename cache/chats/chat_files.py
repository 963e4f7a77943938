"""Reading files of chats, ours and others', as JSON or inside a .zip; all of a file or nothing.

The items of a list are read one by one, so that a file may be larger than memory; what a .zip
unpacks to is bounded, whatever it claims.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import sqlite3
import zipfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgespec.cache.chats.as_json import chat_of, chat_value
from edgespec.cache.chats.foreign import chat_of_chatgpt, chat_of_open_webui
from edgespec.cache.chats.record_merger import RecordMerger
from edgespec.cache.database import transaction
from edgespec.chats import Chat
from edgespec.errors import UsageError

MOST_BYTES = 1 << 30
"""Of a file, unpacked."""

MOST_ITEM_LETTERS = 64 << 20
"""Of one chat."""

_AT_ONCE = 1 << 18
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Imported:
    """How many chats of a file are new or have new messages, and how many were known."""

    num_new: int
    num_known: int


def chat_file(chat: Chat) -> str:
    """A chat as text of a file that `import_chats` reads."""
    value = {"edgespec": "chat", "version": 1, **chat_value(chat)}
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def import_chats(connection: sqlite3.Connection, path: Path) -> Imported:
    """Add the chats of a file in one transaction; raises UsageError, sqlite3.Error, OSError."""
    num_new = num = 0
    with contextlib.closing(read_chats(path)) as chats, transaction(connection):
        merger = RecordMerger(connection)
        for chat in chats:
            num_new += merger.chat(chat)
            num += 1
    return Imported(num_new, num - num_new)


def read_chats(path: Path) -> Generator[Chat, None, None]:
    """The chats of a file, one by one; raises UsageError, which names the place, and OSError."""
    place = ""
    try:
        with _opened(path) as file:
            for number, item in enumerate(_items(file), start=1):
                place = f"chat {number}: "
                yield _chat_of(item)
                place = f"after chat {number}: "
    except KeyError as error:
        raise _unreadable(path, f"{place}{error.args[0]} is missing") from error
    except (ValueError, TypeError, LookupError, RecursionError, EOFError) as error:
        raise _unreadable(path, place + " ".join(str(error).split())[:200]) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _unreadable(path, f"the archive is damaged ({error})") from error


def _chat_of(item: object) -> Chat:
    if isinstance(item, dict):
        if item.get("edgespec") == "chat":
            if item.get("version") != 1:
                raise ValueError("it was written by a newer EdgeSpec")
            return chat_of(item)
        if "mapping" in item:
            return chat_of_chatgpt(item)
        if isinstance(item.get("chat"), dict):
            return chat_of_open_webui(item)
        if item.get("edgespec") == "export":
            raise ValueError("this is for `edgespec db import`")
    raise ValueError("it is no chat of EdgeSpec, ChatGPT or Open WebUI")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file, or `conversations.json` in an archive."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            yield file
            return
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith("conversations.json")]
            if not names:
                raise ValueError("the archive holds no conversations.json")
            with archive.open(min(names, key=len)) as inner:
                yield inner


def _letters(file: IO[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    num_bytes = 0
    while data := file.read(_AT_ONCE):
        num_bytes += len(data)
        if num_bytes > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


class _Text:
    """The text that is read and not yet parsed; `more` reads on and is False at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._letters = _letters(file)
        self.left = ""

    def more(self, num_letters: int) -> bool:
        """Read at least so much, if there is."""
        pieces, num = [self.left], 0
        for piece in self._letters:
            pieces.append(piece)
            num += len(piece)
            if num >= num_letters:
                break
        self.left = "".join(pieces)
        return num > 0

    def sign(self) -> str:
        """The next letter that is no space, or "" at the end; it stays."""
        while True:
            self.left = self.left.lstrip(_SPACE)
            if self.left or not self.more(1):
                return self.left[:1]

    def value(self) -> Any:  # noqa: ANN401
        """The JSON value that comes next; read on in growing steps until it is whole."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self.left)
            except json.JSONDecodeError:
                if len(self.left) > MOST_ITEM_LETTERS:
                    raise ValueError(
                        f"it is longer than {MOST_ITEM_LETTERS >> 20} million letters"
                    ) from None
                if not self.more(max(len(self.left), _AT_ONCE)):
                    raise
            else:
                self.left = self.left[end:]
                return value


def _items(file: IO[bytes]) -> Iterator[Any]:
    """The items of a JSON list, or the one value that a file holds; raises ValueError."""
    text = _Text(file)
    if text.sign() != "[":
        yield text.value()
    else:
        text.left = text.left[1:]
        while text.sign() != "]":
            yield text.value()
            if text.sign() == ",":
                text.left = text.left[1:]
                if text.sign() != "]":
                    continue
                raise ValueError("a comma ends the list")
            if text.sign() != "]":
                raise ValueError("the list goes on without a comma, or ends too early")
        text.left = text.left[1:]
    if text.sign():
        raise ValueError("there is something after its end")


def _unreadable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path.name} cannot be imported: {why}", "nothing was imported; export it again"
    )
