"""One file from the Hugging Face Hub, resumed where an earlier run stopped.

The client library finds the file, its commit, its checksum and the headers to send; the bytes are
read here, through the library's own HTTP session, because the library throws away an unfinished
download (it names it anew in each process). Theory of operation:

1. One HEAD request says whether the Hub answers at all. It runs in a thread, because name
   resolution obeys no timeout and would keep the user waiting, and Ctrl-C too.
2. The GET names the commit that the HEAD saw, and the unfinished file's name holds the file's ETag:
   bytes of two versions never meet in one file.
3. The connection may break at any byte: what came is kept, the next request asks for the rest. Only
   attempts that bring nothing count as failures.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

import httpx2
from huggingface_hub import get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazy export

from edgespec.catalog import PullProgress
from edgespec.errors import ChecksumError, EdgeSpecError, NetworkError, UnknownModelError
from edgespec.models.disk import require_space
from edgespec.models.part import Expected, Fetched, PartFile
from edgespec.models.registry import HubFile

_LIBRARY = "edgespec"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FAILURES = 5
_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_TRY_LATER = "check the network and pull again: what came is kept"


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file as the Hub describes it: where its bytes are, and what they must be."""

    url: str
    etag: str
    expected: Expected


class Hub:
    """The Hub behind `endpoint` (None: the library's own, which `HF_ENDPOINT` sets).

    Times are in seconds: `answer_timeout` bounds the first answer, name resolution included;
    `read_timeout` the silence in mid-download; `retry_wait` the pause before another attempt.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        answer_timeout: float = 6.0,
        read_timeout: float = 20.0,
        retry_wait: float = 1.0,
    ) -> None:
        self._endpoint = endpoint
        self._answer_timeout = answer_timeout
        self._timeout = httpx2.Timeout(read_timeout, connect=answer_timeout)
        self._retry_wait = retry_wait

    def fetch(
        self, file: HubFile, expected: Expected, folder: Path, stem: str, progress: PullProgress
    ) -> Fetched:
        """Fetch `file` into `folder` (which exists), under a name that begins with `stem`.

        Raises NetworkError when the Hub does not answer, stops answering or has other bytes under
        that name than `expected`; UnknownModelError when it has no such file or will not give it;
        ChecksumError when what it sent is wrong; StorageError when the disk is full.
        """
        remote = self._ask(file)
        _require_same(file, expected, remote.expected)
        whole = Expected(
            expected.sha256 or remote.expected.sha256,
            expected.size_bytes or remote.expected.size_bytes,
        )
        path = folder / f"{stem}.hub-{hashlib.sha256(remote.etag.encode()).hexdigest()[:12]}.part"
        for stale in folder.glob(f"{stem}.hub-*.part"):
            if stale != path:
                stale.unlink(missing_ok=True)
        size = whole.size_bytes
        progress.begin("the Hub", size)
        with PartFile(path, whole, progress.at) as part:
            if part.size:
                progress.say(f"going on from {part.size:,} bytes")
            if size is not None:
                require_space(folder, size - part.size)
            self._read_all(remote.url, part, size)
            return part.finish("the Hub")

    def _ask(self, file: HubFile) -> _Remote:
        """Ask the Hub for `file`'s metadata, within the time for an answer."""
        answers: queue.Queue[_Remote | Exception] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(self._head(file))
            except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
                answers.put(error)

        threading.Thread(target=ask, name="edgespec-hub", daemon=True).start()
        try:
            answer = answers.get(timeout=self._answer_timeout)
        except queue.Empty:
            raise NetworkError(
                f"the Hub did not answer in {self._answer_timeout:g} s", _TRY_LATER
            ) from None
        if isinstance(answer, _Remote):
            return answer
        _raise_plainly(file, answer)

    def _head(self, file: HubFile) -> _Remote:
        url = hf_hub_url(file.repo, file.file, endpoint=self._endpoint)
        found = get_hf_file_metadata(
            url, timeout=self._answer_timeout, library_name=_LIBRARY, endpoint=self._endpoint
        )
        if found.commit_hash is None or found.etag is None:
            raise NetworkError("what answered is not the Hub", "check HF_ENDPOINT and the proxy")
        sha256 = found.etag if _SHA256.fullmatch(found.etag) else None
        url = hf_hub_url(file.repo, file.file, revision=found.commit_hash, endpoint=self._endpoint)
        return _Remote(url, found.etag, Expected(sha256, found.size))

    def _read_all(self, url: str, part: PartFile, size: int | None) -> None:
        """Read until the file is whole, through broken connections."""
        failures = 0
        while size is None or part.size < size:
            before = part.size
            try:
                ended = self._read_on(url, part, size)
                if size is None and ended:
                    return
                problem: Exception = NetworkError("the Hub sent less than the file")
            except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
                problem = error
            failures = 1 if part.size > before else failures + 1
            if failures > _MAX_FAILURES:
                raise NetworkError(
                    f"the Hub stopped sending after {part.size:,} bytes", _TRY_LATER
                ) from problem
            if size is None or part.size < size:
                time.sleep(self._retry_wait)

    def _read_on(self, url: str, part: PartFile, size: int | None) -> bool:
        """One request for everything after what `part` holds; returns when the answer ends.

        False if there is nothing after it: then `part` is begun anew.
        """
        headers = build_hf_headers(library_name=_LIBRARY)
        headers["Accept-Encoding"] = "identity"  # the bytes are counted and hashed as they come
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        with get_session().stream("GET", url, headers=headers, timeout=self._timeout) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.cut(0)
                return False
            if response.is_client_error and response.status_code not in _TRANSIENT:
                raise NetworkError(f"the Hub answered with status {response.status_code}")
            response.raise_for_status()
            if part.size and response.status_code != HTTPStatus.PARTIAL_CONTENT:
                part.cut(0)  # the server ignored the range and sends the whole file
            for data in response.iter_raw():
                part.write(data)
                if size is not None and part.size > size:
                    part.cut(0)
                    raise ChecksumError(
                        "the Hub sent more than the file", "nothing was kept; pull again"
                    )
        return True


