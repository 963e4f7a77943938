"""Scores of answers: the right one gets 1, every other one less, and hostile text nothing."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Sequence
from decimal import Decimal

import pytest
from grammar_support import compiler
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import ToyVocabulary

from edgespec.bench.plan import cold_questions
from edgespec.bench.scoring import scores_of
from edgespec.bench.scoring.number import Number
from edgespec.bench.scoring.outline import Outline
from edgespec.bench.scoring.tools import Chain
from edgespec.bench.suite import Question
from edgespec.types import Constraint

TASKS = [
    (question, question.check.calls)
    for question in cold_questions("tools", (), None)
    if isinstance(question.check, Chain)
]
HOSTILE = [
    "",
    "I cannot do that.",
    "\0",
    "```python\n\0```",
    "(" * 7_000,
    "[" * 7_000 + "]" * 900,
    "-" * 7_000 + "1",
    "not " * 1_900 + "x",
    "f(" * 2_000 + ")" * 2_000,
    "a." * 3_900 + "a()",
    "lambda: " * 900 + "0",
    "9" * 7_900,
    f"add_text({'9' * 5_000}, 1e999, {{[]: 1}}, *x, **y)",
    "add_text(__import__('os').abort())",
    "add_text('\\d', b'x', 1j, ...)",
    "```" * 2_000,
    "\ud800",
    "add_text('x')\n" * 10_000,
]


def answer(calls: Sequence[str]) -> str:
    return "Here you are:\n\n```python\n" + "\n".join(calls) + "\n```\nAnything else?"


def chain(question: Question, text: str) -> float:
    scores = scores_of(question, [text])
    assert scores.keys() == {"chain"}
    assert 0 <= scores["chain"] <= 1
    return scores["chain"]


# -- chains of calls --------------------------------------------------------------------------


@pytest.mark.parametrize(("question", "calls"), TASKS)
def test_the_expected_chain_scores_1_in_any_form(question: Question, calls: Sequence[str]) -> None:
    bare = "\n".join(calls)
    for text in (
        bare,
        answer(calls),
        f"Certainly.\n{bare}\nThat is all.",
        answer([f"result = {line}  # done" for line in calls]),
        f"```python\n{bare}",  # cut off behind it
        answer([line.replace("[", "(").replace("]", ")") for line in calls]),
    ):
        assert chain(question, text) == 1


@given(data=st.data())
def test_any_change_of_a_chain_scores_less(data: st.DataObject) -> None:
    question, calls = data.draw(st.sampled_from(TASKS))
    index = data.draw(st.integers(0, len(calls) - 1))
    call = ast.parse(calls[index], mode="eval").body
    assert isinstance(call, ast.Call)
    change = data.draw(st.sampled_from(["delete", "double", "name", "drop", "argument", "swap"]))
    changed = list(calls)
    if change == "delete":
        del changed[index]
    elif change == "double":
        changed.insert(index, calls[index])
    elif change == "swap":
        changed.append(changed.pop(0))
        if len(calls) < 2:
            return
    else:
        if change == "name":
            call.func = ast.Name("add_" + data.draw(st.sampled_from(["shape", "texts"])))
        elif change == "drop":
            call.args.pop()
        else:
            value = data.draw(st.sampled_from(["other", 17, True, None, [1]]))
            call.args[data.draw(st.integers(0, len(call.args) - 1))] = ast.Constant(repr(value))
        changed[index] = ast.unparse(call)
    assert chain(question, answer(changed)) < 1


def test_named_arguments_are_as_good_as_places() -> None:
    question = next(each for each, calls in TASKS if calls[0].startswith("add_table("))
    named = 'add_table(num_rows=6.0, columns=("number", "width", "fire rating"), name="doors")'
    assert chain(question, named) == 1
    assert chain(question, named.replace("name=", "title=")) < 1
    assert chain(question, named.replace("add_table(", 'add_table("doors", ')) < 1
    assert chain(question, named.replace("6.0", "True")) < 1


def test_half_of_a_call_is_its_function() -> None:
    question = Question("1", "a", ("def f(a, b): 'x'",), check=Chain(("f(1, 2)", "f(3, 4)")))
    assert chain(question, "f(1, 2)\nf(3, 5)") == pytest.approx(0.875)
    assert chain(question, "f(1, 2)\ng(3, 4)") == pytest.approx(0.5)
    assert chain(question, "f(1, 2)\nf(3, 4)\nprint(1)") == pytest.approx(2 / 3)


def test_what_is_incomplete_must_be_refused_and_nothing_else() -> None:
    for question, calls in TASKS:
        other = 'refuse("add_text", "content")'
        if calls[0].startswith("refuse("):
            assert chain(question, 'add_text("a", "b", 1, 2)') == 0
            assert chain(question, f'add_text("a", "b", 1, 2)\n{calls[0]}') <= 0.5
            assert 0 < chain(question, other) < 1
        else:
            assert chain(question, "\n".join([*calls, other])) == chain(question, other) == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_scores_nothing(text: str) -> None:
    for question in (
        next(each for each, calls in TASKS if calls[0].startswith("revise_text(")),
        Question("1", "a", ("?",), check=Number(Decimal(7))),
        Question("1", "a", ("?",), schema='{"type": "object"}'),
    ):
        assert set(scores_of(question, [text]).values()) == {0.0}


@given(text=st.text())
def test_any_text_has_a_score(text: str) -> None:
    for question in (
        TASKS[0][0],
        Question("1", "a", (text,), check=Chain(("f(1)",))),
        Question("1", "a", ("?",), '{"enum": [1]}', check=Number(Decimal(7))),
        Question("1", "a", ("?",), check=Outline((("# A",),), 7)),
    ):
        assert all(0 <= score <= 1 for score in scores_of(question, [text]).values())


# -- outlines ---------------------------------------------------------------------------------

OUTLINE = Question("1", "a", ("?", "?"), check=Outline((("# A", "## B"), ("## C",)), 4))


@pytest.mark.parametrize(
    ("texts", "headings", "words", "unrepeated"),
    [
        (("# A\none two\n## B\nthree four", "## C\nfive six seven eight"), 1, 1, 1),
        (("# A \none two three four", "## C\nfive"), 0.75, 0.625, 1),
        (("## B\nx\n# A", "### C"), 0.25, 0.125, 1),
        (("# A\n## B\n## X\na b c d e f g h", ""), 1 / 3, 0.25, 1),
        (("# A\n## B\na b c d", "## C\na B c, d!"), 1, 1, 0.5),
        (("# A\n## B\na a a a a a a a",), 0.5, 0.25, 0.2),
        ((), 0, 0, 1),
    ],
    ids=["right", "one left out", "other order", "one more", "repeated", "a loop", "nothing"],
)
def test_headings_words_and_repetition(
    texts: Sequence[str], headings: float, words: float, unrepeated: float
) -> None:
    scores = scores_of(OUTLINE, texts)
    assert scores == pytest.approx({"headings": headings, "words": words, "unrepeated": unrepeated})


# -- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "text", "is_right"),
    [
        (195, "90 + 15 + 90\nAnswer: 195", True),
        (195, "90 + 15 + 90 = 195\n\nAnswer: 195 minutes.\n\n", True),
        (20.5, "**Answer: 20.50 €**", True),
        (2704, "Answer: $2,704$", True),
        (2704, r"\boxed{2704}", True),
        (-3, "Answer: -3", True),
        (3.6, "Answer: 36", False),
        (195, "Answer: 195\nI hope that this helps.", False),
        (195, "Answer: 1950", False),
        (195, "First, 195", True),
        (195, "Answer: one hundred and ninety-five", False),
        (7, "", False),
    ],
)
def test_the_last_number_of_the_last_line_counts(
    expected: float, text: str, is_right: bool
) -> None:
    question = Question("1", "a", ("?",), check=Number.of(expected))
    assert scores_of(question, [text]) == {"right": float(is_right)}


# -- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", cold_questions("json", (), None))
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_constraint_lets_through_is_valid(question: Question, seed: int) -> None:
    """llguidance and the score read a schema alike; what is cut off is not valid."""
    vocab, source = ToyVocabulary("bpe", ()), random.Random(seed)
    matcher = compiler("").compile(Constraint("json_schema", question.schema))
    text = b""
    while vocab.eos not in (allowed := matcher.allowed().tolist()):
        closing = [token for token in allowed if vocab.piece(token) in (b'"', b",", b"]", b"}")]
        token = source.choice(closing if closing and source.random() < 0.3 else allowed)
        matcher.accept(token)
        text += vocab.piece(token)
    assert scores_of(question, [text.decode()]) == {"valid": 1.0}
    assert scores_of(question, [text.decode()[:-1]]) == {"valid": 0.0}


def test_every_turn_is_held_to_the_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/few"}},
        "additionalProperties": False,
        "$defs": {"few": {"type": ["integer", "null"], "maximum": 5}},
    }
    question = Question("1", "a", ("?", "?"), json.dumps(schema))
    for good in ("{}", '{"a": 5}', '\n{"a": null}'):
        for bad in ("x", "", "[]", '{"a": 6}', '{"a": true}', '{"b": 1}', '{"a": 1', "{} {}"):
            assert scores_of(question, [good, bad]) == {"valid": 0.5}
    assert scores_of(question, ["{}"]) == {"valid": 0.5}
    assert scores_of(Question("1", "a", ("?",)), ["text"]) == {}
