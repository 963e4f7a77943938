"""Reading suites and choosing from them: bad lines are named, order is kept."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.bench.suite import Question, Rewritten, read_pairs, read_suite, select
from edgespec.errors import UsageError

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


def test_the_suite_that_ships() -> None:
    with resources.as_file(resources.files("edgespec.bench") / "prompts.jsonl") as path:
        questions = read_suite(path)
    assert len({question.id for question in questions}) == len(questions)
    assert len({question.category for question in questions}) >= 4
    assert all(turn.strip() for question in questions for turn in question.turns)


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
