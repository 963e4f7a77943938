"""Versions on disk: what is written is read; what is cut off or foreign is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapt_support import learned
from hypothesis import given
from hypothesis import strategies as st
from rigs import file_size_limit

from edgespec.errors import StorageError
from edgespec.learning.online.adaptations import AdaptationStore, History, Pair, Saved, read, write
from edgespec.learning.online.datastore import DatastoreState
from edgespec.learning.online.history import AdaptationHistory
from edgespec.learning.online.learner import LearnerState
from edgespec.learning.online.trainer import TrainerState

PAIR = Pair("a" * 32, "b" * 32, "target", "drafter")
HISTORY = History(3, 40, 2000, 0.71, 0.75)
FIELDS = [field.name for field in dataclasses.fields(TrainerState)]


@pytest.fixture
def store(tmp_path: Path) -> AdaptationStore:
    return AdaptationStore(tmp_path / "adaptations")


@pytest.fixture
def written(store: AdaptationStore) -> Path:
    store.save(Saved(PAIR, HISTORY, learned()))
    return store.path(PAIR)


def test_what_is_saved_is_loaded(store: AdaptationStore) -> None:
    state = learned()
    assert store.load(PAIR) is None
    store.save(Saved(PAIR, HISTORY, state))
    saved = store.load(PAIR)
    assert saved is not None
    assert (saved.pair, saved.history) == (PAIR, HISTORY)
    for name in FIELDS:
        read_back, kept = getattr(saved.state.trainer, name), getattr(state.trainer, name)
        np.testing.assert_array_equal(read_back, kept)
    for name in ("mean", "down", "keys", "said"):
        read_back, kept = getattr(saved.state.memory, name), getattr(state.memory, name)
        np.testing.assert_array_equal(read_back, kept)
    assert saved.state.way == state.way
    assert store.all() == [store.path(PAIR)]
    assert [path.name for path in store.folder.iterdir()] == [PAIR.file_name]


def test_only_its_owner_may_look(written: Path) -> None:
    assert written.stat().st_mode & 0o077 == 0
    assert written.parent.stat().st_mode & 0o077 == 0


@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.adaptation"
    write(Saved(PAIR, HISTORY, learned()), path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StorageError, match="adapt reset"):
        read(path)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, share: float, change: int
) -> None:
    path = tmp_path_factory.mktemp("changed") / "x.adaptation"
    saved = Saved(PAIR, HISTORY, learned())
    write(saved, path)
    data = bytearray(path.read_bytes())
    start = data.index(b"\n", data.index(b"\n") + 1) + 1
    data[start + int((len(data) - start) * share)] ^= change
    path.write_bytes(data)
    with pytest.raises(StorageError, match="cut off or damaged"):
        read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF" + b"\0" * 100,
        b"edgespec adaptation 1\n",
        b"edgespec adaptation 1\n[]\n",
        b"edgespec adaptation 1\n{}\nx",
        b"edgespec adaptation 1\n" + b"\xff" * 99,
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.adaptation"
    path.write_bytes(data)
    with pytest.raises(StorageError) as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_another_pairs_file_is_refused(store: AdaptationStore, written: Path) -> None:
    other = dataclasses.replace(PAIR, drafter="c" * 32)
    written.rename(store.path(other))
    with pytest.raises(StorageError, match="another pair"):
        store.load(other)


def test_names_do_not_matter(store: AdaptationStore, written: Path) -> None:
    assert written.exists()
    assert store.load(dataclasses.replace(PAIR, target_name="renamed")) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bias", np.full(5, np.nan, np.float32)),
        ("up", np.zeros((5, 4), np.float32)),
        ("seen_down", np.zeros((2, 12), np.float32)),
        ("rows", np.array([4, 3, 2, 1, 0], np.int32)),
        ("rows", np.array([-1, 3, 5, 8, 9], np.int32)),
        ("scale", float("inf")),
        ("way", 7),
        ("memory_keys", np.ones((9, 5), np.int8)),
        ("memory_keys", np.ones((9, 4), np.float32)),
        ("memory_said", np.arange(8, dtype=np.int32)),
        ("memory_said", np.full(9, -1, dtype=np.int32)),
        ("memory_down", np.full((4, 12), np.nan, dtype=np.float32)),
        ("memory_mean", np.zeros(11, dtype=np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path,
    name: str,
    value: Any,  # noqa: ANN401 - any array
) -> None:
    def of(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.ones(shape, np.float32)

    rows = np.arange(5, dtype=np.int32)
    good = TrainerState(1.0, rows, of(3, 12), of(5, 3), of(5), of(3, 12), of(5, 3), of(5))
    keys = np.ones((9, 4), np.int8)
    memory = DatastoreState(of(12), of(4, 12), keys, np.arange(9, dtype=np.int32))
    path = tmp_path / "x.adaptation"
    write(Saved(PAIR, HISTORY, LearnerState(good, memory, way=0)), path)
    assert read(path).state.trainer.scale == 1.0
    if name.startswith("memory_"):
        memory = dataclasses.replace(memory, **{name.removeprefix("memory_"): value})
    elif name != "way":
        good = dataclasses.replace(good, **{name: value})
    way = value if name == "way" else 0
    write(Saved(PAIR, HISTORY, LearnerState(good, memory, way)), path)
    with pytest.raises(StorageError, match="damaged"):
        read(path)


def test_a_full_disk_leaves_what_was_there(store: AdaptationStore, written: Path) -> None:
    before = written.read_bytes()
    with file_size_limit(500), pytest.raises(StorageError, match="cannot write"):
        store.save(Saved(PAIR, dataclasses.replace(HISTORY, version=9), learned()))
    assert written.read_bytes() == before
    assert list(store.folder.iterdir()) == [written]


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lines: list[str] = []
    store = AdaptationStore(tmp_path / "file" / "adaptations")
    keeping = AdaptationHistory(PAIR, store, History(), lines.append)
    for _ in range(3):
        keeping.keep(learned(), is_new=True)
    assert keeping.history.version == 3
    assert len(lines) == 1
    assert "not kept" in lines[0]


def test_what_is_told_of_a_version() -> None:
    keeping = AdaptationHistory(PAIR, None, History(), lambda _line: None)
    places = np.arange(100) / 100
    for _ in range(5):
        keeping.count(places < 0.7, places < 0.8)
    history = keeping.history
    assert (history.num_answers, history.num_positions) == (5, 500)
    assert history.share_alone == pytest.approx(0.7)
    assert history.share_served == pytest.approx(0.8)
    keeping.count(*np.zeros((2, 4000), dtype=np.bool_))
    assert keeping.history.share_served < 0.1


def test_the_header_is_readable_by_people(written: Path) -> None:
    header = json.loads(written.read_bytes().split(b"\n", 2)[1])
    assert header["pair"]["target_name"] == "target"
    assert header["history"]["version"] == 3
