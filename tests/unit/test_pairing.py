"""The best of the models on disk is taken by the speed that it promises, and none if none pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from edgespec.errors import ModelFileError
from edgespec.forms.form import Form
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Choice, Tried
from edgespec.llama.model import Model
from edgespec.models.store import ModelStore, StoredModel
from edgespec.models.trials import Trials
from edgespec.runtime.choice import LEAST_SPEED, best_drafter, expected_speed_of
from edgespec.runtime.request import DrafterFiles

PASS_MS = {1: 30.0, 2: 36.0}
SIZE = 1_000_000


@dataclass
class Target:
    path: Path = Path("target.gguf")
    num_bytes: int = SIZE
    can_roll_back: bool = True


@dataclass
class Shelf:
    """Stands for a model store and a trimmer: sizes and promised speeds by name."""

    sizes: dict[str, int]
    speeds: dict[str, float]
    asked: list[str] = field(default_factory=list)
    too_large: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def list(self) -> tuple[StoredModel, ...]:
        return tuple(
            StoredModel(name, Path(f"{name}.gguf"), size, True, None, None)
            for name, size in self.sizes.items()
        )

    def trimmed(self, whole: Path, pass_ms: Callable[[], Mapping[int, float]]) -> Path | None:
        assert pass_ms() == PASS_MS
        self.asked.append(whole.stem)
        if self.speeds[whole.stem] < 0:
            raise ModelFileError("damaged")
        self.known = (*self.known, whole.stem)
        return None if self.speeds[whole.stem] == 1.25 else Path(f"trimmed-{whole}")

    def form(self, whole: Path) -> Form | None:
        if not self.speeds[whole.stem]:
            return None
        return form(self.speeds[whole.stem], None if whole.stem in self.known else "other words")


def form(speed: float, counts: str | None = None) -> Form:
    tried = (
        Tried(8192, "q4_0", 2.0, 0.6, speed + 0.5),
        Tried(16384, "q8_0", 3.0, 0.7, speed),
        Tried(16384, "as shipped", 5.0, 0.7, speed - 0.1),
    )
    return Form(Choice(16384, "q8_0", tried), counts)


def choose(
    shelf: Shelf,
    usual_ms: Mapping[int, float] = PASS_MS,
    **target: Any,  # noqa: ANN401 - fields of Target
) -> DrafterFiles | None:
    return best_drafter(
        cast("Model", Target(**target)),
        usual_ms,
        lambda: PASS_MS,
        cast("ModelStore", shelf),
        Trials(Path("no such folder")),
        cast("Trimmer", shelf),
        lambda files: files.whole.stem not in shelf.too_large,
    )


def test_the_fastest_wins() -> None:
    speeds = {"a": 1.1, "b": 1.4, "c": 1.3}
    shelf = Shelf(dict.fromkeys(speeds, 100), speeds, known=("a", "b", "c"))
    assert choose(shelf) == DrafterFiles(Path("b.gguf"), Path("trimmed-b.gguf"))
    assert shelf.asked == ["b"]


def test_each_start_measures_one_model_the_smallest_first() -> None:
    shelf = Shelf({"c": 300, "a": 100, "b": 200}, {"a": 1.1, "b": 1.4, "c": 1.3})
    served, asked = [], []
    for _ in range(4):
        chosen = choose(shelf)
        assert chosen is not None
        served.append(chosen.name)
        asked.append([*shelf.asked])
        shelf.asked.clear()
    assert served == ["a", "b", "b", "b"]
    assert asked == [["a"], ["b"], ["c", "b"], ["b"]]


def test_what_is_known_to_be_slower_is_not_even_opened() -> None:
    speeds = {"slow": 1.1, "fast": 1.4, "new": 1.2, "useless": 1.0}
    shelf = Shelf(dict.fromkeys(speeds, 100), speeds, known=("slow", "fast", "useless"))
    assert choose(shelf) == DrafterFiles(Path("fast.gguf"), Path("trimmed-fast.gguf"))
    assert shelf.asked == ["new", "fast"]


def test_beside_a_target_that_is_much_faster_none_serves() -> None:
    """Its second row costs as much as the first, so one more token would have to cost nothing."""
    shelf = Shelf({"a": 100, "b": 100}, {"a": 1.4, "b": 1.3}, known=("a",))
    assert choose(shelf) is not None
    assert choose(shelf, usual_ms={1: 5.0, 2: 10.0}) is None
    assert choose(shelf, usual_ms={1: 30.0, 2: 48.5}) is None
    assert choose(shelf, usual_ms={1: 30.0, 2: 47.5}) is not None


def test_if_the_best_does_not_fit_the_next_one_serves() -> None:
    speeds = {"a": 1.4, "b": 1.3, "c": 1.2}
    shelf = Shelf(dict.fromkeys(speeds, 100), speeds, too_large=("a",), known=("a", "b", "c"))
    assert choose(shelf) == DrafterFiles(Path("b.gguf"), Path("trimmed-b.gguf"))
    assert shelf.asked == ["b"]


def test_a_drafter_may_be_best_as_it_is() -> None:
    assert choose(Shelf({"a": 100}, {"a": 1.25})) == DrafterFiles(Path("a.gguf"), None)


@pytest.mark.parametrize("speed", [1.0, LEAST_SPEED - 0.001])
def test_one_that_does_not_pay_is_left_out(speed: float) -> None:
    assert choose(Shelf({"a": 100}, {"a": speed})) is None


def test_what_cannot_serve_is_not_even_measured() -> None:
    """The target itself, larger models; and nothing at all where a target cannot roll back."""
    shelf = Shelf({"target": 100, "large": SIZE, "a": 100}, {"target": 9.0, "large": 9.0, "a": 1.2})
    chosen = choose(shelf)
    assert chosen is not None
    assert (chosen.name, shelf.asked) == ("a", ["a"])
    assert choose(shelf, can_roll_back=False) is None
    assert shelf.asked == ["a"]
    assert choose(Shelf({}, {})) is None


def test_what_does_not_fit_into_memory_is_not_even_measured() -> None:
    shelf = Shelf({"a": 100, "b": 200}, {"a": 1.1, "b": 1.4}, too_large=("b",))
    chosen = choose(shelf)
    assert chosen is not None
    assert (chosen.name, shelf.asked) == ("a", ["a"])


def test_what_fails_is_passed_over() -> None:
    shelf = Shelf({"broken": 100, "unknown": 100, "a": 100}, {"broken": -1, "unknown": 0, "a": 1.2})
    chosen = choose(shelf)
    assert chosen is not None
    assert chosen.name == "a"


def test_the_speed_is_that_of_the_form_that_runs() -> None:
    assert expected_speed_of(form(1.3)) == 1.3
    assert expected_speed_of(Form(Choice(5, "q4_0"), None)) == 1.0


def test_what_a_busy_machine_could_not_measure_serves_if_nothing_better_is_known() -> None:
    unsure = expected_speed_of(Form(Choice(5, "q4_0", is_sure=False), "words"))
    assert choose(Shelf({"a": 100}, {"a": unsure})) is not None
    better = Shelf({"a": 100, "b": 100}, {"a": unsure, "b": LEAST_SPEED + 0.01}, known=("a", "b"))
    assert choose(better) == DrafterFiles(Path("b.gguf"), Path("trimmed-b.gguf"))


def test_its_memory_is_shown(tmp_path: Path) -> None:
    whole, trimmed = tmp_path / "whole.gguf", tmp_path / "t.gguf"
    whole.write_bytes(bytes(3_000_000))
    trimmed.write_bytes(bytes(1_000_000))
    assert DrafterFiles(whole).describe() == "whole (3 MB)"
    assert DrafterFiles(whole, trimmed).describe() == "whole (1 MB)"
