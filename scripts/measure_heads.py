"""What a trimmed head can say, and how often it is right: as kept, with what was read, followed.

    PYTHONPATH=scripts python scripts/measure_heads.py answers TARGET OUT.jsonl
    PYTHONPATH=scripts python scripts/measure_heads.py heads ANSWERS.jsonl WHOLE ROWS [SECONDS]

`answers` lets a target answer the prompts of five users in users.txt, greedily, side by side; run
again it goes on. For `heads`, each category is a user of its own: rows are followed by the first
half of its answers and judged by the second, which the whole drafter reads: of each of its tokens,
what each head would have guessed. Readings end after SECONDS (60).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from counting.batch import NUM_SEQUENCES, Answerer
from numpy.typing import NDArray

from edgespec.forms.counts import keep_tokens
from edgespec.forms.rows import RowChooser
from edgespec.forms.trimming import always_kept, count_shipped
from edgespec.forms.weighing import OpenDrafter
from edgespec.forms.words import shipped_words
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.types import Message
from edgespec.vocab.tokenizer import ByteTokenizer

HEADS = ("kept", "kept+read", "followed", "followed+read", "whole")
USERS = Path(__file__).with_name("users.txt")
_NUM_TOKENS = 250
_MOST_BEFORE, _MOST_ANSWER, _ROWS_A_PASS = 500, 400, 64


@dataclass(frozen=True, slots=True)
class Answer:
    """A prompt and what a target answered to it."""

    prompt: str
    answer: str


@dataclass(slots=True)
class Tally:
    """Tokens, and for each of HEADS how many it could say and how many it guessed."""

    num_tokens: int = 0
    sayable: list[int] = field(default_factory=lambda: [0] * len(HEADS))
    right: list[int] = field(default_factory=lambda: [0] * len(HEADS))

    def add(self, other: Tally) -> None:
        """Count those of `other`, too."""
        self.num_tokens += other.num_tokens
        self.sayable = [sum(pair) for pair in zip(self.sayable, other.sayable, strict=True)]
        self.right = [sum(pair) for pair in zip(self.right, other.right, strict=True)]


class Judge:
    """Tells what heads that lie within the whole one would guess."""

    def __init__(self, kept: NDArray[np.int32], followed: NDArray[np.int32], size: int) -> None:
        self._rows = [kept, followed, np.arange(size, dtype=np.int32)]
        self._is_kept = [np.isin(np.arange(size), rows) for rows in self._rows]
        self._read: set[int] = set()

    def begin(self, prompt: Sequence[int]) -> None:
        """A new conversation, of which `prompt` was read."""
        self._read = set(prompt)

    def judge(self, tally: Tally, logits: NDArray[np.float32], said: int) -> None:
        """Count one place, where the target said `said`; then it is read."""
        read = np.fromiter(self._read, dtype=np.int64)
        guesses, sayable = [], []
        for rows, is_kept in zip(self._rows, self._is_kept, strict=True):
            best = int(rows[logits[rows].argmax()])
            spared = int(read[logits[read].argmax()])
            guesses += [best, spared if logits[spared] > logits[best] else best]
            sayable += [bool(is_kept[said]), bool(is_kept[said]) or said in self._read]
        tally.num_tokens += 1
        for head in range(len(HEADS)):
            tally.right[head] += guesses[head] == said
            tally.sayable[head] += sayable[head]
        self._read.add(said)


def read_answers(path: Path) -> dict[str, list[Answer]]:
    """The answers of each category."""
    found: dict[str, list[Answer]] = defaultdict(list)
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        found[line["category"]].append(Answer(line["prompt"], line["answer"]))
    return dict(found)


class Reader:
    """A whole drafter that reads answers."""

    def __init__(self, drafter: OpenDrafter) -> None:
        self._drafter = drafter
        self._bridge = ModelBridge(drafter.model)
        self.tokenizer = ByteTokenizer(drafter.model.vocab)

    def tally(self, answer: Answer, judge: Judge) -> Tally:
        """Read one answer."""
        tally = Tally()
        before = self._bridge.encode_chat([Message("user", answer.prompt)])[-_MOST_BEFORE:]
        tokens = self.tokenizer.encode(answer.answer.encode()).tokens[:_MOST_ANSWER]
        judge.begin(before)
        if tokens:
            for said, logits in zip(tokens, self._logits(before, tokens), strict=True):
                judge.judge(tally, logits, said)
        return tally

    def _logits(
        self, before: Sequence[int], tokens: Sequence[int]
    ) -> Iterator[NDArray[np.float32]]:
        self._drafter.forget()
        self._drafter.read(before, 0)
        yield self._drafter.logits(0)
        for start in range(0, len(tokens) - 1, _ROWS_A_PASS):
            part = tokens[start : min(start + _ROWS_A_PASS, len(tokens) - 1)]
            self._drafter.read(part, len(before) + start, num_outputs=len(part))
            for row in range(len(part)):
                yield self._drafter.logits(row)


def measure(
    drafter: OpenDrafter, answers: Mapping[str, Sequence[Answer]], num_rows: int, seconds: float
) -> dict[str, Tally]:
    """A tally for each category, which take turns, and for all together."""
    deadline = time.monotonic() + seconds
    reader = Reader(drafter)
    tokenizer, chooser = reader.tokenizer, RowChooser(reader.tokenizer, shipped_words())
    kept = keep_tokens(count_shipped(tokenizer), num_rows, always_kept(tokenizer))
    judges, left = {}, {}
    for category, texts in answers.items():
        half = len(texts) // 2
        own = [text.answer for text in reversed(texts[:half])]
        followed = chooser.choose(own, kept, lambda: None).kept
        judges[category] = Judge(kept, followed, tokenizer.vocab.num_tokens)
        left[category] = texts[half:]
    tallies = {category: Tally() for category in (*answers, "all")}
    for turn in itertools.zip_longest(*left.values()):
        for category, text in zip(left, turn, strict=True):
            if text is not None and time.monotonic() < deadline:
                found = reader.tally(text, judges[category])
                tallies[category].add(found)
                tallies["all"].add(found)
    return tallies


def prompts() -> list[tuple[str, str]]:
    """Category and text of each prompt, the categories in turns."""
    columns = []
    for section in USERS.read_text(encoding="utf-8").split("## ")[1:]:
        category, *lines = section.splitlines()
        columns.append([(category, line) for line in lines])
    return [pair for turn in zip(*columns, strict=True) for pair in turn]


def _parts(pairs: Sequence[tuple[str, str]], size: int) -> Iterator[Sequence[tuple[str, str]]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def record(target: Path, out: Path) -> None:
    """Answer what has no answer yet."""
    known = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    answered = {json.loads(line)["prompt"] for line in known}
    left = [pair for pair in prompts() if pair[1] not in answered]
    with (
        Model(target) as model,
        contextlib.closing(Answerer(model, this_machine().num_threads, 0.0, 0)) as answerer,
    ):
        for some in _parts(left, NUM_SEQUENCES):
            answers = answerer.answer([text for _, text in some], _NUM_TOKENS)
            with out.open("a", encoding="utf-8") as file:
                for (category, text), answer in zip(some, answers, strict=True):
                    line = {"category": category, "prompt": text, "answer": answer}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def print_heads(path: Path, whole: Path, num_rows: int, seconds: float) -> None:
    """Print a line for each category."""
    table, threads = EmbeddingTable(whole), this_machine().num_threads
    with OpenDrafter(whole, table, ModelOptions(), threads) as drafter:
        tallies = measure(drafter, read_answers(path), num_rows, seconds)
    print("category tokens, then % sayable / right:", ", ".join(HEADS))
    for category, tally in tallies.items():
        percent = 100 / max(tally.num_tokens, 1)
        shares = (
            f"{percent * sayable:.1f}/{percent * right:.1f}"
            for sayable, right in zip(tally.sayable, tally.right, strict=True)
        )
        print(category, tally.num_tokens, *shares)


def main(arguments: Sequence[str]) -> None:
    """Do the one or the other."""
    what, first, second, *rest = arguments
    if what == "answers":
        record(Path(first), Path(second))
    else:
        seconds = float(rest[1]) if len(rest) > 1 else 60.0
        print_heads(Path(first), Path(second), int(rest[0]), seconds)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1:])
