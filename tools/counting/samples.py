"""Let a target answer a few of the prompts greedily: the text by which drafters are judged.

    PYTHONPATH=tools python -m counting.samples edgespec/forms/data/samples.jsonl [--model M]

These prompts are left out of the count tables, so that what a trimmed head loses shows in them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from counting.answers import prompts
from counting.target import NUM_SLOTS, answer_all, open_target

from edgespec.models.registry import DEFAULT_TARGET
from edgespec.types import SamplingParams

NUM_TOKENS = 44
_LONGEST = 160
"""Characters of a prompt: reading it takes time whenever a drafter is measured."""
_FIRST, _EVERY, _STRIDE = 3, 8, 4


def held_out() -> list[tuple[str, str]]:
    """Category and text of the prompts that samples answer, the first few of every kind."""
    short = [(category, text) for category, text in prompts() if len(text) < _LONGEST]
    picked = short[_FIRST::_EVERY][:NUM_SLOTS]
    return [pair for start in range(_STRIDE) for pair in picked[start::_STRIDE]]


def main() -> None:
    """Read the arguments and answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default=DEFAULT_TARGET)
    arguments = parser.parse_args()
    pairs = held_out()
    texts = [text for _, text in pairs]
    with open_target(arguments.model) as target:
        greedy = [SamplingParams()] * len(texts)
        answers = answer_all(target.completer, texts, greedy, NUM_TOKENS)
    lines = [
        json.dumps({"category": category, "prompt": text, "answer": answer}, ensure_ascii=False)
        for (category, text), answer in zip(pairs, answers, strict=True)
    ]
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
