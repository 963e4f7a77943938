"""A search for a drafter's form gives way at any moment, and goes on in this process or another.

Costs are given in place of measured ones, as in test_trimmed.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pause_support import After, Asking
from rigs import SMALL, WriteModel

from edgespec.cache.database import Database, open_database
from edgespec.cache.facts import Facts
from edgespec.errors import Cancelled, ModelFileError
from edgespec.forms import search
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Decision
from edgespec.forms.weighing import (
    Heads,
    OpenDrafter,
    Readings,
    TokenCosts,
    TokenText,
    read_text,
)
from edgespec.gguf.quantize import retype
from edgespec.gguf.quantize_child import retype_apart
from edgespec.llama.model import ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.pauses import Abortable

MACHINE = dataclasses.replace(this_machine(), num_threads=1)
DRAFTER = dataclasses.replace(SMALL, quantization="Q4_1")
RUNGS = (300, 400, 450)


class Rig:
    """A drafter, and trimmers that know nothing of each other but what is on disk."""

    def __init__(self, folder: Path, source: Path, database: Database) -> None:
        self.folder = folder / "trimmed"
        self.whole = folder / "small.gguf"
        shutil.copyfile(source, self.whole)
        self.store = Facts(database)
        self.lines: list[str] = []

    def trimmer(self) -> Trimmer:
        return Trimmer(self.folder, self.store, MACHINE, ModelOptions(), self.lines.append)

    def left(self) -> list[str]:
        """What is in the folder besides the lock."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != ".lock")


@pytest.fixture
def rig(tmp_path: Path, write_model: WriteModel, database: Database) -> Rig:
    return Rig(tmp_path, write_model(DRAFTER), database)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The files whose costs were asked for together."""
    asked: list[tuple[str, ...]] = []

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        names = tuple(drafter.model.path.stem for drafter in drafters)
        asked.append(names)
        return TokenCosts(tuple(3.0 if name == "q8_0" else 4.0 for name in names), 1.0)

    monkeypatch.setattr(search, "token_costs", costs)
    monkeypatch.setattr(search, "LADDER", RUNGS)
    monkeypatch.setattr(search, "expected_speed", lambda _readings, ms, _pass: 8.0 / ms)
    return asked


def test_broken_off_anywhere_it_ends_with_the_same_form(
    rig: Rig, measured: list[tuple[str, ...]], tmp_path: Path
) -> None:
    """Each time a little later, by a trimmer that knows what is on disk: nothing is done twice."""
    path = rig.trimmer().trimmed(rig.whole)
    assert path is not None
    decision, content = rig.trimmer().decision(rig.whole), path.read_bytes()
    asked = [*measured]
    (tmp_path / "other").mkdir()
    other = Rig(tmp_path / "other", rig.whole, open_database(tmp_path / "other.db"))
    measured.clear()
    num_allowed, found = 0, None
    while found is None:
        pause = After(num_allowed)
        try:
            found = other.trimmer().trimmed(other.whole, pause=pause)
        except Cancelled:
            assert not [name for name in other.left() if name.endswith(".gguf")]
            num_allowed += 1 + num_allowed // 3
    assert found.read_bytes() == content
    assert other.trimmer().decision(other.whole) == decision
    assert measured == asked, "what was measured was noted"
    assert other.left() == [found.name]
    assert other.trimmer().trimmed(other.whole, pause=After(0)) == found


def test_what_is_computed_can_be_aborted(rig: Rig, measured: list[tuple[str, ...]]) -> None:
    """Every context that computes is known to the pause while it is open."""
    contexts: list[Abortable] = []

    class Noting(Asking):
        @contextmanager
        def aborting(self, computing: Abortable) -> Iterator[None]:
            contexts.append(computing)
            with super().aborting(computing):
                yield

    pause = Noting()
    assert rig.trimmer().trimmed(rig.whole, pause=pause) is not None
    assert contexts
    assert pause.computing == []


def test_what_was_read_on_a_busy_machine_is_not_read_again(
    rig: Rig, measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are compared in peace, types are not; later only what costs could not tell is done."""
    quiet: Callable[[Sequence[OpenDrafter]], TokenCosts] = vars(search)["token_costs"]
    read: list[str] = []

    def costs(drafters: Sequence[OpenDrafter]) -> TokenCosts:
        found = quiet(drafters)
        is_head = all(drafter.model.path.stem.endswith("shipped") for drafter in drafters)
        return found if is_head else dataclasses.replace(found, spread=2.0)

    def reading(drafter: OpenDrafter, text: TokenText, heads: Heads) -> list[Readings]:
        read.append(drafter.model.path.stem)
        return read_text(drafter, text, heads)

    monkeypatch.setattr(search, "token_costs", costs)
    monkeypatch.setattr(search, "read_text", reading)
    assert rig.trimmer().trimmed(rig.whole, pause=Asking()) is not None
    assert not _decision(rig).is_sure
    assert read
    read.clear()
    measured.clear()
    monkeypatch.setattr(search, "token_costs", quiet)
    assert rig.trimmer().trimmed(rig.whole, pause=Asking()) is not None
    assert _decision(rig).is_sure
    assert read == []
    assert measured
    assert all("q" in pair[0] for pair in measured)


def _decision(rig: Rig) -> Decision:
    found = rig.trimmer().decision(rig.whole)
    assert found is not None
    return found


def test_retyping_apart_gives_the_same_file(write_model: WriteModel, tmp_path: Path) -> None:
    source = write_model(DRAFTER)
    retype(source, tmp_path / "here.gguf", "q8_0", 1)
    retype_apart(source, tmp_path / "apart.gguf", "q8_0", 1, Asking())
    assert (tmp_path / "apart.gguf").read_bytes() == (tmp_path / "here.gguf").read_bytes()


def test_retyping_apart_is_ended_at_once(write_model: WriteModel, tmp_path: Path) -> None:
    source, destination = write_model(DRAFTER), tmp_path / "apart.gguf"
    for num_calls in (0, 1, 3):  # asked each 10 ms; Python alone takes longer to start
        with pytest.raises(Cancelled):
            retype_apart(source, destination, "q8_0", 1, After(num_calls))
        assert not destination.exists()
    (tmp_path / ".apart.gguf.left.part").write_bytes(b"of one that was killed")
    retype_apart(source, destination, "q8_0", 1, Asking())
    assert [path.name for path in tmp_path.iterdir()] == ["apart.gguf"]


def test_retyping_apart_tells_why_it_failed(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"cannot make q8_0 of bad\.gguf: .*bad\.gguf"):
        retype_apart(tmp_path / "bad.gguf", tmp_path / "out.gguf", "q8_0", 1, Asking())
