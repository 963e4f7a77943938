"""Importing files: what git would take, only text, only what changed; and carrying an export."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_support import VOCABULARY, Recorded, Talks, in_memory, votes

from edgespec.cache.chats.search import search
from edgespec.cache.chats.transfer import export_lines, import_lines, is_export
from edgespec.cache.tokens import text_files
from edgespec.cache.tokens.text_files import find_files, read_text
from edgespec.cache.tokens.text_import import SEQUENCE_TOKENS, Imported, Importer
from edgespec.cache.upkeep.forget import Forgetting
from edgespec.errors import UsageError


def tree(root: Path, **content: str | bytes) -> Path:
    """Files below `root`; `__` in a name stands for a slash, a final `_` for nothing."""
    for name, data in content.items():
        put(root / name.replace("__", "/"), data)
    return root


def put(path: Path, data: str | bytes = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def found_below(root: Path, *paths: Path) -> list[str]:
    return [f.path.relative_to(root.resolve()).as_posix() for f in find_files(paths or [root])]


def test_files_are_found_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.py", "a/b/c.md", ".hidden"):
        put(tmp_path / name)
    put(tmp_path / "empty.txt", "")
    expected = [".hidden", "a/b/c.md", "a/z.py", "b.txt"]
    assert found_below(tmp_path) == expected
    twice = [tmp_path / "b.txt", tmp_path, tmp_path / "a"]
    assert sorted(found_below(tmp_path, *twice)) == expected


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "real" / "a.txt")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "broken").symlink_to(tmp_path / "nowhere")
    assert found_below(tmp_path) == ["real/a.txt"]
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "real")
    assert found_below(tmp_path, linked) == ["real/a.txt"], "what is named itself is followed"


def test_data_of_great_size_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 10)
    put(tmp_path / "small", "x" * 10)
    put(tmp_path / "large", "x" * 11)
    assert found_below(tmp_path) == ["small"]


PATTERNS = st.lists(
    st.sampled_from(
        ["*.log", "!keep.log", "build/", "/build", "a/*.txt", "**/deep", "x", "!x/", "# c", "", "*"]
    ),
    max_size=5,
)


@settings(max_examples=25)
@given(PATTERNS, PATTERNS, PATTERNS)
def test_exactly_what_git_would_add_is_found(
    top: list[str], inner: list[str], exclude: list[str]
) -> None:
    """The judge is git itself."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        git(root, "init", "-q")
        for path in (
            *("one.txt", "x", "keep.log", "drop.log", "build/out.txt", "deep/f.txt"),
            *("a/one.txt", "a/keep.log", "a/build/out.txt", "a/x/in.txt", "a/b/deep/f.log"),
        ):
            put(root / path)
        put(root / ".gitignore", "\n".join(top) + "\n")
        put(root / "a" / ".gitignore", "\n".join(inner) + "\n")
        put(root / ".git" / "info" / "exclude", "\n".join(exclude) + "\n")
        listed = git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
        assert found_below(root) == sorted(name for name in listed if name)
        inside = [name for name in listed if name.startswith("a/")]
        if inside:
            assert found_below(root, root / "a") == sorted(inside), "rules above count, too"


def git(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout


def test_a_file_that_is_named_is_never_ignored(tmp_path: Path) -> None:
    put(tmp_path / ".gitignore", "*\n")
    assert found_below(tmp_path) == []
    assert found_below(tmp_path, put(tmp_path / "a.txt")) == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain\n", b"plain\n"),
        ("größer 日本".encode(), "größer 日本".encode()),
        (b"\xef\xbb\xbfmarked", b"marked"),
        (b"\x7fELF\0\0\1", None),
        (b"\xff\xfea\0", None),
        ("größer".encode("latin-1"), None),
    ],
)
def test_text_is_utf_8_without_zeros(tmp_path: Path, content: bytes, text: bytes | None) -> None:
    assert read_text(put(tmp_path / "f", content)) == text


# -- importing --------------------------------------------------------------------------------


def tokenize(text: bytes) -> list[int]:
    """One token a byte."""
    return list(text)


def run_import(recorded: Recorded, *paths: Path, limit: int = 1 << 30) -> list[Imported]:
    importer = Importer(recorded.connection, VOCABULARY, tokenize, limit)
    return list(importer.add(find_files(paths)))


def outcomes(imported: Sequence[Imported]) -> dict[str, str]:
    return {one.found.path.name: one.outcome for one in imported}


