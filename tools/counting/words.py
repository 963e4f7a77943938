"""Count the words of a target's answers: the table that every drafter is trimmed by.

    PYTHONPATH=tools python -m counting.words ANSWERS.jsonl edgespec/forms/data/words.json.gz

The prompts of samples.py are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from counting.answers import read_lines
from counting.samples import held_out

from edgespec.forms.words import WordCounts


def main() -> None:
    """Read the arguments and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("answers", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    left_out = {prompt for _, prompt in held_out()}
    answers = [
        line["answer"] for line in read_lines(arguments.answers) if line["prompt"] not in left_out
    ]
    words = WordCounts.of(answers, f"{len(answers)} answers of {arguments.answers.stem}")
    arguments.file.write_bytes(words.to_bytes())
    print(f"{len(words.counts)} words, {sum(words.counts.values())} in all")


if __name__ == "__main__":
    main()
