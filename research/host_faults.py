"""Kills the host at random moments of a chat and of a server, and looks for what is lost.

    PYTHONPATH=tests/support python research/host_faults.py chat --kills 100
    PYTHONPATH=tests/support python research/host_faults.py server --kills 100

The model is a tiny generated one. A host is killed by SIGKILL, SIGABRT or SIGSEGV in turns, at a
random moment: idle, loading, reading a prompt, answering. Checked in a chat in a pseudo-terminal:
its modes before and after, and in the database each message sent, once and in order, followed by
the answer that an undisturbed host gives to the same conversation. Of the server: each request is
answered as an undisturbed host answers it, or with OpenAI's error; and the next ones are.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pty
import random
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from typing import TypeVar

from tiny_models import TinySpec, write_tiny_model

from edgespec.paths import Paths
from edgespec.runtime.host import Host
from edgespec.runtime.request import LoadRequest
from edgespec.types import CompletionRequest, Message

COMMAND = Path(sys.executable).with_name("edgespec")
SIGNALS = (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)
SPEC = TinySpec(repetitive=True)
Found = TypeVar("Found")
MAX_TOKENS = 200
PATIENCE_S = 180.0
QUIET_S = 30.0
"""After this without an answer in the database, and without a death on the screen, go on."""

KILLS_OF_A_CHAT = 10
ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=$]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9])")
SAID = """
    WITH RECURSIVE path(id, parent, role, content, model) AS (
        SELECT messages.id, parent, role, content, model
        FROM messages JOIN conversations ON messages.id = tip
        UNION ALL
        SELECT messages.id, messages.parent, messages.role, messages.content, messages.model
        FROM messages JOIN path ON messages.id = path.parent
    )
    SELECT role, content FROM path WHERE role = 'user' OR model IS NOT NULL ORDER BY id
"""
"""The conversation as it is read; answers that a death cut off do not count."""

ASKS_AGAIN = "Ctrl+Rasksagain"


def main() -> None:
    """Run the faults and print what was found; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("chat", "server"))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf", SPEC)
        run = kill_in_chats if chosen.what == "chat" else kill_in_server
        failures = run(Path(folder), model, chosen.kills, random.Random(chosen.seed))
    for failure in failures:
        print("FAILED:", failure)
    print(f"{chosen.what}: {chosen.kills} kills, {len(failures)} failures")
    sys.exit(bool(failures))


