"""Tiny models: written once a session, opened once, closed at its end. Bad children, a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs import OpenModel, Sabotage, WriteModel
from tiny_models import TinySpec, write_tiny_model

from edgespec.cache.database import Database, open_in_memory
from edgespec.llama import library
from edgespec.llama.model import Model


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


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Run code at the start of the self-check's children whose first argument, 0 or 1, is given.

    It stands in a `sitecustomize` module, which Python runs before anything else.
    """
    folder = tmp_path / "sabotage"

    def install(arguments: str, code: str) -> None:
        folder.mkdir()
        is_child = "sys.orig_argv[2:3] == ['edgespec.machine.soundness_child']"
        is_meant = f"sys.orig_argv[3] in {arguments!r}"
        body = "".join(f"    {line}\n" for line in code.splitlines())
        text = f"import sys\nif {is_child} and {is_meant}:\n{body}"
        (folder / "sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return install


@pytest.fixture
def database() -> Iterator[Database]:
    with open_in_memory() as it:
        yield it
