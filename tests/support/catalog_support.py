"""A catalog whose pulls come as far as a test lets them, and apps that show a screen over it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import BindingType
from tui_support import AppPilot, screen

from edgespec.catalog import AcceptTerms, CatalogModel, PullProgress
from edgespec.errors import Cancelled, EdgeSpecError, UsageError
from edgespec.tui.models_screen import Chosen, ModelsScreen
from edgespec.tui.pulls import PullEnded, Pulls


def entry(name: str, size_bytes: int, *, on_disk: bool = True, **changes: object) -> CatalogModel:
    """A model with usual facts."""
    model = CatalogModel(
        name=name,
        title=f"{name} Instruct Q4_K_M",
        size_bytes=size_bytes,
        licence="Apache-2.0",
        terms=None,
        is_on_disk=on_disk,
        roles=("target", "drafter"),
        fits="fits",
        speed="18 tok/s here" if on_disk else None,
        path=Path(f"/models/{name}.gguf") if on_disk else None,
    )
    return replace(model, **changes)  # type: ignore[arg-type]


MODELS = [
    entry("qwen2.5-coder-1.5b", 1_117_320_768, roles=("target",)),
    entry("smollm2-135m", 98_362_432, roles=("drafter",), speed="121 tok/s here"),
    entry(
        "hf:acme/a-rather-large-model-GGUF:a-rather-large-model-q4_k_m.gguf",
        40_000_000_000,
        fits="does not fit: needs 43.1 GB, 4.0 free",
        licence=None,
        speed=None,
    ),
    entry("qwen2.5-coder-0.5b", 491_400_064, on_disk=False),
    entry(
        "gemma-3-270m",
        253_113_024,
        on_disk=False,
        roles=("drafter",),
        licence="Gemma Terms of Use",
        terms="Gemma is provided under the Gemma Terms of Use. Using it means agreeing.",
    ),
]


class FakeCatalog:
    """Implements `Catalog`: a pull does one `step` after the other, then the model is on disk.

    A step is a number of bytes, an error to raise, or None for the end.
    """

    def __init__(self, models: list[CatalogModel] | None = None) -> None:
        self.listed = list(MODELS if models is None else models)
        self.steps: queue.Queue[int | EdgeSpecError | None] = queue.Queue()
        self.began_at: list[int] = []
        self.error: Exception | None = None
        self._kept: dict[str, int] = {}

    def models(self) -> list[CatalogModel]:
        if self.error is not None:
            raise self.error
        return list(self.listed)

    def pull(
        self,
        name: str,
        progress: PullProgress,
        accept_terms: AcceptTerms,
        is_cancelled: Callable[[], bool],
    ) -> Path:
        model = next(each for each in self.listed if each.name == name)
        if model.terms and not accept_terms(model):
            raise UsageError(f"{name} was not pulled because its terms were not accepted")
        self.began_at.append(self._kept.get(name, 0))
        progress.begin("the Hub", model.size_bytes)
        while not is_cancelled():
            try:
                step = self.steps.get(timeout=0.01)
            except queue.Empty:
                continue
            if isinstance(step, EdgeSpecError):
                raise step
            if step is None:
                return self._finish(model)
            self._kept[name] = step
            progress.at(step)
        raise Cancelled

    def _finish(self, model: CatalogModel) -> Path:
        path = Path(f"/models/{model.name}.gguf")
        self.listed[self.listed.index(model)] = replace(model, is_on_disk=True, path=path)
        return path


async def still(pilot: AppPilot) -> str:
    """The screen, once it does not change any more."""
    seen, num_same = "", 0
    while num_same < 5:
        await pilot.pause(0.02)
        before, seen = seen, screen(pilot)
        num_same = num_same + 1 if seen == before and seen.strip() else 0
    return seen


class ModelsApp(App[None]):
    """An app with the screen of models over an empty one; Ctrl+O opens it again."""

    BINDINGS: ClassVar[list[BindingType]] = [("ctrl+o", "open", "Open")]

    def __init__(self, catalog: FakeCatalog | None = None) -> None:
        super().__init__()
        self.catalog = catalog or FakeCatalog()
        self.pulls = Pulls(self.catalog)
        self.pulls.listen(self.post_message)
        self.chosen: list[Chosen | None] = []
        self.ended: list[PullEnded] = []

    def on_mount(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        shown = ModelsScreen(self.catalog, self.pulls, "qwen2.5-coder-1.5b", "auto")
        self.push_screen(shown, self.chosen.append)

    def on_pull_ended(self, event: PullEnded) -> None:
        self.ended.append(event)