def recorded_files(recorded: Recorded) -> set[str]:
    rows = recorded.connection.execute("SELECT path FROM files")
    return {Path(path).name for (path,) in rows}


def continues(recorded: Recorded, start: bytes, end: bytes) -> bool:
    cursor = recorded.reader(tier="statistics").lookup(list(start))
    for token in end:
        cursor = cursor and cursor.after(token)
        if cursor is None:
            return bool(token == end[-1])
    return True


def test_imported_text_is_found_in_its_own_tier(tmp_path: Path) -> None:
    recorded = in_memory()
    put(tmp_path / "a.txt", "the quick brown fox jumps over the lazy dog")
    put(tmp_path / "b.bin", b"\0\1\2")
    put(tmp_path / "c.txt", b"\xff\xfe")
    imported = run_import(recorded, tmp_path)
    assert outcomes(imported) == {"a.txt": "imported", "b.bin": "not text", "c.txt": "not text"}
    assert imported[0].num_tokens == 43
    assert continues(recorded, b"brown fox", b" jumps over")
    assert recorded.reader().lookup(list(b"brown fox")) is None, "the model did not say this"


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    recorded = in_memory()
    put(tmp_path / "same.txt", "this stays as it is")
    changing = put(tmp_path / "changing.txt", "FIRST VERSION OF IT")
    run_import(recorded, tmp_path)
    changing.write_text("a second version instead")
    assert outcomes(run_import(recorded, tmp_path)) == {
        "same.txt": "unchanged",
        "changing.txt": "imported",
    }
    assert continues(recorded, b"a second", b" version instead")
    assert recorded.reader(tier="statistics").lookup(list(b"FIRST VERSION")) is None
    assert set(outcomes(run_import(recorded, tmp_path)).values()) == {"unchanged"}
    assert recorded.count("files") == recorded.count("sequences") == 2


def test_what_is_gone_from_a_folder_is_forgotten(tmp_path: Path) -> None:
    recorded = in_memory()
    inside, outside = tmp_path / "in", tmp_path / "out"
    gone = put(inside / "gone.txt", "soon this is gone")
    put(inside / "stays.txt", "this one stays here")
    elsewhere = put(outside / "gone_too.txt", "not asked about")
    run_import(recorded, inside, outside)
    gone.unlink()
    elsewhere.unlink()
    importer = Importer(recorded.connection, VOCABULARY, tokenize)
    assert importer.forget_missing([inside]) == 1
    assert recorded_files(recorded) == {"stays.txt", "gone_too.txt"}
    assert importer.forget_missing([inside]) == 0