def host_of(parent: int) -> int | None:
    """The process id of the host of a command; None while there is none."""
    listed = subprocess.run(
        ["ps", "-ww", "-A", "-o", "pid=,ppid=,stat=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listed.stdout.splitlines():
        pid, ppid, stat, args = line.split(None, 3)
        if int(ppid) == parent and not stat.startswith("Z") and "host_child" in args:
            return int(pid)
    return None


def kill_host(parent: int, number: signal.Signals, patience_s: float = PATIENCE_S) -> bool:
    """Kill the host of a command as soon as there is one; False if there is none."""
    try:
        pid = until(lambda: host_of(parent), patience_s)
        assert pid is not None
        os.kill(pid, number)
    except (TimeoutError, ProcessLookupError):
        return False
    return True


def until(condition: Callable[[], Found], seconds: float = PATIENCE_S) -> Found:
    """Wait for a value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


class Undisturbed:
    """Answers as a host does that nobody kills."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.host = Host(Paths(folder / "undisturbed", folder / "undisturbed"))
        options = LoadRequest(drafter="none", num_threads=1, remember=False)
        self.host.load(options, model, lambda _line: None)

    def answer(self, messages: tuple[Message, ...], *, reuse_prefix: bool = True) -> str:
        """The answer to a conversation, greedy."""
        request = CompletionRequest(
            messages,
            max_tokens=MAX_TOKENS,
            overflow="drop-oldest",
            reuse_prefix=reuse_prefix,
        )
        return "".join(chunk.text for chunk in self.host.answer(request))

    def answers(self, messages: tuple[Message, ...]) -> set[str]:
        """The answer to a conversation that is known already, and to one that is read anew.

        A host that was started again reads the conversation in larger passes than it was said in,
        which may decide between two tokens that are almost equally likely.
        """
        return {self.answer(messages, reuse_prefix=reuse) for reuse in (True, False)}


# The chat


class Chat:
    """A chat in a pseudo-terminal, with a home of its own."""

    def __init__(self, model: Path, home: Path) -> None:
        self._leader, self._follower = pty.openpty()
        ioctl(self._follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.modes_before = termios.tcgetattr(self._leader)
        self._database = home / "edgespec.db"
        options = ["--model", str(model), "--threads", "1", "--temperature", "0"]
        self.process = subprocess.Popen(
            [COMMAND, "chat", *options, "--max-tokens", str(MAX_TOKENS)],
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            env={**os.environ, "EDGESPEC_HOME": str(home), "TERM": "xterm-256color"},
            start_new_session=True,
        )
        self._shown = self._fresh = ""

    @property
    def shown(self) -> str:
        """Everything drawn so far, without escape sequences and spaces: lines may be broken."""
        while select.select([self._leader], [], [], 0)[0]:
            self._fresh += os.read(self._leader, 65536).decode(errors="replace")
        whole = self._fresh.rfind("\x1b")  # the last sequence may be half there
        self._shown += "".join(ESCAPES.sub("", self._fresh[:whole]).split())
        self._fresh = self._fresh[whole:]
        return self._shown

    def wait_until_ready(self) -> None:
        """Return when the model is loaded."""
        until(lambda: "ready" in self.shown)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._leader, keys.encode())

    def messages(self) -> list[tuple[str, str]]:
        """What the database has of the conversation, whole answers only."""
        if not self._database.exists():
            return []
        with contextlib.closing(sqlite3.connect(self._database, timeout=5)) as connection:
            try:
                return connection.execute(SAID).fetchall()
            except sqlite3.OperationalError:  # not made yet
                return []

    def leave(self) -> list[object]:
        """Quit; the terminal's modes afterwards."""
        self.press("\x11")
        until(lambda: self.shown and self.process.poll() is not None)
        modes = termios.tcgetattr(self._leader)
        written = self.shown
        assert "Traceback" not in written
        os.close(self._follower)
        os.close(self._leader)
        return modes


def kill_in_chats(folder: Path, model: Path, num_kills: int, dice: random.Random) -> list[str]:
    """Several chats of `KILLS_OF_A_CHAT` kills each."""
    undisturbed, failures, seen = Undisturbed(folder, model), list[str](), Counter[str]()
    for first in range(0, num_kills, KILLS_OF_A_CHAT):
        chat = Chat(model, folder / f"home{first}")
        chat.wait_until_ready()
        sent: list[str] = []
        for number in range(first, min(first + KILLS_OF_A_CHAT, num_kills)):
            sent.append(f"message {number} {dice.random()}")
            seen[ask_and_kill(chat, sent, dice)] += 1
        if chat.leave() != chat.modes_before:
            failures.append(f"the terminal's modes differ after chat {first}")
        found = compare(chat.messages(), sent, undisturbed)
        failures += found
        print(*found, sep="\n", end="")
        print(
            f"{first + KILLS_OF_A_CHAT} kills, {dict(seen)}, {len(failures)} failures", flush=True
        )
    undisturbed.host.close()
    return failures


def ask_and_kill(chat: Chat, sent: list[str], dice: random.Random) -> str:
    """Send the last of `sent`, kill the host, ask again if need be; what came of it."""
    num_deaths = chat.shown.count(ASKS_AGAIN)
    delay_s, number = dice.choice((0.0, 0.05, 0.3, 1.0)) * dice.random(), dice.choice(SIGNALS)
    killer = threading.Timer(delay_s, kill_host, (chat.process.pid, number))
    chat.press(f"{sent[-1]}\r")
    killer.start()
    quiet_since = pressed_at = time.monotonic()
    num_tries = 0
    while len(chat.messages()) < 2 * len(sent):
        if time.monotonic() > quiet_since + QUIET_S:
            return "killed before it was written down"
        time.sleep(0.05)
        # Drawn anew, or once more.
        if chat.shown.count(ASKS_AGAIN) > num_deaths and time.monotonic() > pressed_at + 0.3:
            num_deaths = chat.shown.count(ASKS_AGAIN)
            chat.press("\x12")
            quiet_since = pressed_at = time.monotonic()
            num_tries += 1
            if num_tries == 1 and dice.random() < 0.3:  # once more, in loading or soon after
                time.sleep(dice.random())
                kill_host(chat.process.pid, dice.choice(SIGNALS), 1.0)
    killer.join()
    time.sleep(0.5)  # the chat has yet to draw the end
    return "asked again" if num_tries else "answered before"


def compare(
    messages: list[tuple[str, str]], sent: list[str], undisturbed: Undisturbed
) -> list[str]:
    """What is wrong with a recorded conversation."""
    failures = []
    if [text for role, text in messages if role == "user"] != sent:
        failures.append(f"sent {sent}, recorded {messages}")
    so_far: tuple[Message, ...] = ()
    for role, text in messages:
        if role == "assistant" and text not in undisturbed.answers(so_far):
            failures.append(f"{so_far[-1].content!r} was answered by {text!r}")
        so_far = (*so_far, Message("user" if role == "user" else "assistant", text))
    if len(messages) < 2 * len(sent) - 1:
        failures.append(f"{2 * len(sent)} messages were said, {len(messages)} recorded")
    return failures


# The server


class Clients:
    """Ask a server without pause, and count what comes of it."""

    def __init__(self, port: int, wanted: dict[str, str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self._port = port
        self._wanted = wanted
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(3)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End when the present requests have ended."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answer(self) -> None:
        """Return after one more right answer."""
        before = self.outcomes["right"]
        until(lambda: self.outcomes["right"] > before)

    def _ask(self, stream: bool) -> None:
        questions = list(self._wanted)
        while not self._stopped.is_set():
            question = random.choice(questions)
            try:
                outcome = self._outcome(question, stream)
            except (OSError, ValueError, http.client.HTTPException) as error:
                outcome = f"{type(error).__name__}: {error}"
            self.outcomes[outcome] += 1
            if outcome not in ("right", "engine_died"):
                self.failures.append(outcome)

    def _outcome(self, question: str, stream: bool) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": stream,
        }
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read().decode()
        connection.close()
        if stream and response.status == 200:
            events = [line[6:] for line in data.splitlines() if line.startswith("data: ")]
            found = [json.loads(event) for event in events if event != "[DONE]"]
            text = "".join(
                choice["delta"].get("content") or ""
                for event in found
                for choice in event.get("choices", ())
            )
            if "error" not in found[-1] and events[-1] != "[DONE]":
                return f"a stream without an end: {data[-200:]!r}"
        else:
            found = [json.loads(data)]
            text = "" if "error" in found[0] else found[0]["choices"][0]["message"]["content"]
        if "error" in found[-1]:
            return str(found[-1]["error"]["code"])
        return "right" if text == self._wanted[question] else f"wrong: {text!r}"


@contextlib.contextmanager
def server(model: Path, home: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port."""
    options = ["--model", str(model), "--threads", "1", "--port", "0"]
    process = subprocess.Popen(
        [COMMAND, "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGESPEC_HOME": str(home)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listens at" in line:
            break
    yield process, int(line.split("127.0.0.1:")[1].split("/")[0])
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)
    process.stderr.close()


def kill_in_server(folder: Path, model: Path, num_kills: int, dice: random.Random) -> list[str]:
    """One server, three clients, a kill at a random time after each right answer."""
    undisturbed = Undisturbed(folder, model)
    questions = [f"question {number}" for number in range(8)]
    wanted = {text: undisturbed.answer((Message("user", text),)) for text in questions}
    undisturbed.host.close()
    with server(model, folder / "home") as (process, port):
        clients = Clients(port, wanted)
        clients.start()
        num_done = 0
        while num_done < num_kills:
            clients.wait_for_answer()
            for delay in (0.5, 1.0)[: 1 + (dice.random() < 0.3)]:  # the second one may be loading
                time.sleep(delay * dice.random())
                kill_host(process.pid, dice.choice(SIGNALS))
                num_done += 1
            if num_done % 10 < 2:
                print(f"{num_done} kills, {dict(clients.outcomes)}", flush=True)
        clients.wait_for_answer()
        clients.stop()
    print(dict(clients.outcomes))
    return clients.failures


if __name__ == "__main__":
    main()
