"""A server over a small completer for all tests of a file, which may have its own instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server_support import EchoCompleter, Running, running_server


@pytest.fixture(scope="module")
def completer() -> EchoCompleter:
    return EchoCompleter()


@pytest.fixture(scope="module")
def server(completer: EchoCompleter) -> Iterator[Running]:
    with running_server(completer) as it:
        yield it
