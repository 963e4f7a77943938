"""Compare two forms of a drafter in place: trained and not, or two ways to trim it.

    python scripts/compare_forms.py SUITE TARGET.gguf WHOLE.gguf FORM.gguf OTHER.gguf

Both draft for the same target in one process, with look-ups but nothing remembered. Every question
(first turns) is answered plainly and by both, in changing order; all answers must be the same.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure_studying import Rig, ask_in_turns

from edgespec.bench.suite import read_suite
from edgespec.runtime.request import LoadRequest


@dataclass(frozen=True)
class Compared:
    """Milliseconds of decoding one answer plainly, and with each form."""

    plain_ms: float
    forms_ms: tuple[float, float]


def summary(compared: Sequence[Compared]) -> str:
    """Speeds against plain decoding, of all time, and the median of how they differ."""
    plain = sum(it.plain_ms for it in compared)
    one, other = (plain / sum(it.forms_ms[form] for it in compared) for form in range(2))
    ratio = median(it.forms_ms[0] / it.forms_ms[1] for it in compared)
    return f"{one:.3f} and {other:.3f}, median ratio {ratio:.3f}, {len(compared)} questions"


def main(suite: Path, target: Path, whole: Path, forms: tuple[Path, Path]) -> None:
    """Ask everything, then print."""
    with contextlib.ExitStack() as cleanup:
        one, other = (
            Rig(
                LoadRequest(
                    model=str(target),
                    drafter=whole.stem,
                    drafter_path=form,
                    learn=False,
                ),
                cleanup,
            )
            for form in forms
        )
        compared = []
        for number, question in enumerate(read_suite(suite)):
            plain_ms, *forms_ms = ask_in_turns(one, other, question, number)
            compared.append(Compared(plain_ms, (forms_ms[0], forms_ms[1])))
    print(summary(compared))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    files = [Path(argument) for argument in sys.argv[1:]]
    main(files[0], files[1], files[2], (files[3], files[4]))
