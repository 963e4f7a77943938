"""A server of OpenAI's form that misbehaves as it is told, for those who ask other programs."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def event(content: Json) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(content)}\n\n".encode()


def piece(text: str, reason: str | None = None) -> bytes:
    """An event with text, or with the reason of the end."""
    delta = {"content": text} if text else {}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def last(num_prompt: int = 7, num_said: int = 4, **more: object) -> bytes:
    """The event with `usage`, and whatever more."""
    usage = {"prompt_tokens": num_prompt, "completion_tokens": num_said}
    return event({"choices": [], "usage": usage, **more})


WHOLE = (piece("Hel"), piece("lo."), piece("", "stop"), last(), DONE)
"""An answer of two pieces and four tokens."""


@dataclass
class FakePeer:
    """What it sends, and what it was asked.

    `sends` are the parts of an answer's body: the connection is closed after them, or with `hangs`
    only once the server ends. `status` is that of answers. Every so many-th answer is refused as
    by a server that is busy, where `fails_every` is not 0.
    """

    sends: tuple[bytes, ...] = WHOLE
    status: int = 200
    kind: str = "text/event-stream"
    hangs: bool = False
    fails_every: int = 0
    models: Any = None
    url: str = ""
    asked: list[Json] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def fake_peer(peer: FakePeer) -> Iterator[FakePeer]:
    """The server, at `peer.url` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = {"data": [{"id": "fake"}]} if peer.models is None else peer.models
            body = json.dumps(models).encode()
            self._begin(200, "application/json", len(body))
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            peer.asked.append(json.loads(body))
            peer.keys.append(self.headers["authorization"])
            with contextlib.suppress(OSError):  # the client may be gone
                is_busy = peer.fails_every and len(peer.asked) % peer.fails_every == 0
                self._begin(429 if is_busy else peer.status, peer.kind)
                for part in peer.sends:
                    self.wfile.write(part)
                self.wfile.flush()
                peer.began.set()
                if peer.hangs:
                    peer.ending.wait(30)

        def _begin(self, status: int, kind: str, size: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if size is not None:
                self.send_header("Content-Length", str(size))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        peer.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield peer
        finally:
            peer.ending.set()
            server.shutdown()
            thread.join(10)