def test_a_long_file_is_cut_without_losing_a_match(tmp_path: Path) -> None:
    recorded = in_memory()
    text = bytes((i * i + i // 7) % 251 for i in range(2 * SEQUENCE_TOKENS + 100))
    text = bytes(32 + byte % 90 for byte in text)
    put(tmp_path / "long.txt", text)
    run_import(recorded, tmp_path)
    assert recorded.count("sequences") == 3
    cut = SEQUENCE_TOKENS
    cursor = recorded.reader(tier="statistics").lookup(list(text[cut - 40 : cut]))
    assert cursor is not None and cursor.length == 32
    assert recorded.count("grams") == len(text) - 1


def test_a_file_that_was_forgotten_in_part_is_read_again(tmp_path: Path) -> None:
    recorded = in_memory()
    put(tmp_path / "long.txt", "0123456789" * SEQUENCE_TOKENS)
    put(tmp_path / "short.txt", "abc def")
    run_import(recorded, tmp_path)
    forgetting = Forgetting(recorded.connection)
    recorded.connection.execute("UPDATE sequences SET created = 0 WHERE id IN (1, 11)")
    recorded.connection.commit()
    forgetting.before(1)
    assert recorded_files(recorded) == {"long.txt"}
    assert outcomes(run_import(recorded, tmp_path)) == {
        "long.txt": "imported",
        "short.txt": "imported",
    }
    assert recorded.count("sequences") == 11


def test_an_import_keeps_the_limit_and_says_what_had_to_go(tmp_path: Path) -> None:
    recorded = in_memory()
    for number in range(30):
        text = "".join(chr(33 + (number * 31 + i * i) % 90) for i in range(2000))
        put(tmp_path / f"{number:02}.txt", text)
    imported = run_import(recorded, tmp_path, limit=400_000)
    assert sum(one.num_forgotten for one in imported) > 0
    assert recorded.count("files") < 30
    assert "29.txt" in recorded_files(recorded)


def test_a_name_that_is_no_text_is_kept_with_escapes(tmp_path: Path) -> None:
    recorded = in_memory()
    name = tmp_path / os.fsdecode(b"caf\xe9.txt")
    try:
        put(name, "some text here")
    except OSError:  # macOS refuses such names, so there is nothing to import
        return
    assert outcomes(run_import(recorded, tmp_path)) == {name.name: "imported"}
    assert recorded_files(recorded) == {"caf\\xe9.txt"} or len(recorded_files(recorded)) == 1
    assert set(outcomes(run_import(recorded, tmp_path)).values()) == {"unchanged"}


def test_a_file_that_cannot_be_read_does_not_end_the_import(tmp_path: Path) -> None:
    recorded = in_memory()
    put(tmp_path / "a.txt")
    put(tmp_path / "b.txt")
    found = list(find_files([tmp_path]))
    (tmp_path / "a.txt").unlink()
    importer = Importer(recorded.connection, VOCABULARY, tokenize)
    assert outcomes(list(importer.add(found))) == {"a.txt": "not readable", "b.txt": "imported"}


# -- carrying ---------------------------------------------------------------------------------


def filled() -> Recorded:
    recorded = in_memory()
    conversations = Talks(recorded.connection)
    known = conversations.start("Grüße")
    conversations.add(known, "user", 'say "hi"\nplease')
    conversations.add(known, "assistant", "hi")
    recorded.add([1, 2, 3], context=[7, 8], conversation=known)
    recorded.add([1, 2, 4], context=[8])
    return recorded


def content(recorded: Recorded) -> list[str]:
    return list(export_lines(recorded.connection))


def test_an_export_carries_everything_to_an_empty_database() -> None:
    lines = content(filled())
    assert is_export(lines[0]) and not is_export("{}") and not is_export("text")
    assert all(json.loads(line) for line in lines)
    other = in_memory()
    carried = import_lines(other.connection, lines)
    assert (carried.num_conversations, carried.num_sequences, carried.num_known) == (1, 2, 0)
    assert content(other) == lines
    cursor = other.reader().lookup([8, 1, 2])
    assert cursor is not None and len(votes(cursor)) == 2
    assert len(search(other.connection, "hi please")) == 1


def test_what_is_known_is_not_added_twice() -> None:
    recorded = filled()
    lines = content(recorded)
    carried = import_lines(recorded.connection, lines)
    assert (carried.num_conversations, carried.num_sequences, carried.num_known) == (0, 0, 3)
    assert content(recorded) == lines


def test_imported_files_are_not_carried(tmp_path: Path) -> None:
    recorded = in_memory()
    run_import(recorded, put(tmp_path / "a.txt", "secret text"))
    assert not any("sequence" in json.loads(line) for line in content(recorded))


def test_an_export_that_is_not_read_to_its_end_lets_go_of_the_database() -> None:
    recorded = filled()
    lines = export_lines(recorded.connection)
    next(lines)
    with contextlib.closing(lines):  # type: ignore[type-var]
        pass
    recorded.add([5, 6, 7])


@pytest.mark.parametrize(
    "broken",
    [
        "no json",
        '{"sequence": [1, 2]}',
        '{"sequence": [1], "context": [], "vocabulary": "unknown", "tier": "model",'
        ' "conversation": null, "created": 1}',
        '{"sequence": [-1], "context": [], "vocabulary": "tiny", "tier": "model",'
        ' "conversation": null, "created": 1}',
        '{"sequence": [1, 2], "context": [], "vocabulary": "tiny", "tier": "other",'
        ' "conversation": null, "created": 1}',
        '{"conversation": "c", "title": "t", "created": "never", "messages": []}',
        '{"conversation": "c", "title": "t", "created": 1, "messages": [["user"]]}',
        "[1, 2]",
        "7",
        "{}",
    ],
)
def test_a_broken_export_is_refused_by_line(broken: str) -> None:
    recorded = in_memory()
    head = ['{"edgespec": "export", "version": 1}', '{"vocabulary": "tiny", "num_tokens": 9}']
    with pytest.raises(UsageError, match="line 3 of the export"):
        import_lines(recorded.connection, [*head, broken])
    assert recorded.count("conversations") == recorded.count("sequences") == 0


def test_an_export_of_a_newer_version_is_refused() -> None:
    with pytest.raises(UsageError, match="version 3"):
        import_lines(in_memory().connection, ['{"edgespec": "export", "version": 3}'])
