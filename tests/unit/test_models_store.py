"""The model folder: listing, removing, verifying, and files that come in whole."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from models_support.files import known_model, tiny_gguf

from edgespec.errors import BusyError, ChecksumError, UnknownModelError, UsageError
from edgespec.models.part import Fetched
from edgespec.models.records import is_verified, read_record, record_path, write_record
from edgespec.models.registry import HubFile
from edgespec.models.resolve import download_stem, resolve
from edgespec.models.store import ModelStore
from edgespec.paths import Paths

CONTENT = tiny_gguf(num_floats=1000)
MODEL = known_model(CONTENT)
KNOWN = {MODEL.name: MODEL}
ON_HUB = HubFile("acme/tiny", "q4/tiny.gguf")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=tmp_path / "data", cache=tmp_path / "cache")


@pytest.fixture
def store(paths: Paths) -> ModelStore:
    return ModelStore(paths, KNOWN)


def fetched(paths: Paths, content: bytes = CONTENT) -> Fetched:
    path = paths.ensure(paths.downloads) / "whole.part"
    path.write_bytes(content)
    return Fetched(path, hashlib.sha256(content).hexdigest())


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_an_empty_or_absent_folder_lists_nothing(store: ModelStore, paths: Paths) -> None:
    assert store.list() == ()
    assert not paths.models.exists()


def test_what_is_added_is_listed_verified(store: ModelStore, paths: Paths) -> None:
    store.add(MODEL, fetched(paths), "packages")
    store.add(ON_HUB, fetched(paths), "hub")
    known, on_hub = store.list()
    assert (known.name, known.verified, known.source) == (MODEL.name, True, "packages")
    assert (on_hub.name, on_hub.verified, on_hub.source) == (str(ON_HUB), True, "hub")
    assert known.path == paths.models / "tiny-model.gguf"
    assert on_hub.path == paths.models / "hf" / "acme" / "tiny" / "q4" / "tiny.gguf"
    assert known.size_bytes == len(CONTENT)
    assert known.sha256 == MODEL.sha256
    assert known.path.read_bytes() == CONTENT
    assert list(paths.downloads.glob("*.part")) == []


def test_every_listed_name_leads_back_to_its_file(store: ModelStore, paths: Paths) -> None:
    store.add(MODEL, fetched(paths), "hub")
    store.add(ON_HUB, fetched(paths), "hub")
    put(paths.models / "own.gguf")
    put(paths.models / "hf" / "stray.gguf")
    put(paths.models / "folder" / "tiny-model.gguf")
    listed = store.list()
    assert len(listed) == 5
    assert listed[0].name == MODEL.name
    for stored in listed:
        assert store.find(stored.name) == stored
        resolve(stored.name, KNOWN)


def test_the_users_own_files_are_listed_unverified(store: ModelStore, paths: Paths) -> None:
    put(paths.models / "own.gguf")
    put(paths.models / "notes.txt")
    put(paths.models / ".own.gguf.part")
    (stored,) = store.list()
    assert (stored.verified, stored.sha256, stored.source) == (False, None, None)


def test_a_changed_file_is_no_longer_verified(store: ModelStore, paths: Paths) -> None:
    path = store.add(MODEL, fetched(paths), "hub").path
    assert is_verified(path)
    os.utime(path, ns=(1, 1))
    assert not is_verified(path)
    assert not store.list()[0].verified
    assert store.verify(MODEL.name).verified
    with path.open("ab") as file:
        file.write(b"x")
    assert not is_verified(path)


def test_verify_hashes_and_finds_one_changed_bit(store: ModelStore, paths: Paths) -> None:
    path = store.add(MODEL, fetched(paths), "hub").path
    stat = path.stat()
    read: list[int] = []
    assert store.verify(MODEL.name, read.append).sha256 == MODEL.sha256
    assert read[-1] == len(CONTENT)
    with path.open("r+b") as file:
        file.seek(500)
        file.write(bytes([CONTENT[500] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert is_verified(path), "the cheap check cannot see this; that is what verify is for"
    with pytest.raises(ChecksumError, match=r"instead of .*; pull it again"):
        store.verify(MODEL.name)
    assert not is_verified(path)
    with pytest.raises(ChecksumError):
        store.verify(MODEL.name)


def test_verify_records_a_foreign_file_and_holds_it_to_that(
    store: ModelStore, paths: Paths
) -> None:
    path = put(paths.models / "own.gguf")
    stored = store.verify("own.gguf")
    assert (stored.verified, stored.source) == (True, "local")
    assert store.verify(str(path)).sha256 == hashlib.sha256(CONTENT).hexdigest()
    put(path, CONTENT + b"x")
    with pytest.raises(ChecksumError):
        store.verify("own.gguf")


@pytest.mark.parametrize("ref", [MODEL.name, str(ON_HUB), "nothing.gguf"])
def test_what_is_not_there_is_told(store: ModelStore, ref: str) -> None:
    assert store.find(ref) is None
    with pytest.raises(UnknownModelError, match="is not in the model folder"):
        store.verify(ref)
    with pytest.raises(UnknownModelError, match="is not in the model folder"):
        store.remove(ref)


def test_remove_deletes_the_file_its_record_and_its_downloads(
    store: ModelStore, paths: Paths
) -> None:
    path = store.add(MODEL, fetched(paths), "hub").path
    other = store.add(ON_HUB, fetched(paths), "hub").path
    half = put(paths.downloads / f"{download_stem(MODEL)}.packages.part", b"12345")
    (paths.downloads / f"{download_stem(MODEL)}.wheels").mkdir()
    assert store.remove(MODEL.name) == len(CONTENT) + 5
    assert not path.exists()
    assert not record_path(path).exists()
    assert not half.exists()
    assert not list(paths.downloads.glob("*.wheels"))
    assert other.exists()
    assert record_path(other).exists()


def test_remove_clears_a_download_that_never_ended(store: ModelStore, paths: Paths) -> None:
    put(paths.downloads / f"{download_stem(ON_HUB)}.hub-0123.part", b"123")
    assert store.remove(str(ON_HUB)) == 3
    assert list(paths.downloads.glob("*.part")) == []


def test_remove_takes_a_path_inside_the_folder_only(
    store: ModelStore, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(paths.models / "own.gguf")
    outside = put(tmp_path / "precious.gguf")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is not in the model folder"):
        store.remove(str(outside))
    with pytest.raises(UsageError):
        store.remove("precious.gguf")
    with pytest.raises(UsageError):
        store.remove("data/models/../../precious.gguf")
    assert outside.exists()
    assert store.remove("own.gguf") == len(CONTENT)


def test_a_model_that_is_being_pulled_is_not_removed(store: ModelStore, paths: Paths) -> None:
    path = store.add(MODEL, fetched(paths), "hub").path
    with store.lock(MODEL), pytest.raises(BusyError, match="is being pulled"):
        ModelStore(paths, KNOWN).remove(MODEL.name)
    assert path.exists()
    assert store.remove(MODEL.name) == len(CONTENT)


def test_add_replaces_what_was_there(store: ModelStore, paths: Paths) -> None:
    path = put(paths.models / f"{MODEL.name}.gguf", b"half of a file")
    store.add(MODEL, fetched(paths), "hub")
    assert path.read_bytes() == CONTENT
    assert store.list()[0].verified


def test_folders_on_two_disks_are_bridged_by_a_copy(
    store: ModelStore, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses to rename from one disk to another; inside the folder it renames."""
    replace = Path.replace

    def refuse_across(self: Path, target: Path) -> Path:
        if self.parent == paths.downloads:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_across)
    whole = fetched(paths)
    stored = store.add(MODEL, whole, "hub")
    assert stored.path.read_bytes() == CONTENT
    assert not whole.path.exists()
    assert sorted(path.name for path in paths.models.iterdir()) == [
        "tiny-model.gguf",
        "tiny-model.gguf.json",
    ]


def test_records_survive_the_round_trip(paths: Paths) -> None:
    path = put(paths.models / "own.gguf")
    assert read_record(path) is None
    record = write_record(path, "ab" * 32, "hub")
    assert read_record(path) == record
    assert record.size_bytes == len(CONTENT)
    path.unlink()
    assert not is_verified(path)


def test_a_linked_model_is_known_by_its_place_in_the_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.write_bytes(b"GGUF")
    paths = Paths(tmp_path / "home", tmp_path / "cache")
    paths.models.mkdir(parents=True)
    (paths.models / "smollm2-135m.gguf").symlink_to(elsewhere)
    store = ModelStore(paths)
    assert [stored.name for stored in store.list()] == ["smollm2-135m"]
    found = store.find("smollm2-135m")
    assert found is not None and found.path.name == "smollm2-135m.gguf"
