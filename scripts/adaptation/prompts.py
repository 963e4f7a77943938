"""The turns by which adaptation is measured: mathematics, coding, translation, general."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from counting.answers import prompts as counted_prompts

from edgespec.bench.suite import Question, read_suite

KINDS = ("math", "coding", "translation", "general")

_KIND_OF = {
    "math_reasoning": "math",
    "math": "math",
    "mathematics": "math",
    "coding": "coding",
    "code": "coding",
    "translation": "translation",
    "translate": "translation",
    "qa": "general",
    "writing": "general",
    "explain": "general",
    "list": "general",
}
"""Categories of the suites; those with long documents are left out."""


@dataclass(frozen=True, slots=True)
class TurnPrompt:
    """One turn: what the user asks, after the turn `follows` of the same list if there is one."""

    kind: str
    text: str
    follows: int | None = None


def turn_prompts(suites: list[Path]) -> list[TurnPrompt]:
    """All turns of the suites' questions of these kinds, and the coding prompts of `counting`."""
    questions = [question for path in suites for question in read_suite(path)]
    questions += [
        Question(f"counted-{number}", category, (text,))
        for number, (category, text) in enumerate(counted_prompts())
        if category == "code"
    ]
    turns: list[TurnPrompt] = []
    for question in questions:
        kind = _KIND_OF.get(question.category)
        if kind is None:
            continue
        previous = None
        for text in question.turns:
            turns.append(TurnPrompt(kind, text, previous))
            previous = len(turns) - 1
    return turns
