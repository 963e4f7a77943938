"""Recorded answers as lessons: after their questions, each token taught once, the latest kept."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.learning.lessons import (
    HELD_OUT,
    LESSON_TOKENS,
    MOST_HELD_OUT,
    WINDOW,
    Answered,
    Lesson,
    SessionReader,
    Turns,
    course_of,
    lessons_of,
    order_of,
)
from edgespec.types import Prompt
from edgespec.vocab.tokenizer import ByteTokenizer

TOKENS = st.lists(st.integers(0, 9), max_size=900)


def taught(lesson: Lesson) -> tuple[int, ...]:
    return lesson.tokens[lesson.first :]


@given(before=TOKENS, answer=TOKENS)
def test_every_token_of_an_answer_is_taught_once_after_what_stood_before_it(
    before: list[int], answer: list[int]
) -> None:
    lessons = list(lessons_of(Answered(before, answer)))
    whole = [token for lesson in lessons for token in taught(lesson)]
    assert whole == (answer if before else answer[1:])
    said = [*before, *answer]
    place = len(before) if before else 1
    for lesson in lessons:
        assert 1 <= lesson.first <= WINDOW
        assert lesson.num_taught >= 1
        assert len(lesson.tokens) <= WINDOW + LESSON_TOKENS
        assert lesson.tokens == tuple(said[place - lesson.first : place + lesson.num_taught])
        place += lesson.num_taught


def test_a_window_shows_as_much_as_there_is() -> None:
    (lesson,) = lessons_of(Answered(range(1000), [7, 8]))
    assert (lesson.first, lesson.tokens[0], lesson.tokens[-2:]) == (WINDOW, 1000 - WINDOW, (7, 8))


def test_an_answer_after_a_short_question_is_one_lesson() -> None:
    answered = Answered([1] * 40, [2] * (WINDOW + LESSON_TOKENS - 40))
    assert [lesson.first for lesson in lessons_of(answered)] == [40]


def test_the_latest_answers_are_held_out_for_guide_and_judge_in_turns() -> None:
    answers = [Answered([1], [number, number]) for number in range(4 * HELD_OUT)]
    course = course_of(answers)
    said = [[lesson.tokens[1] for lesson in part] for part in (course.guide, course.judge)]
    last = 4 * HELD_OUT
    assert said == [[last - 4, last - 2], [last - 3, last - 1]]
    assert [lesson.tokens[1] for lesson in course.lessons] == list(range(last - 4))


def test_a_guide_has_a_name_of_its_own() -> None:
    one, other = (course_of([Answered([1], [2, last])] * 2 * HELD_OUT) for last in (3, 4))
    assert one.guide_id == course_of([Answered([1], [2, 3])] * 2 * HELD_OUT).guide_id
    assert one.guide_id != other.guide_id


def test_of_many_answers_only_so_many_are_held_out() -> None:
    course = course_of([Answered([1], [2])] * (MOST_HELD_OUT * HELD_OUT * 2))
    assert len(course.guide) == len(course.judge) == MOST_HELD_OUT // 2
    assert len(course.lessons) == MOST_HELD_OUT * (2 * HELD_OUT - 1)


def test_answers_without_text_do_not_count() -> None:
    course = course_of(
        [Answered(*each) for each in [([], []), ([], [1]), *[([1], [2])] * HELD_OUT]]
    )
    assert len(course.lessons) == HELD_OUT - 1
    assert len(course.guide) == 1
    assert (course.judge, course.num_answers) == ((), HELD_OUT)


def test_the_order_of_lessons_is_always_the_same_and_another_each_time() -> None:
    orders = [order_of(50, epoch) for epoch in range(3)]
    assert orders == [order_of(50, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


NAMES = sorted(TOYS)
TARGET, DRAFTER = (ByteTokenizer(TOYS[name]()) for name in NAMES[:2])
END = min(TARGET.specials.ends)
TALK: Turns = (
    ("user", "say the same", None),
    ("assistant", "the token", 0),
    ("user", "again", 1),
    ("assistant", "the token", 2),
    ("assistant", "another version", 2),
    ("user", "more", 3),
    ("assistant", "and more ", 5),
)


def render(prompt: Prompt) -> list[int]:
    """The roles and texts, as bytes of the drafter."""
    assert not isinstance(prompt, str)
    return DRAFTER.encode("|".join(f"{m.role}:{m.content}" for m in prompt).encode()).tokens


def reader(turns: Turns = TALK) -> SessionReader:
    return SessionReader((TARGET, DRAFTER), render, lambda name: turns if name == "talk" else ())


def text(tokens: Sequence[int]) -> str:
    return b"".join(map(DRAFTER.piece, tokens)).decode()


def said(answer: str) -> list[int]:
    return TARGET.encode(answer.encode()).tokens


def test_an_answer_comes_after_its_question() -> None:
    found = reader().read(said("the token"), said("x"), "talk")
    assert found is not None
    assert text(found.before) == "user:say the same"
    assert text(found.answer) == "the token"


def test_equal_answers_of_a_conversation_are_told_apart_by_their_order() -> None:
    answers = [(said(words), said("x"), "talk") for words in ("the token", "the token", "and more")]
    one = reader()
    found = [one.read(*answer) for answer in answers]
    before = [text(each.before) for each in found if each is not None]
    assert before[0] == "user:say the same"
    assert before[1] == "user:say the same|assistant:the token|user:again"
    assert before[2] == f"{before[1]}|assistant:the token|user:more", "other versions left out"


def test_without_a_known_question_the_recorded_context_has_to_do() -> None:
    one = reader()
    for conversation in (None, "gone", "talk"):
        found = one.read(said("another answer"), said("what came before"), conversation)
        assert found is not None
        assert text(found.before) == "what came before"
        assert text(found.answer) == "another answer"


def test_the_end_of_a_turn_is_learned_as_the_drafters_own() -> None:
    found = reader().read([*said("the end"), END], [], None)
    assert found is not None
    own = TARGET.specials.counterpart(END, DRAFTER.specials)
    assert own is not None
    assert found.answer[-1] == own
    assert text(found.answer[:-1]) == "the end"


def test_an_answer_without_text_is_left_out() -> None:
    assert reader().read([], said("context"), None) is None
