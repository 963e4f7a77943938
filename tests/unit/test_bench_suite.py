"""Suites: bad lines are named, order is kept, and those that ship are what they are said to be."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from grammar_support import compiler
from hypothesis import given
from hypothesis import strategies as st

from edgespec.bench.plan import SUITES, cold_questions, warm_plan
from edgespec.bench.scoring.number import Number
from edgespec.bench.scoring.outline import Outline
from edgespec.bench.scoring.tools import Chain
from edgespec.bench.suite import Question, Rewritten, read_days, read_pairs, read_suite, select
from edgespec.errors import UsageError
from edgespec.types import CompletionRequest, Constraint, Message, SamplingParams

QUESTIONS = st.lists(
    st.builds(
        Question,
        id=st.text(max_size=5),
        category=st.sampled_from(["qa", "maths", "writing", "rag"]),
        turns=st.lists(st.text(max_size=20), min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=20,
)


def line(question: Question) -> str:
    fields = {"question_id": question.id, "category": question.category, "turns": question.turns}
    return json.dumps(fields)


def write(folder: Path, *lines: str) -> Path:
    path = folder / "suite.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@given(questions=QUESTIONS)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, questions: list[Question]
) -> None:
    path = write(tmp_path_factory.getbasetemp(), *map(line, questions))
    assert read_suite(path) == tuple(questions)


def test_blank_lines_and_more_fields_are_fine(tmp_path: Path) -> None:
    spec_bench = (
        '{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."], "reference": []}'
    )
    path = write(tmp_path, "", spec_bench, "   ", "")
    assert read_suite(path) == (Question("81", "writing", ("Write.", "Again.")),)


def test_line_breaks_inside_texts_do_not_end_a_line(tmp_path: Path) -> None:
    """JSON may hold U+2028 and U+0085 as they are, and they are no ends of lines in a file."""
    text = "one\u2028two\u0085three"
    fields = {"question_id": 1, "category": "a", "turns": [text]}
    path = tmp_path / "suite.jsonl"
    path.write_text(json.dumps(fields, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_suite(path) == (Question("1", "a", (text,)),)


GOOD = '{"question_id": 1, "category": "a", "turns": ["hello"]}'


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "hello",
        "null",
        "7",
        "[]",
        "{}",
        '{"category": "a", "turns": ["b"]}',
        '{"question_id": 1, "turns": ["b"]}',
        '{"question_id": 1, "category": "a"}',
        '{"question_id": 1, "category": "a", "turns": []}',
        '{"question_id": 1, "category": "a", "turns": null}',
        '{"question_id": 1, "category": "a", "turns": "b"}',
        '{"question_id": 1, "category": "a", "turns": {"b": 1}}',
        '{"question_id": 1, "category": "a", "turns": ["b", 2]}',
        "[" * 100_000,
        '{"question_id": ' + "9" * 5000 + ', "category": "a", "turns": ["b"]}',
        *(
            GOOD[:-1] + f', "{name}": {value}}}'
            for name, value in (
                ("schema", '"{}"'),
                ("schema", "false"),
                ("schema", '{"properties": {"a": {"type": "text"}}}'),
                ("schema", '{"$schema": []}'),
                ("max_tokens", "0"),
                ("max_tokens", "true"),
                ("max_tokens", '"9"'),
                ("check", "7"),
                ("check", "{}"),
                ("check", '{"number": "7"}'),
                ("check", '{"number": NaN}'),
                ("check", '{"number": true}'),
                ("check", '{"number": 7, "calls": ["f()"]}'),
                ("check", '{"calls": []}'),
                ("check", '{"calls": ["f(x)"]}'),
                ("check", '{"calls": ["f() g()"]}'),
                ("check", '{"calls": [7]}'),
                ("check", '{"headings": [["# A"]]}'),
                ("check", '{"headings": [["# A"]], "words": 0}'),
                ("check", '{"headings": [], "words": 9}'),
                ("check", '{"headings": [["A"]], "words": 9}'),
                ("check", '{"headings": ["# A"], "words": 9}'),
            )
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, GOOD, "", bad, GOOD)
    with pytest.raises(UsageError) as refused:
        read_suite(path)
    assert f"{path}, line 3 is not a question" in refused.value.problem
    assert "question_id, category and turns" in refused.value.remedy


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  "])
def test_a_suite_without_questions(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="has no questions"):
        read_suite(path)


def test_a_suite_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"question_id": "\xe9"}')
    for path in (tmp_path / "missing.jsonl", tmp_path, tmp_path / "latin.jsonl"):
        with pytest.raises(UsageError, match="cannot read the suite") as refused:
            read_suite(path)
        assert str(path) in refused.value.problem


@given(
    questions=QUESTIONS,
    limit=st.none() | st.integers(1, 4),
    chosen=st.sets(st.sampled_from(["qa", "maths", "writing", "rag"])),
)
def test_a_selection_is_the_first_of_each_category_in_order(
    questions: list[Question], limit: int | None, chosen: set[str]
) -> None:
    known = {question.category for question in questions}
    if chosen - known:
        with pytest.raises(UsageError) as refused:
            select(questions, chosen, limit)
        assert all(name in refused.value.problem for name in chosen - known)
        assert all(name in refused.value.remedy for name in known)
        return
    expected: list[Question] = []
    taken: Counter[str] = Counter()
    for question in questions:
        if not chosen or question.category in chosen:
            taken[question.category] += 1
            if limit is None or taken[question.category] <= limit:
                expected.append(question)
    assert list(map(id, select(questions, chosen, limit))) == list(map(id, expected))


def test_what_else_a_line_may_say(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "integer"}}}
    lines = (
        {"schema": schema, "max_tokens": 9, "check": None},
        {"check": {"number": 2.5}},
        {"check": {"calls": ["f(1)"]}},
        {"check": {"headings": [["# A", "## B"]], "words": 80}},
    )
    path = write(tmp_path, *(json.dumps(json.loads(GOOD) | more) for more in lines))
    first, *others = read_suite(path)
    assert (json.loads(first.schema), first.max_tokens, first.check) == (schema, 9, None)
    assert [question.check for question in others] == [
        Number(Decimal("2.5")),
        Chain(("f(1)",)),
        Outline((("# A", "## B"),), 80),
    ]


def test_a_question_is_asked_with_its_own_schema_and_length() -> None:
    messages, sampling = (Message("user", "a"),), SamplingParams(temperature=0.5, seed=3)
    plain = Question("1", "a", ("a",)).request(messages, sampling, 20)
    assert plain == CompletionRequest(messages, sampling, 20)
    own = Question("1", "a", ("a",), '{"type": "null"}', 7).request(messages, sampling, 20)
    constraint = Constraint("json_schema", '{"type": "null"}')
    held = SamplingParams(temperature=0.5, seed=3, constraint=constraint)
    assert own == CompletionRequest(messages, held, 7)


PAIR = {"pair_id": "p", "category": "c", "first": ["one"], "second": ["two", "three"]}


def test_a_pair_is_two_questions(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps(PAIR))
    assert read_pairs(path) == (
        Rewritten(Question("p first", "c", ("one",)), Question("p", "c", ("two", "three"))),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"first": []}, "must not be empty"),
        ({"second": "two"}, "list of strings"),
        ({"pair_id": None, "second": ["x", 1]}, "list of strings"),
    ],
)
def test_a_pair_that_is_none_is_named(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = write(tmp_path, json.dumps(PAIR), json.dumps(PAIR | changes))
    with pytest.raises(UsageError, match=words) as refused:
        read_pairs(path)
    assert "line 2" in str(refused.value) and "pair_id" in str(refused.value)


DAY = {"question_id": "q", "day": 2, "turns": ["one"]}


def test_days_are_read_in_their_order(tmp_path: Path) -> None:
    lines = (DAY, DAY | {"day": 1, "question_id": "p"}, DAY | {"turns": ["two"]})
    assert read_days(write(tmp_path, *map(json.dumps, lines))) == (
        (Question("p", "day 1", ("one",)),),
        (Question("q", "day 2", ("one",)), Question("q", "day 2", ("two",))),
    )
    for day in (None, 0, True, "1"):
        path = write(tmp_path, json.dumps(DAY), json.dumps(DAY | {"day": day}))
        with pytest.raises(UsageError, match="line 2 is not a question"):
            read_days(path)


# -- by name ----------------------------------------------------------------------------------


def test_several_suites_are_joined_and_no_id_is_there_twice(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD, GOOD.replace("hello", "good bye"))
    two = one.rename(tmp_path / "a, b.jsonl")
    three = write(tmp_path, GOOD, GOOD.replace("hello", "and you"))
    assert [question.id for question in cold_questions(str(two), (), None)] == ["1", "1 #2"]
    both = cold_questions(f" german,{three}, german ", (), None)
    assert both[:-2] == cold_questions("german", (), None)
    assert [(question.id, question.turns) for question in both[-2:]] == [
        ("1", ("hello",)),
        ("1 #2", ("and you",)),
    ]
    with pytest.raises(UsageError, match="cannot read the suite nothing"):
        cold_questions("chat,nothing", (), None)


def test_mixed_is_two_questions_of_each_suite() -> None:
    mixed = cold_questions("mixed", (), None)
    assert Counter(question.category for question in mixed) == dict.fromkeys(SUITES, 2)
    assert set(mixed) <= set(cold_questions("all", (), None))


# -- those that ship --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_at_least_24_questions_of_its_own(name: str) -> None:
    questions = cold_questions(name, (), None)
    assert len(questions) >= 24
    assert {question.category for question in questions} == {name}
    assert all(turn.strip() == turn != "" for question in questions for turn in question.turns)


def test_nothing_is_asked_twice() -> None:
    everything = list(cold_questions("all", (), None))
    assert len(everything) == sum(len(cold_questions(name, (), None)) for name in SUITES)
    assert not any("#" in question.id for question in everything)  # all had ids of their own
    everything += warm_plan("unseen", "chat", (), None, None).earlier
    for warm in ("rewritten", "week"):
        plan = warm_plan(warm, None, (), None, None)
        everything += {*plan.questions, *plan.earlier}
    assert len({question.turns for question in everything}) == len(everything)


def test_six_directions_are_translated() -> None:
    questions = cold_questions("translation", (), None)
    directions = Counter(question.id.removeprefix("translation-")[:5] for question in questions)
    assert directions.keys() == {"de-en", "en-de", "en-fr", "fr-en", "en-zh", "zh-en"}
    assert min(directions.values()) >= 4


def test_texts_and_files_have_the_size_of_real_ones() -> None:
    for question in cold_questions("summaries", (), None):
        assert 150 <= len(question.turns[0].split()) <= 500
    for question in cold_questions("edits", (), None):
        assert "```" in question.turns[0] and len(question.turns[0]) > 600
    assert sum(len(question.turns) > 1 for question in cold_questions("chat", (), None)) >= 5


def test_every_schema_is_one_that_answers_can_be_held_to() -> None:
    questions = cold_questions("json", (), None)
    assert all(question.schema and question.max_tokens for question in questions)
    for question in questions:
        compiler("").compile(Constraint("json_schema", question.schema))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("mathematics", Number, ("Answer: NUMBER",)),
        ("tools", Chain, ("def refuse(function: str, missing: str)", "Task: ")),
        ("outline", Outline, ("with these headings",)),
    ],
)
def test_questions_with_a_check_ask_for_what_is_checked(
    name: str, kind: type, words: tuple[str, ...]
) -> None:
    for question in cold_questions(name, (), None):
        assert isinstance(question.check, kind)
        assert question.max_tokens is not None
        assert all(word in question.turns[0] for word in words)
        if isinstance(question.check, Outline):
            asked = zip(question.turns, question.check.headings, strict=True)
            assert len(question.turns) == 3
            for turn, headings in asked:
                assert turn.endswith("\n".join(headings))
                assert f"about {question.check.num_words} words" in turn


def test_a_third_of_the_tool_tasks_must_be_refused() -> None:
    checks = [question.check for question in cold_questions("tools", (), None)]
    chains = [check.calls for check in checks if isinstance(check, Chain)]
    refusals = [calls for calls in chains if calls[0].startswith("refuse(")]
    assert 8 <= len(refusals) <= len(chains) / 2
    assert all(len(calls) == 1 for calls in refusals)
    called = {line.partition("(")[0] for calls in chains for line in calls}
    assert len(called - {"refuse"}) == 8
