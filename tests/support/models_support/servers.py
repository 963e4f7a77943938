"""HTTP servers on the loopback interface that speak as the Hub and as a package index do.

Both log what they are asked, and can be told to break off or to pause in mid-answer.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

COMMIT = "c" * 40
_PIECE = 4096


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Script:
    """What goes wrong with the next bodies that are sent.

    `cuts`: the first body ends the connection after cuts[0] bytes, and so on. `pause_after`: the
    body after the next `pause_skips` ones stops after so many bytes, sets `paused` and waits for
    `go_on`.
    """

    cuts: list[int] = field(default_factory=list)
    pause_after: int | None = None
    pause_skips: int = 0
    paused: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class LoopbackServer:
    """A threaded server for the length of a `with` block."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.script = Script()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                owner.handle(self)

            def do_GET(self) -> None:
                owner.handle(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients go away in the middle of answers: that is what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.script.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        headers = request.headers
        path = unquote(request.path)
        asked = Asked(request.command, path, headers["Range"], headers["Authorization"])
        self.requests.append(asked)
        self.answer(request, path)

    def answer(self, request: BaseHTTPRequestHandler, path: str) -> None:
        raise NotImplementedError

    def send_body(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Send `body`, with whatever the script has go wrong."""
        cut = self.script.cuts.pop(0) if self.script.cuts else len(body)
        pause = self._take_pause()
        for at in range(0, len(body), _PIECE):
            if pause is not None and at >= pause:
                self.script.paused.set()
                self.script.go_on.wait(30)
                pause = None
            if at >= cut:
                request.close_connection = True
                return
            request.wfile.write(body[at : at + _PIECE])
            request.wfile.flush()

    def _take_pause(self) -> int | None:
        if self.script.pause_skips:
            self.script.pause_skips -= 1
            return None
        pause, self.script.pause_after = self.script.pause_after, None
        return pause


def send_head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


@dataclass
class HubEntry:
    """A file on the fake Hub; `error` is (status, X-Error-Code) when it is not given out."""

    content: bytes
    etag: str | None = None
    error: tuple[int, str] | None = None
    is_hub: bool = True
    accepts_ranges: bool = True
    lies_about: bytes | None = None
    announced_size: int | None = None
    hides_size: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class FakeHub(LoopbackServer):
    """`HEAD` and `GET` of /OWNER/REPO/resolve/REVISION/FILE, as the Hub answers for large files.

    Both redirect to another host, as the Hub does to its storage: `localhost` against `127.0.0.1`.
    `files` is keyed by OWNER/REPO/FILE.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, HubEntry] = {}

    @property
    def body_requests(self) -> list[Asked]:
        """The requests for bytes, not those that were redirected."""
        return [asked for asked in self.requests if asked.path.startswith("/storage/")]

    def answer(self, request: BaseHTTPRequestHandler, path: str) -> None:
        if path.startswith("/storage/"):
            self._send_file(request, self.files[path.removeprefix("/storage/")])
            return
        repo, resolve, rest = path.lstrip("/").partition("/resolve/")
        entry = self.files.get(f"{repo}/{rest.partition('/')[2]}")
        if not resolve or entry is None:
            self._refuse(request, 404, self._missing(repo))
        elif entry.error is not None:
            self._refuse(request, *entry.error)
        else:
            self._redirect(request, entry, f"{repo}/{rest.partition('/')[2]}")

    def _missing(self, repo: str) -> str:
        has_repo = any(key.startswith(f"{repo}/") for key in self.files)
        return "EntryNotFound" if has_repo else "RepoNotFound"

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        send_head(request, status, {"X-Error-Code": code, "Content-Length": "0"})

    def _redirect(self, request: BaseHTTPRequestHandler, entry: HubEntry, key: str) -> None:
        headers = {"Location": f"http://localhost:{self.port}/storage/{key}", "Content-Length": "0"}
        if entry.is_hub:
            headers |= {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{entry.etag or entry.sha256}"',
                "X-Linked-Size": str(entry.announced_size or len(entry.content)),
                "ETag": '"of-the-pointer"',
            }
            if entry.hides_size and request.command == "HEAD":
                del headers["X-Linked-Size"], headers["Content-Length"]
        send_head(request, 302, headers)

    def _send_file(self, request: BaseHTTPRequestHandler, entry: HubEntry) -> None:
        content = entry.lies_about if entry.lies_about is not None else entry.content
        wanted = request.headers["Range"]
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if start and start >= len(content):
            send_head(request, 416, {"Content-Length": "0"})
            return
        ranged = wanted is not None and entry.accepts_ranges
        body = content[start:] if ranged else content
        headers = {"Content-Length": str(len(body))}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        send_head(request, 206 if ranged else 200, headers)
        if request.command == "GET":
            self.send_body(request, body)


class FakeIndex(LoopbackServer):
    """A package index in the simple form over the wheels of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    @property
    def asked_names(self) -> list[str]:
        """The package names asked about, in order."""
        found = (asked.path.split("/") for asked in self.requests)
        return [path[2] for path in found if path[1] == "simple"]

    def answer(self, request: BaseHTTPRequestHandler, path: str) -> None:
        if path.startswith("/files/"):
            body = (self._folder / path.removeprefix("/files/")).read_bytes()
            send_head(request, 200, self._headers(body, "application/octet-stream"))
            self.send_body(request, body)
            return
        name = path.removeprefix("/simple/").strip("/").replace("-", "_")
        wheels = sorted(self._folder.glob(f"{name}-*.whl"))
        links = "".join(f'<a href="/files/{w.name}">{w.name}</a>' for w in wheels)
        body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        send_head(request, 200 if wheels else 404, self._headers(body, "text/html"))
        request.wfile.write(body)

    def _headers(self, body: bytes, kind: str) -> dict[str, str]:
        return {"Content-Type": kind, "Content-Length": str(len(body))}
