"""Let a target write the text that the count tables of `edgespec trim` are made from.

    PYTHONPATH=tools python -m counting.answers FOLDER [--model M] [--batches N]

First the target answers the prompts beside this file and writes questions on the topics beside it;
then it answers those. One JSON line per answer goes to FOLDER/MODEL.jsonl; an earlier run is
continued. Sampled, not greedy, so that more of the vocabulary is used.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from counting.target import NUM_SLOTS, answer_all, open_target

from edgespec.models.registry import DEFAULT_TARGET
from edgespec.types import SamplingParams

FOLDER = Path(__file__).parent
TEMPERATURE = 0.7
NUM_LIKELIEST = 40
"""Tokens that are drawn from."""
NUM_TOKENS = 250
QUESTIONS_A_TOPIC = 6
QUESTIONS = (
    "Write a numbered list of ten varied questions or tasks that different people might give to an "
    "assistant. The subject: {}. Each must be complete in itself and different in kind and length "
    "from the others. Write only the list."
)
_ITEM = re.compile(r"^\s*\d+[.)、]\s*(.{12,})$", re.MULTILINE)


def prompts() -> Iterator[tuple[str, str]]:
    """Category and text of each prompt: "## category" begins one, "---" parts prompts."""
    for section in (FOLDER / "prompts.txt").read_text(encoding="utf-8").split("## ")[1:]:
        category, _, texts = section.partition("\n")
        for text in texts.split("\n---\n"):
            yield category.strip(), text.strip()


def topics() -> Iterator[tuple[str, str]]:
    """Category "questions" and the request for questions on each topic."""
    for topic in (FOLDER / "topics.txt").read_text(encoding="utf-8").splitlines():
        yield "questions", QUESTIONS.format(topic)


def asked_by_target(lines: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Category "asked" and the questions that the target wrote."""
    for line in lines:
        if line["category"] == "questions":
            for question in _ITEM.findall(line["answer"])[:QUESTIONS_A_TOPIC]:
                yield "asked", question.strip()


def read_lines(file: Path) -> list[dict[str, str]]:
    """The answers so far."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def missing(file: Path) -> list[tuple[str, str]]:
    """What has no answer yet; the target's own questions come last."""
    lines = read_lines(file)
    answered = {line["prompt"] for line in lines}
    wanted = [pair for pair in (*prompts(), *topics()) if pair[1] not in answered]
    return wanted or [pair for pair in asked_by_target(lines) if pair[1] not in answered]


def drawn(prompt: str) -> SamplingParams:
    """How an answer is drawn: each prompt has a stream of its own, whatever is asked beside it."""
    seed = zlib.crc32(prompt.encode())
    return SamplingParams(temperature=TEMPERATURE, top_k=NUM_LIKELIEST, seed=seed)


def main() -> None:
    """Read the arguments and answer batch by batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_TARGET)
    parser.add_argument("--batches", type=int, default=1 << 30)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / f"{Path(arguments.model).name.removesuffix('.gguf')}.jsonl"
    with open_target(arguments.model) as target:
        for _ in range(arguments.batches):
            pairs = missing(file)[:NUM_SLOTS]
            if not pairs:
                break
            texts = [text for _, text in pairs]
            answers = answer_all(
                target.completer, texts, [drawn(text) for text in texts], NUM_TOKENS
            )
            with file.open("a", encoding="utf-8") as out:
                for (category, text), answer in zip(pairs, answers, strict=True):
                    line = {"category": category, "prompt": text, "answer": answer}
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{len(missing(file))} without an answer in {file}")


if __name__ == "__main__":
    main()
