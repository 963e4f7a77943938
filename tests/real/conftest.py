"""The real default models: pulled into the user's own folder once, loaded once a session.

The database is a new one, so what a developer's own remembers neither helps nor is touched; the
models are measured each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgespec.cli.loading import model_on_disk
from edgespec.llama.model import Model, ModelOptions
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.paths import Paths, user_paths
from edgespec.protocols import TextCompleter
from edgespec.runtime.examination import examine
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running, load

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as real."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def target_path() -> Path:
    return model_on_disk(DEFAULT_TARGET)


@pytest.fixture(scope="session")
def drafter_path() -> Path:
    return model_on_disk(DEFAULT_DRAFTER)


@pytest.fixture(scope="session")
def real_paths(target_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A home in which `edgespec doctor` has measured the default model.

    Otherwise a busy machine may have proved but one row by then, and nothing would draft.
    """
    paths = dataclasses.replace(user_paths(), data=tmp_path_factory.mktemp("edgespec"))
    examine(str(target_path), paths, anew=False, verbose=False)
    return paths


@pytest.fixture(scope="session")
def real(target_path: Path, real_paths: Paths) -> Iterator[Running]:
    """The default model, as every command loads it."""
    with load(LoadRequest(), target_path, real_paths, report=lambda _line: None) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def real_completer(real: Running) -> TextCompleter:
    return real.completer


@pytest.fixture(scope="session")
def vocabularies(target_path: Path, drafter_path: Path) -> Iterator[dict[str, Model]]:
    """The default pair without weights: tokenizers and chat templates."""
    options = ModelOptions(vocabulary_only=True)
    with Model(target_path, options) as target, Model(drafter_path, options) as drafter:
        yield {DEFAULT_TARGET: target, DEFAULT_DRAFTER: drafter}