def _require_same(file: HubFile, expected: Expected, offered: Expected) -> None:
    """Refuse a file that cannot be the expected one before a byte of it is fetched."""
    for ours, theirs in (
        (expected.sha256, offered.sha256),
        (expected.size_bytes, offered.size_bytes),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise NetworkError(
                f"the Hub has another file than the known one under {file}", "update EdgeSpec"
            )


def _raise_plainly(file: HubFile, error: Exception) -> NoReturn:
    """Raise the EdgeSpecError that says what `error` of the client library means."""
    if isinstance(error, EdgeSpecError):
        raise error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError) or status == HTTPStatus.FORBIDDEN:
        raise UnknownModelError(
            f"the Hub does not give {file} to you",
            "accept its terms on the Hub's page and set HF_TOKEN to your token",
        ) from error
    if isinstance(error, RepositoryNotFoundError) or status == HTTPStatus.UNAUTHORIZED:
        raise UnknownModelError(
            f"the Hub has no repository {file.repo}, or it is private",
            "check the name, or set HF_TOKEN to a token that may read it",
        ) from error
    if isinstance(error, (EntryNotFoundError, RevisionNotFoundError, HFValidationError)) or (
        status == HTTPStatus.NOT_FOUND
    ):
        raise UnknownModelError(f"the Hub has no file {file}", "check the name") from error
    if status is not None:
        raise NetworkError(f"the Hub answered with status {status}", _TRY_LATER) from error
    if isinstance(error, OfflineModeIsEnabled):
        raise NetworkError("the Hub is switched off by HF_HUB_OFFLINE", "unset it") from error
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL)):
        raise NetworkError(f"the Hub cannot be reached ({error})", _TRY_LATER) from error
    raise error
