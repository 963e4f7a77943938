"""Servers for large clients: over a small completer, and over the default model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest
from server_support import EchoCompleter, Running, running_server

from edgespec.cli.loading import model_on_disk
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.paths import user_paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network


@pytest.fixture(scope="session")
def completer() -> EchoCompleter:
    return EchoCompleter()


@pytest.fixture(scope="session")
def echo_server(completer: EchoCompleter) -> Iterator[Running]:
    with running_server(completer) as it:
        yield it


@pytest.fixture
def server(echo_server: Running, completer: EchoCompleter) -> Running:
    completer.requests.clear()
    completer.says = None
    return echo_server


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The default model behind the same server."""
    paths = dataclasses.replace(user_paths(), data=tmp_path_factory.mktemp("edgespec"))
    path = model_on_disk(DEFAULT_TARGET)
    with (
        load(LoadRequest(), path, paths, report=lambda _line: None) as loaded,
        running_server(loaded.completer) as it,
    ):
        yield it
