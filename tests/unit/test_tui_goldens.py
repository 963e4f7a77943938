"""Every screen of the chat as text, at the usual size and at a large one.

What a golden shows is looked at whenever one changes: `make goldens` writes them anew. Nothing in
them depends on time: ages are told at a pinned time, hints stay, nothing blinks.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from catalog_support import still
from chat_scenes import NOW, SCENES, scene_app
from goldens import golden_in
from tui_support import transcript, until

FOLDER = Path(__file__).parent / "goldens"
SIZES = {"80x24": (80, 24), "200x50": (200, 50)}


@pytest.fixture(autouse=True)
def still_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ages are told at one time, hints stay, numbers are the last, and no files are found."""
    monkeypatch.setattr("edgespec.tui.library.time", SimpleNamespace(time=lambda: NOW))
    monkeypatch.setattr("edgespec.tui.message_input.HINT_SECONDS", 600)
    monkeypatch.setattr("edgespec.tui.stage.STATUS_INTERVAL", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCENES)
async def test_how_it_looks(
    name: str, size: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with scene_app(name) as (app, completer):
        async with app.run_test(size=SIZES[size]) as pilot:
            await SCENES[name](pilot, completer, tmp_path)
            column = transcript(pilot)._column
            await until(pilot, lambda: not any(column.estimated()))  # how long the scrollbar is
            shown = await still(pilot)
    golden_in(FOLDER, pytestconfig)(f"{name}-{size}", f"{shown}\n")


def test_every_golden_is_of_a_scene() -> None:
    wanted = {f"{name}-{size}.txt" for name in SCENES for size in SIZES}
    assert {path.name for path in FOLDER.glob("*.txt")} == wanted
