"""What every test shares: Hypothesis gives the same examples each time, so a failure comes back.

A server over a small completer is there for all tests of a file, which may have its own instead.

`make check` takes the profile "quick": fewer examples, where a test does not say how many.

A shell that starts its jobs in the background lets them ignore Ctrl-C, and tests that send it would
wait for ever. So it gets back its meaning, here and in all programs that tests start.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from server_support import EchoCompleter, Running

settings.register_profile(
    "edgespec",
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # machines may be busy
)
settings.register_profile("quick", settings.get_profile("edgespec"), max_examples=15)
settings.load_profile("edgespec")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def completer() -> EchoCompleter:
    from server_support import EchoCompleter  # not everywhere is all that it needs

    return EchoCompleter()


@pytest.fixture(scope="module")
def server(completer: EchoCompleter) -> Iterator[Running]:
    from server_support import running_server

    with running_server(completer) as it:
        yield it
