"""Finding the user's own text files: neither what git would ignore nor what is no text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

MAX_FILE_BYTES = 16 << 20
"""Larger files are data, whatever their name."""

_NEVER = frozenset({".git", ".hg", ".svn"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file to import; the path is absolute and has no symbolic links."""

    path: Path
    num_bytes: int


def find_files(paths: Sequence[Path]) -> Iterator[Found]:
    """Every file named or below a folder named, each once, in order of name.

    Folders are searched as git does: `.gitignore` files there, in folders below and above up to the
    repository's own, and `.git/info/exclude`, decide. Links to folders are not followed. A file
    that is named itself is never ignored.
    """
    seen: set[Path] = set()
    for path in paths:
        real = path.resolve()
        candidates = [real] if real.is_file() else _walk(real, _rules_above(real))
        for candidate in candidates:
            if candidate in seen:
                continue
            seen.add(candidate)
            try:
                size = candidate.stat().st_size
            except OSError:  # gone, or not ours to read
                continue
            if 0 < size <= MAX_FILE_BYTES:
                yield Found(candidate, size)


def read_text(path: Path) -> bytes | None:
    """The content of a file if it is text (UTF-8 without zero bytes); raises OSError."""
    content = path.read_bytes()
    if b"\0" in content:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    return content.removeprefix(b"\xef\xbb\xbf")


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one folder."""

    folder: Path
    spec: GitIgnoreSpec

    def verdict(self, path: Path, is_folder: bool) -> bool | None:
        """True for ignored, False for kept after all, None where no pattern says anything."""
        relative = path.relative_to(self.folder).as_posix()
        return self.spec.check_file(relative + "/" if is_folder else relative).include


def _walk(folder: Path, rules: Sequence[_Rules]) -> Iterator[Path]:
    rules = [*rules, *_rules_in(folder)]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # gone, or not ours to read
        return
    for entry in entries:
        path = Path(entry.path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in _NEVER or _is_ignored(path, is_folder, rules):
            continue
        if is_folder:
            yield from _walk(path, rules)
        elif entry.is_file(follow_symlinks=False):
            yield path


def _is_ignored(path: Path, is_folder: bool, rules: Sequence[_Rules]) -> bool:
    """The innermost folder that says anything about `path` decides, as in git."""
    for rule in reversed(rules):
        verdict = rule.verdict(path, is_folder)
        if verdict is not None:
            return verdict
    return False


def _rules_in(folder: Path) -> list[_Rules]:
    found = []
    for name in (".git/info/exclude", ".gitignore"):
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found.append(_Rules(folder, GitIgnoreSpec.from_lines(text.splitlines())))
    return found


def _rules_above(folder: Path) -> list[_Rules]:
    """The rules of the folders above, if `folder` is inside a repository."""
    above: list[Path] = []
    for parent in (folder, *folder.parents):
        if parent != folder:
            above.append(parent)
        if (parent / ".git").exists():
            return [rule for place in reversed(above) for rule in _rules_in(place)]
    return []
