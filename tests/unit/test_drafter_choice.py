"""The best of the models on disk is taken by the speed that it promises, and none if none pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from edgespec.errors import ModelFileError
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import Decision, Tried
from edgespec.llama.model import Model
from edgespec.models.store import ModelStore, StoredModel
from edgespec.runtime.choice import LEAST_SPEED, best_drafter, candidates_for, expected_speed_of
from edgespec.runtime.form import Form

PASS_MS = {1: 30.0, 2: 36.0}
SIZE = 1_000_000


@dataclass
class Target:
    path: Path = Path("target.gguf")
    num_bytes: int = SIZE


@dataclass
class Shelf:
    """Stands for a model store and a trimmer: sizes, and promised speeds of what was weighed."""

    sizes: dict[str, int]
    speeds: dict[str, float | Decision]
    too_large: tuple[str, ...] = ()
    opened: list[str] = field(default_factory=list)

    def list(self) -> tuple[StoredModel, ...]:
        return tuple(
            StoredModel(name, Path(f"{name}.gguf"), size, True, None, None)
            for name, size in self.sizes.items()
        )

    def decision(self, whole: Path) -> Decision | None:
        found = self.speeds.get(whole.stem)
        if isinstance(found, Decision) or found is None:
            return found
        if found < 0:
            raise ModelFileError("damaged")
        return form(found)

    def fits(self, whole: Path) -> bool:
        self.opened.append(whole.stem)
        if self.sizes[whole.stem] == 0:
            raise ModelFileError("damaged")
        return whole.stem not in self.too_large


def form(speed: float, counts: str | None = None) -> Decision:
    tried = (
        Tried(8192, "q4_0", 2.0, 0.6, speed + 0.5),
        Tried(16384, "q8_0", 3.0, 0.7, speed),
        Tried(16384, "as shipped", 5.0, 0.7, speed - 0.1),
    )
    return Decision(16384, "q8_0", tried, counts=counts)


def shelf(speeds: dict[str, float | Decision], *too_large: str) -> Shelf:
    return Shelf(dict.fromkeys(speeds, 100), speeds, too_large)


def choose(on: Shelf, pass_ms: Mapping[int, float] = PASS_MS) -> str | None:
    """The name of the model that would draft."""
    candidates = candidates_for(cast("Model", Target()), cast("ModelStore", on))
    chosen = best_drafter(candidates, pass_ms, cast("Trimmer", on), on.fits)
    return chosen.whole.stem if chosen is not None else None


def test_the_fastest_wins_and_no_other_is_even_opened() -> None:
    on = shelf({"a": 1.1, "b": 1.4, "c": 1.3})
    assert choose(on) == "b"
    assert on.opened == ["b"]


def test_what_was_not_weighed_yet_does_not_serve() -> None:
    on = Shelf({"new": 100, "a": 100}, {"a": 1.1})
    assert choose(on) == "a"
    assert choose(Shelf({"new": 100}, {})) is None
    assert choose(shelf({"old": form(1.4, "other words")})) is None


def test_beside_a_target_that_is_much_faster_none_serves() -> None:
    """Its second row costs as much as the first, so one more token would have to cost nothing."""
    on = shelf({"a": 1.4, "b": 1.3})
    assert choose(on) is not None
    assert choose(on, {1: 5.0, 2: 10.0}) is None
    assert choose(on, {1: 30.0, 2: 48.5}) is None
    assert choose(on, {1: 30.0, 2: 47.5}) is not None


def test_if_the_best_does_not_fit_the_next_one_serves() -> None:
    on = shelf({"a": 1.4, "b": 1.3, "c": 1.2}, "a")
    assert choose(on) == "b"
    assert on.opened == ["a", "b"]


@pytest.mark.parametrize("speed", [1.0, LEAST_SPEED - 0.001])
def test_one_that_does_not_pay_is_left_out(speed: float) -> None:
    assert choose(shelf({"a": speed})) is None


def test_the_smallest_that_may_serve_is_weighed_first() -> None:
    """The target itself and larger models may not."""
    on = Shelf({"target": 100, "large": SIZE, "b": 300, "a": 200}, {})
    found = candidates_for(cast("Model", Target()), cast("ModelStore", on))
    assert [path.stem for path in found] == ["a", "b"]


def test_what_cannot_be_read_is_passed_over() -> None:
    on = Shelf({"gone": 0, "broken": 100, "a": 100}, {"gone": 1.5, "broken": -1.0, "a": 1.2})
    assert choose(on) == "a"


def test_the_speed_is_that_of_the_form_that_runs() -> None:
    assert expected_speed_of(form(1.3)) == 1.3
    assert expected_speed_of(Decision(5, "q4_0")) == 1.0


def test_what_a_busy_machine_could_not_measure_serves_if_nothing_better_is_known() -> None:
    unsure = Decision(5, "q4_0", is_sure=False)
    assert choose(shelf({"a": unsure})) == "a"
    assert choose(shelf({"a": unsure, "b": LEAST_SPEED + 0.01})) == "b"


def test_its_memory_is_shown(tmp_path: Path) -> None:
    whole, trimmed = tmp_path / "whole.gguf", tmp_path / "t.gguf"
    whole.write_bytes(bytes(3_000_000))
    trimmed.write_bytes(bytes(1_000_000))
    assert Form(whole).describe() == "whole (3 MB)"
    assert Form(whole, trimmed).describe() == "whole (1 MB)"
