"""Files that go along with a message."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import UsageError
from edgespec.tui.plain import plain

MAX_BYTES = 1 << 20
SHORT_NAME = 40


@dataclass(frozen=True, slots=True)
class Attachment:
    """A text file as it was when it was attached; `name` is its path as the user would write it."""

    name: str
    text: str
    num_bytes: int

    @property
    def short_name(self) -> str:
        """The name as it stands in a label: one line, no brackets, not long."""
        name = plain(Path(self.name).name).translate({ord("["): "(", ord("]"): ")"})
        name = re.sub(r"\s+", " ", name)
        return name if len(name) <= SHORT_NAME else f"{name[: SHORT_NAME - 1]}…"


def read_attachment(path: str, root: Path) -> Attachment:
    """The file at `path`, relative to `root`; raises UsageError for what cannot be attached."""
    try:
        place = root / Path(path).expanduser()
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a folder", "attach the files in it one by one")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path} is not a regular file", "copy what it says into one")
        with place.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{plain(path)} cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB", "attach the part that matters")
    return Attachment(_name(place, path, root), _decoded(data, path), len(data))


def _name(place: Path, path: str, root: Path) -> str:
    try:
        return place.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path


def _decoded(data: bytes, path: str) -> str:
    if b"\x00" not in data:
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            pass
    raise UsageError(f"{path} is not UTF-8 text", "a model reads text only")


def appended(message: str, files: Sequence[Attachment]) -> str:
    """`message` with the text of each file in a fenced block of its own below it.

    >>> print(appended("Explain a.py", [Attachment("a.py", "x = 1", 5)]))
    Explain a.py
    <BLANKLINE>
    a.py
    ```py
    x = 1
    ```
    """
    return "\n\n".join([message, *(_block(file) for file in files)])


def _block(file: Attachment) -> str:
    longest = max((len(run) for run in re.findall("`{3,}", file.text)), default=2)
    fence = "`" * (longest + 1)
    language = re.sub(r"\W", "", Path(file.name).suffix)
    end = "" if file.text.endswith("\n") or not file.text else "\n"
    return f"{plain(file.name)}\n{fence}{language}\n{file.text}{end}{fence}"
