"""Chats killed while they write: finished turns and the question are there, the rest is cut."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from edgespec.cache.database import open_database
from edgespec.cache.upkeep.check import problems
from edgespec.chats import path_to
from edgespec.runtime.history import open_history

WRITER = """
import sys
from pathlib import Path
from edgespec.runtime.history import open_history

with open_history(Path(sys.argv[1]), print) as store:
    chat = parent = None
    for number in range(100_000):
        begun = store.begin(chat, parent, f"question {number}")
        chat, parent = begun.chat, begun.answer
        print("asked", chat, number, 0, flush=True)
        for length in range(1, 5):
            store.partial(begun.answer, "word " * length)
            print("partial", chat, number, length, flush=True)
        store.finish(begun.answer, f"answer {number} 答え", "done", "m", {"tokens": number})
        print("finished", chat, number, 0, flush=True)
"""
NUM_KILLS = 20


def killed(path: Path, after_s: float) -> list[list[str]]:
    """Start a writer and kill it; what it said it had done."""
    arguments = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        rest = process.stdout.read()
    whole, _, _cut = (first + rest).rpartition("\n")
    return [line.split() for line in whole.splitlines()]


def test_a_killed_chat_keeps_its_question_and_every_finished_turn(tmp_path: Path) -> None:
    path, stream = tmp_path / "edgespec.db", random.Random(5)
    for _ in range(NUM_KILLS):
        done = killed(path, stream.uniform(0, 0.15))
        _, name, last, _ = done[-1]
        num_asked = int(last) + 1
        with open_history(path, print) as store:
            chat = store.load(name)
            assert chat is not None
            said = path_to(chat.messages, chat.tip)
            assert len(said) in (2 * num_asked, 2 * num_asked + 2), "or killed before it said so"
            for number in range(num_asked):
                question, answer = said[2 * number : 2 * number + 2]
                assert question.content == f"question {number}"
                if ["finished", name, str(number), "0"] in done:
                    assert (answer.content, answer.state) == (f"answer {number} 答え", "done")
            parts = [int(length) for kind, *_, length in done if kind == "partial"]
            if done[-1][0] == "partial" and said[-1].state == "cut":
                assert said[2 * num_asked - 1].content.count("word") >= parts[-1]
            assert all(message.state in ("done", "cut") for message in chat.messages)
            assert store.search("question 0")[0].chat == name
    with open_database(path) as database:
        assert problems(database.connection) == []
