"""What the person who starts the server decides, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edgespec.errors import UsageError
from edgespec.types import SamplingParams

LOCALHOST = "localhost"
MOST_SLOTS = 64
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host and port of a page."""


def parse_origin(text: str) -> Origin | None:
    """The origin of a web page, or None for anything else.

    >>> parse_origin("HTTPS://App.example"), parse_origin("null")
    (('https', 'app.example', 443), None)
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    has_more = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in _PORTS or host is None or has_more:
        return None
    return parts.scheme, host, _PORTS[parts.scheme] if port is None else port


def is_loopback(host: str) -> bool:
    """True if `host` (a name or an address without port or brackets) is this machine alone."""
    if host.lower() == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """True for a numeric IPv4 or IPv6 address, without port or brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens and what it takes; raises UsageError for values that make no sense.

    `port` 0 lets the system choose. `slots` answers of a model are computed at a time, `max_queue`
    more requests may wait for it. `default_sampling` fills the fields that a request leaves out;
    its seed is not used: a request without one gets a random seed. With `api_keys` every request
    but for /health must carry one; beyond loopback there must be some. Pages of `cors_origins` may
    ask and read. When the server ends, answers have `grace_s` seconds to come to an end by
    themselves. A model is let go after `keep_alive_s` seconds without a request, None: never.
    Weights of loaded models take at most `memory_bytes`, None: no limit. A request has `receive_s`
    seconds to arrive; at most `max_connections` are open. `log_prompts` logs what is asked.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    max_queue: int = 8
    max_body_bytes: int = 4 * 1024 * 1024
    default_sampling: SamplingParams = field(default_factory=SamplingParams)
    verbose: bool = False
    slots: int = 1
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    grace_s: float = 0.0
    keep_alive_s: float | None = None
    memory_bytes: int | None = None
    receive_s: float = 30.0
    max_connections: int = 512
    log_prompts: bool = False

    def __post_init__(self) -> None:
        self._check_host()
        if not 0 <= self.port <= 65535:
            raise UsageError(f"{self.port} is not a port", "use 1 to 65535, or 0 for any free one")
        if self.max_queue < 0:
            raise UsageError(f"a queue of {self.max_queue} places", "use 0 or more")
        if not 1 <= self.slots <= MOST_SLOTS:
            raise UsageError(f"{self.slots} slots", f"use 1 to {MOST_SLOTS}")
        if self.max_body_bytes < 1:
            raise UsageError(f"a body limit of {self.max_body_bytes} bytes", "use 1 or more")
        if self.grace_s < 0:
            raise UsageError(f"a grace of {self.grace_s:g} seconds", "use 0 or more")

        for text in self.cors_origins:
            if parse_origin(text) is None:
                raise UsageError(
                    f"{text!r} is no origin of a web page", "give https://HOST, or with :PORT"
                )

    def _check_host(self) -> None:
        if is_loopback(self.host):
            return
        if not is_address(self.host):
            raise UsageError(
                f"the server does not listen on {self.host!r}: it is no numeric address",
                "use 127.0.0.1, ::1, localhost, or an address of this machine",
            )
        if not self.api_keys:
            raise UsageError(
                f"the server does not listen on {self.host!r} without access control",
                "give --api-key-file, or use 127.0.0.1, ::1 or localhost",
            )

    @property
    def origins(self) -> frozenset[Origin | None]:
        """The pages that may ask and read."""
        return frozenset(parse_origin(text) for text in self.cors_origins)

    @property
    def address(self) -> str:
        """The numeric address to bind; `localhost` is 127.0.0.1, whatever a resolver says."""
        return "127.0.0.1" if self.host.lower() == LOCALHOST else self.host

    @property
    def is_everywhere(self) -> bool:
        """Whether the server listens on all addresses of this machine."""
        return is_address(self.address) and ipaddress.ip_address(self.address).is_unspecified

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a Host header may carry, in lower case, IPv6 in brackets, without port.

        Where `is_everywhere`, numeric addresses are allowed besides.
        """
        own = f"[{self.address}]" if ":" in self.address else self.address
        names = {LOCALHOST, "127.0.0.1", "[::1]", own.lower()}
        return frozenset(names | {socket.gethostname().lower()} if self.is_everywhere else names)
