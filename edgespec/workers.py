"""llama.cpp's RPC workers as their client finds them; this does not load the native library.

The library's own client waits without end for what does not answer, and ends its process where a
worker is gone. So every worker is greeted before, in llama.cpp's words (ggml-rpc.cpp), and left:

    we        14 (HELLO), 24 as 8 bytes, 24 bytes of abilities: none
    a worker  28 as 8 bytes, its version (major, minor, patch, 0), 24 bytes of abilities
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable

from edgespec.errors import NetworkError, UsageError

PROTOCOL = (7, 0)
"""Major and minor version that the library speaks (RPC_PROTO_MAJOR_VERSION)."""

MOST_WORKERS = 16
"""Devices that llama.cpp spreads a model over (llama_max_devices)."""

_HELLO = struct.pack("<BQ24x", 14, 24)
_REPLY = struct.Struct("<Q4B24x")
_REPLY_BYTES = 28
_PATIENCE_S = 5.0
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<port>[0-9]{1,5})")
_REMEDY = "start it there with `edgespec worker`, or check the address"


def parse_workers(text: str) -> tuple[str, ...]:
    """The addresses in HOST:PORT,...; raises UsageError.

    >>> parse_workers("10.0.0.2:50052, gpu.local:50052")
    ('10.0.0.2:50052', 'gpu.local:50052')
    """
    addresses = tuple(word.strip() for word in text.split(","))
    for address in addresses:
        _parted(address)
    if len(set(addresses)) < len(addresses):
        raise UsageError(f"{text!r} names a worker twice", "name each once")
    if len(addresses) > MOST_WORKERS:
        raise UsageError(f"{len(addresses)} workers are too many", f"give {MOST_WORKERS} at most")
    return addresses


def is_open_to_others(address: str) -> bool:
    """Whether a listener at a numeric address can be reached from other machines."""
    return not ipaddress.IPv4Address(address).is_loopback


def check_worker(address: str, patience_s: float = _PATIENCE_S) -> None:
    """Greet the worker at HOST:PORT and leave; raises NetworkError if none would serve us."""
    try:
        with _connected(address, patience_s) as connection:
            connection.sendall(_HELLO)
            reply = _received(connection, _REPLY.size)
    except TimeoutError as error:
        raise NetworkError(
            f"the worker {address} does not answer",
            "it serves one client at a time: end the other one, or check the address",
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise NetworkError(f"the worker {address} cannot be reached: {reason}", _REMEDY) from error
    num_bytes, *version = _REPLY.unpack(reply) if len(reply) == _REPLY.size else (0,)
    if num_bytes != _REPLY_BYTES:
        raise NetworkError(f"what listens at {address} is no worker of this version", _REMEDY)
    major, minor = version[:2]
    if major != PROTOCOL[0] or minor > PROTOCOL[1]:
        ours = ".".join(map(str, PROTOCOL))
        raise NetworkError(
            f"the worker {address} speaks version {major}.{minor} of the protocol, not {ours}",
            "run the same version of EdgeSpec on both machines",
        )


def unreachable(addresses: Iterable[str], patience_s: float = 1.0) -> list[str]:
    """Those of the workers where nobody listens any more; one that is busy does."""
    gone = []
    for address in addresses:
        try:
            _connected(address, patience_s).close()
        except OSError:
            gone.append(address)
    return gone


def _parted(address: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise UsageError(
            f"{address!r} is no address of a worker", "give HOST:PORT, as 192.168.0.2:50052"
        )
    return found["host"], int(found["port"])


def _connected(address: str, patience_s: float) -> socket.socket:
    """Over IPv4, as llama.cpp does; raises OSError."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.ExitStack() as failed:
        failed.callback(connection.close)
        connection.settimeout(patience_s)
        connection.connect(_parted(address))
        failed.pop_all()
    return connection


def _received(connection: socket.socket, num_bytes: int) -> bytes:
    """So many bytes, or fewer if the other side ends."""
    data = b""
    while len(data) < num_bytes and (more := connection.recv(num_bytes - len(data))):
        data += more
    return data
