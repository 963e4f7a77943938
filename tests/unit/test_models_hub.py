"""One file from a Hub that answers, refuses, breaks off, lies or is not there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session
from models_support.files import tiny_gguf
from models_support.programs import NO_HUB
from models_support.progress import RecordingProgress
from models_support.servers import COMMIT, FakeHub, HubEntry

from edgespec.errors import ChecksumError, NetworkError, StorageError, UnknownModelError
from edgespec.models.hub import Hub
from edgespec.models.part import Expected, Fetched
from edgespec.models.registry import HubFile

CONTENT = tiny_gguf()
FILE = HubFile("acme/tiny-GGUF", "sub/tiny.gguf")
KEY = "acme/tiny-GGUF/sub/tiny.gguf"
NOTHING_KNOWN = Expected(None, None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", "hf_test-token")
    with FakeHub() as hub:
        hub.files[KEY] = HubEntry(CONTENT)
        yield hub
        close_session()


def fetch(
    endpoint: str,
    folder: Path,
    expected: Expected = NOTHING_KNOWN,
    progress: RecordingProgress | None = None,
    file: HubFile = FILE,
) -> Fetched:
    hub = Hub(endpoint, answer_timeout=2.0, read_timeout=2.0, retry_wait=0.01)
    return hub.fetch(file, expected, folder, "tiny", progress or RecordingProgress())


def test_a_file_comes_whole(server: FakeHub, tmp_path: Path) -> None:
    progress = RecordingProgress()
    fetched = fetch(server.url, tmp_path, progress=progress)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.sha256 == HubEntry(CONTENT).sha256
    assert progress.begun == [("the Hub", len(CONTENT))]
    assert progress.positions[0] == 0
    assert progress.positions[-1] == len(CONTENT)
    assert progress.positions == sorted(progress.positions)


def test_the_bytes_are_those_of_the_commit_that_was_asked_about(
    server: FakeHub, tmp_path: Path
) -> None:
    fetch(server.url, tmp_path)
    resolved = [asked.path for asked in server.requests if "/resolve/" in asked.path]
    assert resolved == [
        f"/{FILE.repo}/resolve/main/{FILE.file}",
        f"/{FILE.repo}/resolve/{COMMIT}/{FILE.file}",
    ]


def test_the_token_goes_to_the_hub_and_not_to_its_storage(server: FakeHub, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    to_hub = [asked for asked in server.requests if "/resolve/" in asked.path]
    assert [asked.authorization for asked in to_hub] == ["Bearer hf_test-token"] * 2
    assert [asked.authorization for asked in server.body_requests] == [None]


def test_a_cut_connection_is_resumed_where_it_broke(server: FakeHub, tmp_path: Path) -> None:
    server.script.cuts = [20_000, 12_288]
    fetched = fetch(server.url, tmp_path)
    assert fetched.path.read_bytes() == CONTENT
    ranges = [asked.range for asked in server.body_requests]
    assert ranges[0] is None
    assert len(ranges) == 3
    starts = [int(str(wanted).removeprefix("bytes=").removesuffix("-")) for wanted in ranges[1:]]
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_later_run_goes_on_where_the_last_one_stopped(server: FakeHub, tmp_path: Path) -> None:
    """The first run is broken off for good: every connection ends at once after the first bytes."""
    server.script.cuts = [20_000] + [0] * 20
    with pytest.raises(NetworkError, match=r"the Hub stopped sending after .* bytes") as caught:
        fetch(server.url, tmp_path)
    assert "what came is kept" in str(caught.value)
    (part,) = tmp_path.glob("tiny.hub-*.part")
    kept = part.stat().st_size
    assert part.read_bytes() == CONTENT[:kept]
    assert kept > 0
    server.script.cuts.clear()
    server.requests.clear()
    progress = RecordingProgress()
    fetched = fetch(server.url, tmp_path, progress=progress)
    assert [asked.range for asked in server.body_requests] == [f"bytes={kept}-"]
    assert fetched.path.read_bytes() == CONTENT
    assert progress.positions[0] == kept
    assert progress.said == [f"going on from {kept:,} bytes"]


def test_only_attempts_without_any_byte_count_as_failures(server: FakeHub, tmp_path: Path) -> None:
    server.script.cuts = [8192] * 8 + [0, 0, 0]
    assert fetch(server.url, tmp_path).path.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(server: FakeHub, tmp_path: Path) -> None:
    server.files[KEY].accepts_ranges = False
    server.script.cuts = [30_000]
    progress = RecordingProgress()
    fetched = fetch(server.url, tmp_path, progress=progress)
    assert fetched.path.read_bytes() == CONTENT
    assert progress.positions != sorted(progress.positions)


def test_a_new_version_never_continues_an_old_one(server: FakeHub, tmp_path: Path) -> None:
    server.script.cuts = [20_000] + [0] * 20
    with pytest.raises(NetworkError):
        fetch(server.url, tmp_path)
    server.script.cuts.clear()
    server.requests.clear()
    newer = tiny_gguf(seed=1)
    server.files[KEY] = HubEntry(newer)
    assert fetch(server.url, tmp_path).path.read_bytes() == newer
    assert [asked.range for asked in server.body_requests] == [None]
    assert len(list(tmp_path.glob("tiny.hub-*.part"))) == 1


def test_a_file_that_is_whole_already_is_not_asked_for(server: FakeHub, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    server.requests.clear()
    assert fetch(server.url, tmp_path).path.read_bytes() == CONTENT
    assert server.body_requests == []


def test_a_whole_part_of_a_file_whose_size_is_not_told_is_read_anew(
    server: FakeHub, tmp_path: Path
) -> None:
    """Nobody can tell that it is whole: what is asked for after it is not there."""
    server.files[KEY].hides_size = True
    for _ in range(2):
        fetched = fetch(server.url, tmp_path)
        assert fetched.path.read_bytes() == CONTENT
    ranges = [asked.range for asked in server.body_requests]
    assert ranges == [None, f"bytes={len(CONTENT)}-", None]


def test_a_file_without_a_checksum_on_the_hub_still_comes(server: FakeHub, tmp_path: Path) -> None:
    server.files[KEY].etag = "5f3e0f1d" * 5
    assert fetch(server.url, tmp_path).sha256 == HubEntry(CONTENT).sha256


@pytest.mark.parametrize("etag", [None, "5f3e0f1d" * 5])
def test_wrong_bytes_are_not_kept(server: FakeHub, tmp_path: Path, etag: str | None) -> None:
    """With the Hub's own checksum, and with that of the registry alone."""
    wrong = bytearray(CONTENT)
    wrong[1000] ^= 1
    server.files[KEY] = HubEntry(CONTENT, etag=etag, lies_about=bytes(wrong))
    known = Expected(HubEntry(CONTENT).sha256, len(CONTENT))
    with pytest.raises(ChecksumError, match="the Hub sent a wrong file: SHA-256"):
        fetch(server.url, tmp_path, known)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_announced_are_refused(server: FakeHub, tmp_path: Path) -> None:
    server.files[KEY].lies_about = CONTENT + b"more"
    with pytest.raises(ChecksumError, match="more than the file"):
        fetch(server.url, tmp_path)


