"""What the person who starts the server decides, checked before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from edgespec.errors import UsageError
from edgespec.types import SamplingParams

LOCALHOST = "localhost"


def is_loopback(host: str) -> bool:
    """True if `host` (a name or an address without port or brackets) is this machine alone."""
    if host.lower() == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens and what it takes; raises UsageError for values that make no sense.

    `port` 0 lets the system choose. `max_queue` counts the requests that wait, the one that is
    being answered not included. `default_sampling` fills the fields that a request leaves out;
    its seed is not used: a request without one gets a random seed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_queue: int = 8
    max_body_bytes: int = 4 * 1024 * 1024
    default_sampling: SamplingParams = field(default_factory=SamplingParams)
    verbose: bool = False

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise UsageError(
                f"the server does not listen on {self.host!r}: it has no access control",
                "use 127.0.0.1, ::1 or localhost",
            )
        if not 0 <= self.port <= 65535:
            raise UsageError(f"{self.port} is not a port", "use 1 to 65535, or 0 for any free one")
        if self.max_queue < 0:
            raise UsageError(f"a queue of {self.max_queue} places", "use 0 or more")
        if self.max_body_bytes < 1:
            raise UsageError(f"a body limit of {self.max_body_bytes} bytes", "use 1 or more")

    @property
    def address(self) -> str:
        """The numeric address to bind; `localhost` is 127.0.0.1, whatever a resolver says."""
        return "127.0.0.1" if self.host.lower() == LOCALHOST else self.host

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a Host header may carry, in lower case, IPv6 in brackets, without port."""
        own = f"[{self.address}]" if ":" in self.address else self.address
        return frozenset({LOCALHOST, "127.0.0.1", "[::1]", own.lower()})
