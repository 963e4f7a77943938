"""Warm runs: what is asked and learned before anything is measured, and the plans of them."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import FakeSampler, FakeTarget, TinyBridge, make_engine

from edgespec.bench.plan import cold_questions, warm_plan
from edgespec.bench.runner import completion_of
from edgespec.bench.suite import Question
from edgespec.bench.warm import learn
from edgespec.engine.completer import EngineCompleter
from edgespec.errors import UsageError
from edgespec.passes import Kept
from edgespec.types import (
    Completion,
    CompletionRequest,
    EncodedPrompt,
    Message,
    SamplingParams,
    ServedModel,
)


class Remembering:
    """Notes the answers that end while it learns."""

    def __init__(self) -> None:
        self.is_learning = False
        self.num_flushed = 0
        self.learned: list[CompletionRequest] = []

    def open(self, request: CompletionRequest, _prompt: EncodedPrompt) -> Noted:
        return Noted(self, request)

    def flush(self) -> bool:
        self.num_flushed += 1
        return True


class Noted:
    """One answer that is remembered when it ends."""

    def __init__(self, owner: Remembering, request: CompletionRequest) -> None:
        self._owner = owner
        self._request = request

    def take(self, kept: Kept) -> None:
        """Passes are of no interest."""

    def close(self, _completion: Completion | None) -> None:
        if self._owner.is_learning:
            self._owner.learned.append(self._request)


class Asked(EngineCompleter):
    """The real completer with such a memory."""

    def __init__(self, num_context: int) -> None:
        target = FakeTarget(num_vocab=TinyBridge().num_vocab, num_context=num_context)
        self.memory = Remembering()
        model = ServedModel("fake", "", num_context, 0, "fake", "identical")
        engine = make_engine(target)
        super().__init__(engine, TinyBridge(), lambda _: FakeSampler(), model, self.memory)


def question(*turns: str) -> Question:
    return Question("-".join(turns), "a", turns)


def learned(*earlier: Question, num_context: int = 400) -> tuple[Asked, list[str]]:
    """A completer that was asked earlier questions, and what was told of it."""
    completer, said = Asked(num_context), list[str]()
    learn(
        lambda request: completion_of(completer.answer(request)),
        completer.memory,
        earlier,
        SamplingParams(),
        20,
        said.append,
    )
    return completer, said


def test_earlier_questions_are_learned_and_nothing_after_them() -> None:
    completer, said = learned(question("ab"), question("b c"))
    completion_of(completer.answer(CompletionRequest((Message("user", "c"),), max_tokens=4)))
    assert [request.prompt for request in completer.memory.learned] == [
        (Message("user", "ab"),),
        (Message("user", "b c"),),
    ]
    assert said == ["learning 1 of 2: a ab", "learning 2 of 2: a b c"]
    assert completer.memory.num_flushed == 1


def test_every_turn_is_learned_with_the_answers_before_it() -> None:
    first, second = learned(question("ab", "c"))[0].memory.learned
    assert isinstance(second.prompt, tuple) and len(second.prompt) == 3
    assert second.prompt[0] == Message("user", "ab")
    assert first.prompt == (Message("user", "ab"),)
    assert (second.prompt[1].role, second.prompt[2]) == ("assistant", Message("user", "c"))


def test_a_question_too_long_to_learn_from_is_left_out() -> None:
    completer, _ = learned(question("ab"), question("ab " * 50), num_context=40)
    assert len(completer.memory.learned) == 1


# -- plans ------------------------------------------------------------------------------------


def test_what_is_asked_by_default() -> None:
    again = warm_plan("again", None, (), None, None)
    assert again.earlier == again.questions == cold_questions("mixed", (), None)
    unseen = warm_plan("unseen", "edits", (), 3, None)
    assert len(unseen.earlier) == 200 == len({other.turns for other in unseen.earlier})
    assert unseen.questions == cold_questions("edits", (), None)[:3]


def test_a_week_has_seven_days_of_one_user() -> None:
    plan = warm_plan("week", None, (), None, None)
    assert [step.does for step in plan.steps] == ["measure", *["learn", "measure"] * 6]
    days = [step.questions for step in plan.steps if step.does == "measure"]
    assert all(6 <= len(day) <= 8 for day in days)
    assert [{question.category for question in day} for day in days] == [
        {f"day {number}"} for number in range(1, 8)
    ]
    assert [step.questions for step in plan.steps if step.does == "learn"] == days[:-1]
    for project in ("Booking", "Sunny Slope", "second-hand bookshop"):
        assert all(any(project in question.turns[0] for question in day) for day in days)


def test_days_that_are_not_measured_are_learned_from_all_the_same() -> None:
    plan = warm_plan("week", None, ("day 2", "day 4"), 1, None)
    assert [(step.does, [question.id for question in step.questions]) for step in plan.steps] == [
        ("learn", ["day1-1"]),
        ("measure", ["day2-1"]),
        ("learn", ["day2-1"]),
        ("learn", ["day3-1"]),
        ("measure", ["day4-1"]),
    ]


def test_forty_pairs_are_two_prompts_on_one_matter() -> None:
    plan = warm_plan("rewritten", None, (), None, None)
    assert len(plan.earlier) == len(plan.questions) == 40
    for first, second in zip(plan.earlier, plan.questions, strict=True):
        assert first.category == second.category
        assert first.id == f"{second.id} first"
        assert first.turns != second.turns
    kinds = Counter(second.category for second in plan.questions)
    assert kinds == dict.fromkeys(("code", "summary", "letter", "config"), 10)


def test_only_the_firsts_of_chosen_pairs_are_asked() -> None:
    plan = warm_plan("rewritten", None, ("letter", "config"), 2, None)
    assert len(plan.questions) == 4
    assert [first.id for first in plan.earlier] == [f"{q.id} first" for q in plan.questions]


def test_others_are_for_the_unseen_only() -> None:
    with pytest.raises(UsageError, match="--others"):
        warm_plan("again", None, (), None, "edits")
    assert len(warm_plan("unseen", None, (), None, "edits").earlier) == 26