@pytest.mark.parametrize(
    "known",
    [Expected("0" * 64, len(CONTENT)), Expected(HubEntry(CONTENT).sha256, len(CONTENT) + 1)],
)
def test_another_file_under_a_known_name_is_not_even_begun(
    server: FakeHub, tmp_path: Path, known: Expected
) -> None:
    with pytest.raises(NetworkError, match="another file than the known one"):
        fetch(server.url, tmp_path, known)
    assert server.body_requests == []


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "GatedRepo", "does not give hf:acme/tiny-GGUF:sub/tiny.gguf to you; accept its"),
        (403, "GatedRepo", "does not give .* to you; accept its terms .* set HF_TOKEN"),
        (403, "", "does not give"),
        (401, "RepoNotFound", "has no repository acme/tiny-GGUF, or it is private"),
        (401, "", "has no repository"),
        (404, "RepoNotFound", "has no repository"),
        (404, "EntryNotFound", "has no file hf:acme/tiny-GGUF:sub/tiny.gguf"),
        (404, "RevisionNotFound", "has no file"),
        (404, "", "has no file"),
    ],
)
def test_a_refusal_is_an_unknown_model(
    server: FakeHub, tmp_path: Path, status: int, code: str, message: str
) -> None:
    server.files[KEY].error = (status, code)
    with pytest.raises(UnknownModelError, match=message) as caught:
        fetch(server.url, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_a_network_error(server: FakeHub, tmp_path: Path, status: int) -> None:
    server.files[KEY].error = (status, "")
    with pytest.raises(NetworkError, match=f"status {status}"):
        fetch(server.url, tmp_path)


def test_something_that_is_not_the_hub(server: FakeHub, tmp_path: Path) -> None:
    """A proxy's login page, say: it answers, but not as the Hub does."""
    server.files[KEY].is_hub = False
    with pytest.raises(NetworkError, match="what answered is not the Hub"):
        fetch(server.url, tmp_path)


@pytest.mark.parametrize(
    "endpoint", [NO_HUB, "http://no-such-host.invalid", "ftp://127.0.0.1", "http://[", "nonsense"]
)
def test_no_hub_at_all_is_told_at_once(endpoint: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        fetch(endpoint, tmp_path)
    assert time.monotonic() - begun < 5
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 7


def test_a_hub_that_takes_the_connection_and_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        hub = Hub(endpoint, answer_timeout=0.4)
        begun = time.monotonic()
        with pytest.raises(NetworkError, match=r"the Hub (did not answer|cannot be reached)"):
            hub.fetch(FILE, NOTHING_KNOWN, tmp_path, "tiny", RecordingProgress())
        assert time.monotonic() - begun < 3
        for thread in threading.enumerate():
            if thread.name == "edgespec-hub":
                thread.join(5)
    close_session()


def test_a_name_server_that_says_nothing_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution obeys no timeout of its own; here it hangs until the test is over."""
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    hub = Hub("http://hub.invalid", answer_timeout=0.2)
    begun = time.monotonic()
    with pytest.raises(NetworkError, match=r"the Hub did not answer in 0\.2 s"):
        hub.fetch(FILE, NOTHING_KNOWN, tmp_path, "tiny", RecordingProgress())
    assert time.monotonic() - begun < 3
    over.set()
    for thread in threading.enumerate():
        if thread.name == "edgespec-hub":
            thread.join(5)
    close_session()


def test_silence_in_mid_file_is_a_broken_connection(server: FakeHub, tmp_path: Path) -> None:
    server.script.pause_after = 16_384
    hub = Hub(server.url, answer_timeout=2.0, read_timeout=0.3, retry_wait=0.01)
    fetched = hub.fetch(FILE, NOTHING_KNOWN, tmp_path, "tiny", RecordingProgress())
    assert fetched.path.read_bytes() == CONTENT
    assert [asked.range for asked in server.body_requests] == [None, "bytes=16384-"]


def test_too_little_space_is_told_before_the_first_byte(server: FakeHub, tmp_path: Path) -> None:
    server.files[KEY].announced_size = 1 << 60
    with pytest.raises(StorageError, match=f"{1 << 60:,} bytes are needed"):
        fetch(server.url, tmp_path)
    assert server.body_requests == []
