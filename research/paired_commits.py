"""Two commits side by side: the same questions in turns, plain and drafted, one process for each.

    python research/paired_commits.py BEFORE AFTER SUITE.jsonl [-n 20] [--tokens 128]

BEFORE and AFTER are folders with an environment each (`make setup`). Each process has a home of its
own (a folder beside its environment, `.home`), with the user's models linked in, whose facts are
settled first: the second of two starts is measured. Per question the four ways (both commits, with
and without drafts) are asked in random order from an empty cache. Printed are medians of the ratios
AFTER / BEFORE, question by question, with bootstrap intervals, and answers that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

WORKER = """
import json, sys, time
from pathlib import Path
from edgespec.paths import user_paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import CompletionRequest, Message, SamplingParams
say = lambda line: print(line, file=sys.stderr, flush=True)
model, drafter, settle = sys.argv[1], sys.argv[2], sys.argv[3] == "settle"
request = LoadRequest(model=model, drafter=drafter, learn=False)
running = load(request, Path(model), user_paths(), say)
completer = running.completer
running.idle.wait(600.0 if settle else 0.0)
if settle:
    running.close()
    sys.exit()
print(json.dumps(completer.model.settings), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    request = CompletionRequest(
        (Message("user", asked["text"]),), SamplingParams(), asked["tokens"],
        speculate=asked["speculate"],
    )
    completer.forget()
    started, first = time.perf_counter(), None
    for chunk in completer.answer(request):
        now = time.perf_counter()
        if chunk.stats.emitted and first is None:
            first = now
    print(json.dumps({
        "ids": chunk.completion.token_ids, "first_ms": (first - started) * 1e3,
        "decode_ms": (now - first) * 1e3, "whole_ms": (now - started) * 1e3,
        "accepted": chunk.stats.accepted, "passes": chunk.stats.target_passes,
    }), flush=True)
"""


Way = tuple[str, bool]
"""A commit, and whether it drafts."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The tokens of one answer, and its figures by name: times in ms, counts."""

    ids: tuple[int, ...]
    figures: dict[str, float]


@dataclass
class Side:
    """One commit's process."""

    folder: Path
    model: Path
    drafter: str
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        for mode in ("settle", "serve"):
            self.process = self._start(mode)
            if mode == "settle":
                self.process.communicate()
        assert self.process.stdout is not None
        print(self.folder, self.process.stdout.readline().strip(), file=sys.stderr)

    def ask(self, text: str, tokens: int, speculate: bool) -> Asked:
        """One answer, with its times."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"text": text, "tokens": tokens, "speculate": speculate})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Asked(tuple(answer.pop("ids")), answer)

    def _start(self, mode: str) -> subprocess.Popen[str]:
        home = self.folder / ".home"
        (home / "models").mkdir(parents=True, exist_ok=True)
        for path in self.model.parent.glob("*"):
            link = home / "models" / path.name
            if not link.exists():
                os.link(path, link)
        return subprocess.Popen(
            [
                self.folder / ".venv/bin/python",
                "-P",
                "-c",
                WORKER,
                str(home / "models" / self.model.name),
                self.drafter,
                mode,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "EDGESPEC_HOME": str(home)},
        )


def ratio(found: Sequence[dict[Way, Asked]], way: Way, other: Way, what: str) -> str:
    """How much faster `other` is, question by question: median and 95 % interval by bootstrap."""
    ratios = [
        each[way].figures[what] / each[other].figures[what]
        for each in found
        if each[other].figures[what] > 0
    ]
    noise = random.Random(1)
    medians = sorted(statistics.median(noise.choices(ratios, k=len(ratios))) for _ in range(2000))
    return f"{statistics.median(ratios):.3f} [{medians[50]:.3f}, {medians[-51]:.3f}]"


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("suite", type=Path)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="where every answer's figures go")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.suite.read_text().splitlines()]
    order = random.Random(5)
    order.shuffle(lines)
    questions = [str(line["turns"][0]) for line in lines][: arguments.n]
    sides = {
        name: Side(folder.absolute(), arguments.model, arguments.drafter)
        for name, folder in (("before", arguments.before), ("after", arguments.after))
    }
    found: list[dict[Way, Asked]] = []
    for number, text in enumerate(questions):
        ways = [(name, speculate) for name in sides for speculate in (False, True)]
        order.shuffle(ways)
        answers = {way: sides[way[0]].ask(text, arguments.tokens, way[1]) for way in ways}
        found.append(answers)
        same = len({answer.ids for answer in answers.values()}) == 1
        told = "same bytes" if same else "DIFFERENT"
        print(f"[{number + 1}/{len(questions)}] {told}", flush=True)
    if arguments.json is not None:
        rows = [
            {"question": number, "commit": name, "speculate": speculate, "ids": answer.ids}
            | answer.figures
            for number, answers in enumerate(found)
            for (name, speculate), answer in answers.items()
        ]
        arguments.json.write_text("\n".join(map(json.dumps, rows)) + "\n")
    for speculate in (False, True):
        name = "drafted" if speculate else "plain"
        for what in ("first_ms", "decode_ms", "whole_ms"):
            told = ratio(found, ("before", speculate), ("after", speculate), what)
            print(f"{name:8} speed after/before by {what:10} {told}")
    for name in sides:
        told = ratio(found, (name, False), (name, True), "decode_ms")
        print(f"{name:8} drafted/plain by decoding        {told}")


if __name__ == "__main__":
    main()
