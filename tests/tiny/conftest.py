"""Tiny models: written once a session, opened once, closed at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs import OpenModel, WriteModel

from edgespec.llama import library
from edgespec.llama.model import Model
from edgespec.llama.tiny import TinySpec, write_tiny_model


@pytest.fixture(autouse=True)
def quiet_library() -> None:
    """Put EdgeSpec's log callback back in place, which other tests replace by their own."""
    library.set_verbose(False)


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> WriteModel:
    folder = tmp_path_factory.mktemp("tiny-models")
    paths: dict[TinySpec, Path] = {}

    def write(spec: TinySpec) -> Path:
        if spec not in paths:
            paths[spec] = write_tiny_model(folder / f"{len(paths)}.gguf", spec)
        return paths[spec]

    return write


@pytest.fixture(scope="session")
def open_model(write_model: WriteModel) -> Iterator[OpenModel]:
    models: dict[TinySpec, Model] = {}

    def load(spec: TinySpec) -> Model:
        if spec not in models:
            models[spec] = Model(write_model(spec))
        return models[spec]

    yield load
    for model in models.values():
        model.close()
