"""What drafts of forced tokens give to answers under a JSON schema.

    python research/constrained.py [MODEL] [NUM_ROUNDS]

Each question is answered plainly, with look-ups in the conversation, and with these and the drafter
`grammar`, one after the other in an order that changes; all must say the same tokens. Told are the
tokens a pass gives and the tokens a second, over all rounds.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from contextlib import ExitStack

from edgespec.drafters import grammar
from edgespec.engine.completer import EngineCompleter
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.models.resolve import locate
from edgespec.paths import user_paths
from edgespec.runtime.request import LOOK_UP_ONLY, LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, Constraint, Message, SamplingParams

TEXT = {"type": "string", "maxLength": 200}
PERSON = {
    "full_name": TEXT,
    "year_of_birth": {"type": "integer"},
    "nationality": TEXT,
    "occupations": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4},
    "most_important_work": TEXT,
    "is_alive": {"type": "boolean"},
}
RECIPE = {
    "title": TEXT,
    "preparation_minutes": {"type": "integer"},
    "ingredients": {
        "type": "array",
        "minItems": 3,
        "maxItems": 5,
        "items": {
            "type": "object",
            "properties": {"name": TEXT, "quantity": {"type": "number"}, "unit_of_measure": TEXT},
            "required": ["name", "quantity", "unit_of_measure"],
        },
    },
    "difficulty": {"enum": ["easy", "intermediate", "advanced"]},
}
TICKET = {
    "category": {"enum": ["billing", "technical_support", "account_management", "other"]},
    "priority": {"enum": ["low", "normal", "urgent"]},
    "customer_sentiment": {"enum": ["satisfied", "neutral", "dissatisfied"]},
    "summary": TEXT,
    "requires_follow_up": {"type": "boolean"},
}
QUESTIONS = (
    ("Describe Ada Lovelace.", PERSON),
    ("Describe Johann Sebastian Bach.", PERSON),
    ("Describe Marie Curie.", PERSON),
    ("Give a recipe for pancakes.", RECIPE),
    ("Give a recipe for tomato soup.", RECIPE),
    ("Classify: I was charged twice this month and nobody answers my mails!", TICKET),
    ("Classify: The app crashes whenever I open the settings page.", TICKET),
    ("Classify: Thank you, the new version works very well.", TICKET),
)
WAYS = ("plain", "look-ups", "look-ups and grammar")


def request(question: str, properties: dict[str, object], *, speculate: bool) -> CompletionRequest:
    """A question that is to be answered as JSON with these properties."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    constraint = Constraint("json_schema", json.dumps(schema))
    asked = f"{question} Answer as JSON with the keys {', '.join(properties)}."
    return CompletionRequest(
        (Message("user", asked),),
        SamplingParams(constraint=constraint),
        max_tokens=400,
        speculate=speculate,
        reuse_prefix=False,
        record=False,
    )


def answer(completer: EngineCompleter, asked: CompletionRequest) -> Completion:
    """The whole answer."""
    *_, last = completer.answer(asked)
    assert last.completion is not None
    return last.completion


def main(name: str, num_rounds: int) -> None:
    """Ask everything in all ways, and print the figures."""
    paths, options = user_paths(), LoadRequest(drafter=LOOK_UP_ONLY, remember=False, idle=False)
    path = locate(name, paths)
    assert path is not None, f"pull {name} first"
    totals: dict[str, dict[str, float]] = {way: defaultdict(float) for way in WAYS}
    with ExitStack() as opened:
        grammar.IS_ALWAYS_ASKED = False
        without = opened.enter_context(load(options, path, paths, print)).completer
        grammar.IS_ALWAYS_ASKED = True
        with_it = opened.enter_context(load(options, path, paths, print)).completer
        completers = dict(zip(WAYS, (without, without, with_it), strict=True))
        for number in range(num_rounds * len(QUESTIONS)):
            question, properties = QUESTIONS[number % len(QUESTIONS)]
            said = set()
            for turn in range(len(WAYS)):
                way = WAYS[(turn + number) % len(WAYS)]
                asked = request(question, properties, speculate=way != "plain")
                done = answer(completers[way], asked)
                said.add(done.token_ids)
                forced = done.stats.by_drafter.get("grammar")
                figures = {
                    "ms": done.timings.decode_ms,
                    "tokens": len(done.token_ids) - 1,
                    "passes": done.stats.target_passes - 1,
                    "proposed": done.stats.proposed,
                    "accepted": done.stats.accepted,
                    "forced": forced.accepted if forced else 0,
                }
                for figure, value in figures.items():
                    totals[way][figure] += value
            assert len(said) == 1, question
    for way, total in totals.items():
        speed = total["tokens"] / total["ms"] * 1e3
        ratio = total["tokens"] / total["ms"] / totals["plain"]["tokens"] * totals["plain"]["ms"]
        print(
            f"{way:22s} {total['tokens'] / total['passes']:.2f} tokens a pass, {speed:.1f} tokens/s"
            f" ({ratio:.2f}), accepted {total['accepted']:.0f} of {total['proposed']:.0f},"
            f" {total['forced']:.0f} of them forced, {total['tokens']:.0f} tokens"
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_TARGET, int([*sys.argv, "", "2"][2] or 2))
