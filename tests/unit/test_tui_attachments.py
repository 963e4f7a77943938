"""Files that go along with a message: which there are, how they are read and sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import UsageError
from edgespec.tui import files
from edgespec.tui.attachments import MAX_BYTES, Attachment, appended, read_attachment
from edgespec.tui.completion import Query, command_choices, query_at, ranked


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.py", "src/main.py", "src/deep/x.txt", ".git/config", "node_modules/m.js",
                 ".env", "src/.hidden"):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"text of {name}")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


def test_files_near_the_root_come_first_and_hidden_ones_never(tree: Path) -> None:
    assert files.files_below(tree) == ["a.py", "src/main.py", "src/deep/x.txt"]


def test_the_walk_is_bounded_and_can_be_stopped(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.files_below(tree, stopped=lambda: True) == []
    monkeypatch.setattr(files, "MAX_FILES", 2)
    assert files.files_below(tree) == ["a.py", "src/main.py"]


def test_a_path_that_names_its_folder_lists_that_folder(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tree))
    assert "./src/" in files.entries_of("./s", tree)
    assert f"{tree}/src/main.py" in files.entries_of(f"{tree}/src/ma", tree)
    assert files.entries_of("~/src/", tree) == ["~/src/.hidden", "~/src/deep/", "~/src/main.py"]
    assert "~/a.py" in files.entries_of("~", tree)
    assert files.entries_of("~nobody-of-that-name/", tree) == []
    assert files.entries_of("./missing/", tree) == []


def test_a_file_is_read_under_the_name_that_its_user_knows(tree: Path) -> None:
    inside = read_attachment("src/../a.py", tree)
    assert inside == Attachment("a.py", "text of a.py", 12)
    outside = read_attachment(str(tree / "a.py"), tree / "src")
    assert outside.name == str(tree / "a.py")


def test_marks_of_windows_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read_attachment("w.txt", tmp_path).text == "one\ntwo"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("folder", "is a folder"),
        ("missing", "cannot be read: No such file"),
        ("fifo", "is not a regular file"),
        ("nul", "is not UTF-8 text"),
        ("latin", "is not UTF-8 text"),
        ("big", "is larger than 1 MiB"),
        ("~nobody-of-that-name/x", "cannot be read"),
        ("a\x00b", "cannot be read"),
    ],
)
def test_what_cannot_be_attached_is_refused_with_its_reason(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nul").write_bytes(b"a\x00b")
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    (tmp_path / "big").write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match=told):
        read_attachment(name, tmp_path)


@given(st.text(alphabet="`a\n", max_size=40))
def test_no_file_ends_its_own_fence(text: str) -> None:
    block = appended("see", [Attachment("a.md", text, len(text))]).split("\n")
    fence = block[3].removesuffix("md")
    assert block[-1] == fence and set(fence) == {"`"}
    inside = "\n".join(block[4:-1])
    assert inside == text.removesuffix("\n")
    assert fence not in inside


@pytest.mark.parametrize(
    ("line", "row", "column", "query"),
    [
        ("/", 0, 1, Query("command", "", 0)),
        ("/se", 0, 3, Query("command", "se", 0)),
        ("/set t", 0, 6, Query("setting", "t", 5)),
        ("/set top_p 1", 0, 12, None),
        ("/system t", 0, 9, None),
        ("/se", 1, 3, None),
        ("//s", 0, 3, None),
        ("@", 0, 1, Query("file", "", 0)),
        ("see @a/b and", 0, 8, Query("file", "a/b", 4)),
        ("see @a/b and", 0, 12, None),
        ("me@home", 0, 7, None),
    ],
)
def test_what_is_completed_at_the_cursor(
    line: str, row: int, column: int, query: Query | None
) -> None:
    assert query_at(line, row, column) == query


def test_names_come_before_folders_and_letters_in_order_are_enough() -> None:
    paths = ["domain/x.py", "src/main.py", "src/m/a.txt", "other.py"]
    assert [path for path, _ in ranked("main", paths)] == ["src/main.py", "domain/x.py"]
    assert [path for path, _ in ranked("smp", paths)] == ["src/main.py"]
    assert [path for path, _ in ranked("", paths)] == paths
    assert ranked("[", ["a[b].py"])[0][1] == [1]


def test_a_query_with_countless_ways_to_match_is_answered() -> None:
    assert ranked("a" * 20 + "b", ["a" * 200 + "b", "ab"])[0][0] == "a" * 200 + "b"
    assert ranked("aaaaaaaaaaaaz", ["ab" * 100 + "z"])[0][0] == "ab" * 100 + "z"


def test_commands_are_offered_with_what_they_do() -> None:
    choices = command_choices("ex", {"export": "f9"})
    assert choices[0].value == "export"
    assert "write this conversation" in choices[0].label.plain and "F9" in choices[0].label.plain
