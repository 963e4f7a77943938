"""Measure how often the first guess of a draft is what the target says, at every token of answers.

    python scripts/measure_first_guess.py SUITE RESULTS.jsonl MINUTES TARGET.gguf DRAFTER...

A drafter is PATH.gguf[,CHANGE...]: as the product has it, in the form in which it runs on this
machine, but for the changes: `whole` (as shipped), `as=FILE` (in this trimmed form), `window=N`
(so many tokens of the past are read, the product's WINDOW), `plain` (no chat template of its own).
All are over the same engine: at each pass every one of them is asked for the first guess, and none
is verified, so hard places count as much as easy ones. RESULTS gets a line for each question; those
that are there are not asked again. Then a table is printed: of each category and drafter the share
of first guesses that were right, and of places where there was one.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure_pairs import GREEDY, Asked, Bench

from edgespec.bench.suite import Question, read_suite
from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.drafters.model import WINDOW, ModelDrafter
from edgespec.forms.trimmer import Trimmer
from edgespec.machine.identity import this_machine
from edgespec.paths import user_paths
from edgespec.runtime.form import Form
from edgespec.runtime.model_drafter import open_model_drafter
from edgespec.types import CompletionRequest, Message, Prompt, Proposal

NUM_TOKENS = 64
NUM_QUESTIONS = 12
"""Most questions of each category."""

CONTEXT = 4096


class FirstGuesses(Asked):
    """Asks a drafter for its first guess at each pass, lets none be verified, and counts."""

    def __init__(self, name: str, drafter: ModelDrafter, window: int) -> None:
        """`name` is what the results call it; `window` tokens of the past are read."""
        super().__init__(drafter)
        self.name, drafter.window = name, window
        self.num_places = self.num_guesses = self.num_right = 0

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        """The first guess, said to be hopeless."""
        self.num_places += 1
        for guess in self.drafter.propose(prefix):
            yield Proposal(guess.token, 0.0, guess.evidence)
            return

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        """Count it."""
        self.num_guesses += 1
        self.num_right += proposals[0].token == kept[0]
        super().learn(proposals[:1], kept)

    def take_counts(self) -> tuple[int, int, int]:
        """Places, guesses and right guesses since the last call."""
        counts = self.num_places, self.num_guesses, self.num_right
        self.num_places = self.num_guesses = self.num_right = 0
        return counts


def chosen(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many questions of each category, in turns, so that a part covers all."""
    seen: Counter[str] = Counter()
    numbered = []
    for question in questions:
        if seen[question.category] < most:
            numbered.append((seen[question.category], question))
        seen[question.category] += 1
    return [question for _, question in sorted(numbered, key=lambda pair: pair[0])]


def measure(
    bench: Bench,
    drafters: Sequence[FirstGuesses],
    readers: Sequence[Callable[[Prompt], None]],
    question: Question,
) -> dict[str, Any]:
    """Counts of each drafter over the answer to the first turn of a question."""
    completer = bench.completer(drafters, readers)
    prompt = (Message("user", question.turns[0]),)
    request = CompletionRequest(prompt, GREEDY, NUM_TOKENS, overflow="drop-oldest")
    for _ in completer.answer(request):
        pass
    completer.forget()
    counts = {it.name: it.take_counts() for it in drafters}
    return {"id": question.id, "category": question.category, "counts": counts}


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Shares by category and drafter, and the mean over all questions' places."""
    sums: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        for name, counts in line["counts"].items():
            for category in (line["category"], "overall"):
                total = sums.setdefault((category, name), [0, 0, 0])
                total[:] = [one + more for one, more in zip(total, counts, strict=True)]
    names = sorted({name for _, name in sums})
    rows = ["| category | places | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for category in dict.fromkeys(category for category, _ in sums if category != "overall"):
        rows.append(_row(category, names, sums))
    return "\n".join([*rows, _row("overall", names, sums)])


def _row(category: str, names: Sequence[str], sums: dict[tuple[str, str], list[int]]) -> str:
    cells = []
    for name in names:
        places, guesses, right = sums.get((category, name), (0, 0, 0))
        cells.append(f"{right / max(guesses, 1):.3f} at {guesses / max(places, 1):.2f}")
    places = sums[category, names[0]][0]
    return f"| {category} | {places} | " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Variant:
    """A drafter as it is given on the command line."""

    name: str
    path: Path
    form: Path | None
    is_whole: bool
    window: int
    is_plain: bool

    @staticmethod
    def parsed(text: str) -> Variant:
        """From `PATH.gguf[,CHANGE...]`; raises ValueError for a change that there is not."""
        file, *changes = text.split(",")
        values = dict(change.partition("=")[::2] for change in changes)
        if unknown := values.keys() - {"whole", "as", "window", "plain"}:
            raise ValueError(f"no changes {sorted(unknown)}")
        return Variant(
            name=",".join([Path(file).stem, *(change.split("/")[-1] for change in changes)]),
            path=Path(file),
            form=Path(values["as"]) if "as" in values else None,
            is_whole="whole" in values,
            window=int(values.get("window", WINDOW)),
            is_plain="plain" in values,
        )


def main(
    suite: Path, results: Path, minutes: float, target: Path, variants: Sequence[Variant]
) -> None:
    """Ask what was not asked yet, for so many minutes, then print the table of all."""
    deadline = time.monotonic() + 60 * minutes
    lines = []
    if results.exists():
        lines = [json.loads(line) for line in results.read_text().splitlines()]
    done = {(line["id"], line["category"]) for line in lines}
    questions = chosen(read_suite(suite), NUM_QUESTIONS)
    guessers, readers = [], []
    with open_database(user_paths().database) as database, contextlib.ExitStack() as cleanup:
        store = Facts(database)
        bench = Bench(target, store, cleanup, CONTEXT)
        trimmer = Trimmer(user_paths().trimmed, store, this_machine(), bench.model.options)
        for it in variants:
            form = it.form if it.form or it.is_whole else trimmer.trimmed(it.path)
            files = Form(it.path, form)
            drafter = open_model_drafter(files, bench.context, cleanup, of_any_size=True).drafter
            guessers.append(FirstGuesses(it.name, drafter, it.window))
            if not it.is_plain:
                readers.append(drafter.read_prompt)
        for question in questions:
            if (question.id, question.category) not in done and time.monotonic() < deadline:
                lines.append(measure(bench, guessers, readers, question))
                with results.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    places = [Path(argument) for argument in sys.argv[1:]]
    named = [Variant.parsed(argument) for argument in sys.argv[5:]]
    main(places[0], places[1], float(sys.argv[3]), places[3], named)
