"""Trimmed forms: made once, found again, made anew when something changed, never in the way.

Costs are given in place of measured ones: three quarters of the cost for a re-typed body, so that a
body as Q8_0 wins wherever costs are asked for.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pause_support import Asking
from rigs import SMALL, WriteModel, file_size_limit
from tiny_models import TinySpec

from edgespec.cache.database import Database, open_in_memory
from edgespec.cache.facts import Facts
from edgespec.errors import BusyError, ModelFileError, UsageError
from edgespec.forms import search as trim_choice
from edgespec.forms import trimmer as trimmed
from edgespec.forms import trimming
from edgespec.forms.counts import TokenCounts
from edgespec.forms.trimmer import TRIM, Trimmer
from edgespec.forms.trimming import AS_SHIPPED, Decision, Tried
from edgespec.forms.weighing import OpenDrafter, TokenCosts
from edgespec.gguf.trim import file_sha256, read_trim_info
from edgespec.llama.model import ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.vocab.tokenizer import ByteTokenizer

MACHINE = dataclasses.replace(this_machine(), num_threads=1)
DRAFTER = dataclasses.replace(SMALL, quantization="Q4_1")


class Rig:
    """A folder for trimmed files, a copy of a drafter, and the lines that were reported."""

    def __init__(self, folder: Path, source: Path, database: Database) -> None:
        self.folder = folder / "trimmed"
        self.whole = folder / "my drafter.gguf"
        shutil.copyfile(source, self.whole)
        self.store = Facts(database)
        self.lines: list[str] = []

    def trimmer(self, num_threads: int = 1) -> Trimmer:
        machine = dataclasses.replace(MACHINE, num_threads=num_threads)
        return Trimmer(self.folder, self.store, machine, ModelOptions(), self.lines.append)

    def trimmed(self) -> Path:
        """What runs in place of the drafter, which must be a trimmed file."""
        path = self.trimmer().trimmed(self.whole)
        assert path is not None, self.lines
        return path

    def files(self) -> list[Path]:
        """What is in the folder, but for the lock."""
        return sorted(path for path in self.folder.iterdir() if path.name != ".lock")


@pytest.fixture
def rig(tmp_path: Path, write_model: WriteModel, database: Database) -> Rig:
    return Rig(tmp_path, write_model(DRAFTER), database)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose costs were asked for; costs and gains are given."""
    asked: list[str] = []

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        names = [drafter.model.path.stem for drafter in drafters]
        asked.extend(names)
        return TokenCosts(
            tuple(3.0 if name in ("q8_0", "q4_m", "q4_0") else 4.0 for name in names), 1.0
        )

    monkeypatch.setattr(trim_choice, "token_costs", costs)
    monkeypatch.setattr(trim_choice, "expected_speed", lambda _readings, ms, _pass: 8.0 / ms)
    return asked


def choice_of(rig: Rig) -> Decision:
    form = rig.trimmer().decision(rig.whole)
    assert form is not None
    return form


def test_the_first_use_makes_it_and_the_second_finds_it(rig: Rig, measured: list[str]) -> None:
    path = rig.trimmed()
    assert rig.files() == [path]
    assert path.name.startswith("my drafter-")
    info = read_trim_info(path)
    assert info is not None
    assert info.parent_sha256 == file_sha256(rig.whole)
    assert info.parent_name == "my drafter.gguf"
    assert info.num_kept == SMALL.num_vocab
    choice = choice_of(rig)
    assert (choice.num_kept, choice.type_name) == (SMALL.num_vocab, "q8_0")
    *progress, last = rig.lines
    assert last.startswith("trimming my drafter to 512 of 512 tokens, as q8_0 took ")
    assert progress
    assert all(line.startswith("measuring ") for line in progress)
    rig.lines.clear()
    measured.clear()
    before = path.stat().st_mtime_ns
    os.utime(path, (0, 0))
    assert rig.trimmed() == path
    assert (rig.lines, measured) == ([], [])
    assert path.stat().st_mtime_ns > before, "it is known when a file was last used"


def test_a_deleted_file_comes_back_without_measuring(rig: Rig, measured: list[str]) -> None:
    content = rig.trimmed().read_bytes()
    rig.trimmed().unlink()
    measured.clear()
    assert rig.trimmed().read_bytes() == content
    assert measured == []


def test_a_damaged_file_is_made_anew(rig: Rig, measured: list[str]) -> None:
    path = rig.trimmed()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    measured.clear()
    assert rig.trimmed().read_bytes() == content
    assert measured == []


