"""Recorded answers in a drafter's tokens, after the question where that is known."""

from __future__ import annotations

from toy_vocabularies import TOYS

from edgespec.learning.distillation.sessions import SessionReader, Turns
from edgespec.types import Prompt
from edgespec.vocab.tokenizer import ByteTokenizer

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


def text(tokens: list[int]) -> str:
    return b"".join(map(DRAFTER.piece, tokens)).decode()


def said(answer: str) -> list[int]:
    return TARGET.encode(answer.encode()).tokens


def test_an_answer_comes_after_its_question() -> None:
    found = reader().read(said("the token"), said("x"), "talk")
    assert found is not None
    assert text(found[0]) == "user:say the same"
    assert text(found[1]) == "the token"


def test_equal_answers_of_a_conversation_are_told_apart_by_their_order() -> None:
    answers = [(said(text), said("x"), "talk") for text in ("the token", "the token", "and more")]
    found = list(reader().read_all(answers))
    before = [text(tokens) for tokens, _answer in found]
    assert before[0] == "user:say the same"
    assert before[1] == "user:say the same|assistant:the token|user:again"
    assert before[2] == f"{before[1]}|assistant:the token|user:more", "other versions left out"


def test_without_a_known_question_the_recorded_context_has_to_do() -> None:
    one = reader()
    for conversation in (None, "gone", "talk"):
        found = one.read(said("another answer"), said("what came before"), conversation)
        assert found is not None
        assert text(found[0]) == "what came before"
        assert text(found[1]) == "another answer"


def test_the_end_of_a_turn_is_learned_as_the_drafters_own() -> None:
    found = reader().read([*said("the end"), END], [], None)
    assert found is not None
    own = TARGET.specials.counterpart(END, DRAFTER.specials)
    assert own is not None
    assert found[1][-1] == own
    assert text(found[1][:-1]) == "the end"


def test_an_answer_without_text_is_left_out() -> None:
    assert list(reader().read_all([([], said("context"), None)])) == []