def test_a_lost_memory_does_no_harm(rig: Rig, measured: list[str]) -> None:
    path = rig.trimmed()
    measured.clear()
    with open_in_memory() as database:
        rig.store = Facts(database)
        assert rig.trimmed() == path
    assert measured == []


def test_a_drafter_that_changed_is_trimmed_anew(
    rig: Rig, measured: list[str], write_model: WriteModel
) -> None:
    before = rig.trimmed()
    shutil.copyfile(write_model(dataclasses.replace(DRAFTER, seed=1)), rig.whole)
    measured.clear()
    after = rig.trimmed()
    assert after != before
    assert measured
    info = read_trim_info(after)
    assert info is not None
    assert info.parent_sha256 == file_sha256(rig.whole)


def test_other_threads_are_another_machine(rig: Rig, measured: list[str]) -> None:
    path = rig.trimmed()
    other = rig.trimmer(num_threads=2).trimmed(rig.whole)
    assert other is not None
    assert other != path
    assert measured


def ship_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an EdgeSpec with another table of words."""
    for module in (trimmed, trimming):
        monkeypatch.setattr(module, "shipped_words_id", lambda: "another")


def test_new_counts_decide_anew(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.trimmed()
    measured.clear()
    ship_other_words(monkeypatch)
    assert rig.trimmed() == path
    assert measured
    form = rig.trimmer().decision(rig.whole)
    assert form is not None
    assert form.counts == "another"


def test_what_a_user_chose_stays(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(tokenizer: ByteTokenizer) -> TokenCounts:
        counts = np.zeros(tokenizer.vocab.num_tokens, dtype=np.float32)
        counts[400:440] = 5
        return TokenCounts(tokenizer.fingerprint, counts, "mine")

    path, parent, choice = rig.trimmer().trim(rig.whole, 300, "q4_0", count)
    assert (choice, parent.counts.origin) == (Decision(300, "q4_0"), "mine")
    ship_other_words(monkeypatch)
    assert rig.trimmed() == path
    assert measured == []
    info = read_trim_info(path)
    assert info is not None
    assert set(range(400, 440)) <= set(info.kept.tolist())
    assert info.origin == "mine"
    path.unlink()
    assert choice_of(rig).num_kept == 300
    rig.trimmed()
    assert measured, "the user's counts are not known any more"
    assert choice_of(rig).num_kept == 512


def test_a_file_elsewhere_changes_nothing_here(
    rig: Rig, measured: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere.gguf"
    path, _, _ = rig.trimmer().trim(rig.whole, 300, AS_SHIPPED, out=out)
    assert path == out
    assert rig.files() == []
    assert rig.trimmer().decision(rig.whole) is None
    assert rig.trimmed() != out


def test_a_drafter_that_is_best_whole_stays_whole(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim_choice, "expected_speed", lambda _readings, ms, _pass: ms)
    assert rig.trimmer().trimmed(rig.whole) is None
    assert rig.files() == []
    measured.clear()
    assert rig.trimmer().trimmed(rig.whole) is None
    assert measured == []
    assert not any("untrimmed" in line for line in rig.lines)


@pytest.mark.parametrize("architecture", ["mamba", "lfm2"])
def test_what_cannot_be_trimmed_is_told_once(
    rig: Rig, write_model: WriteModel, architecture: str
) -> None:
    spec = TinySpec(architecture=architecture, width=64, ffn_width=128)  # type: ignore[arg-type]
    whole = write_model(spec)
    assert rig.trimmer().trimmed(whole) is None
    (line,) = rig.lines
    assert line.startswith(f"the drafter {whole.stem} runs untrimmed: ")
    assert "is recurrent" in line
    assert rig.trimmer().trimmed(whole) is None
    assert rig.lines == [line]
    with pytest.raises(ModelFileError, match="is recurrent"):
        rig.trimmer().trim(whole, 300)


def test_a_busy_machine_is_asked_three_times(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        asked.append(len(drafters))
        return TokenCosts((1.0,) * len(drafters), 5.0)

    monkeypatch.setattr(trim_choice, "token_costs", costs)
    monkeypatch.setattr(trim_choice, "LADDER", (300, 400))
    monkeypatch.setattr(trim_choice, "USUAL_ROWS", 300)
    paths = {rig.trimmed() for _ in range(5)}
    assert len(paths) == 1
    assert len(asked) == 3
    info = read_trim_info(paths.pop())
    assert info is not None
    assert info.num_kept == 300


def test_a_calm_machine_decides_for_good(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            trim_choice, "token_costs", lambda drafters: TokenCosts((1.0,) * len(drafters), 5.0)
        )
        assert rig.trimmer().trimmed(rig.whole) is not None
    assert (choice_of(rig).is_sure, choice_of(rig).tried) == (False, ())
    rig.trimmed()
    assert choice_of(rig).is_sure
    assert choice_of(rig).type_name == "q8_0"
    assert choice_of(rig).tried


def test_a_folder_that_cannot_be_is_told(rig: Rig) -> None:
    rig.folder.write_text("not a folder")
    assert rig.trimmer().trimmed(rig.whole) is None
    (line,) = rig.lines
    assert line.startswith("the drafter my drafter runs untrimmed: cannot write to ")
    assert "make it writable" in line


def test_a_full_disk_is_told(rig: Rig, measured: list[str]) -> None:
    with file_size_limit(50_000):
        assert rig.trimmer().trimmed(rig.whole) is None
    assert rig.lines[-1].startswith("the drafter my drafter runs untrimmed: not enough space")
    assert rig.files() == []
    assert rig.trimmed() is not None, "another time there is space"


def test_only_one_process_trims(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimmed, "_WAIT_S", 0.05)
    rig.folder.mkdir()
    with filelock.FileLock(rig.folder / ".lock"):
        assert rig.trimmer().trimmed(rig.whole) is None
        (line,) = rig.lines
        assert line.endswith("runs untrimmed: another process is trimming a drafter; wait for it")
        with pytest.raises(BusyError):
            rig.trimmer().trim(rig.whole)
        with pytest.raises(BusyError):
            rig.trimmer().trimmed(rig.whole, pause=Asking())
        assert rig.lines == [line]


def test_what_interrupts_left_is_deleted(rig: Rig, measured: list[str]) -> None:
    rig.folder.mkdir()
    for name, days in ((".search-old-1", 70), (".search-recent-1", 30)):
        (rig.folder / name).mkdir()
        (rig.folder / name / "300-shipped.gguf").write_bytes(b"x" * 100)
        os.utime(rig.folder / name, (time.time() - days * 86400,) * 2)
    (rig.folder / ".my drafter-1.gguf.x.part").write_bytes(b"x" * 100)
    path = rig.trimmed()
    assert rig.files() == sorted([rig.folder / ".search-recent-1", path])


def test_an_interrupt_leaves_nothing_and_the_next_use_goes_on(
    rig: Rig, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_drafters: object) -> TokenCosts:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trim_choice, "token_costs", interrupt)
        rig.trimmer().trimmed(rig.whole)
    assert rig.files() == []
    assert rig.trimmed().is_file()


def test_files_that_nobody_uses_are_deleted(rig: Rig, measured: list[str]) -> None:
    rig.folder.mkdir()
    old, recent = rig.folder / "old-1.gguf", rig.folder / "recent-1.gguf"
    for path, days in ((old, 70), (recent, 30)):
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert rig.files() == sorted([old, recent])
    path = rig.trimmed()
    assert rig.files() == sorted([recent, path])


def test_a_long_name_is_cut(rig: Rig, measured: list[str]) -> None:
    long = rig.whole.with_name("n" * 240 + ".gguf")
    rig.whole.rename(long)
    rig.whole = long
    assert len(rig.trimmed().name) < 110


def test_nonsense_is_refused_and_nothing_remembered(rig: Rig) -> None:
    with pytest.raises(UsageError, match="cannot keep 5,000 tokens"):
        rig.trimmer().trim(rig.whole, 5000)
    assert rig.trimmer().decision(rig.whole) is None
    assert rig.files() == []


any_form = st.builds(
    Decision,
    st.integers(0, 10**6),
    st.text(),
    st.lists(
        st.builds(
            Tried,
            st.integers(),
            st.text(),
            st.floats(0, 1e6),
            st.none() | st.floats(0, 1),
            st.floats(0, 1e6),
        )
    ).map(tuple),
    st.booleans(),
    st.none() | st.text(),
    st.booleans(),
    st.text(),
    st.integers(0, 5),
)


@given(any_form)
def test_forms_round_trip_through_the_store(form: Decision) -> None:
    with open_in_memory() as database:
        store = Facts(database)
        assert store.put(TRIM, "key", form.to_json())
        value = store.get(TRIM, "key")
    assert value is not None
    assert Decision.from_json(value) == form


@pytest.mark.parametrize("value", [{}, {"tried": 1}, {"tried": []}, {"tried": [{"a": 1}]}])
def test_what_is_no_form_is_none(value: dict[str, object]) -> None:
    assert Decision.from_json(value) is None
