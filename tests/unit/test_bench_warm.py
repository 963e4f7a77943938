"""Warm runs over the real engine with a pseudo-model: what is asked, learned and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from fakes import FakeDrafter, FakeSampler, FakeTarget, TinyBridge, make_engine, oracle

from edgespec.bench.plan import cold_questions, warm_plan
from edgespec.bench.runner import Pair
from edgespec.bench.suite import Question
from edgespec.bench.warm import Step, Warm, WarmPlan, run_warm
from edgespec.engine.answer import EngineAnswer
from edgespec.engine.completer import EngineCompleter
from edgespec.errors import UsageError
from edgespec.passes import Kept, Proposal
from edgespec.types import (
    Completion,
    CompletionRequest,
    EncodedPrompt,
    Message,
    SamplingParams,
    ServedModel,
)

GREEDY = SamplingParams()


class Remembering:
    """Remembers answers while it learns, and knows the target's mind while it is used."""

    def __init__(self, target: FakeTarget) -> None:
        self.is_learning = False
        self.is_used = False
        self.num_flushed = 0
        self.learned: list[CompletionRequest] = []
        self._oracle = oracle(target)

    def open(self, request: CompletionRequest, _prompt: EncodedPrompt) -> Noted:
        return Noted(self, request)

    def flush(self) -> bool:
        self.num_flushed += 1
        return True

    def guess(self, text: Sequence[int]) -> Iterator[Proposal]:
        return self._oracle(text) if self.is_used and self.learned else iter(())


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
    """The real completer, which notes what it was asked and how the memory stood then."""

    def __init__(self, num_context: int = 400) -> None:
        target = FakeTarget(num_vocab=TinyBridge().num_vocab, num_context=num_context)
        self.memory = Remembering(target)
        self.asked: list[tuple[CompletionRequest, bool, bool]] = []
        model = ServedModel("fake", "", num_context, 0, "fake", "identical")
        engine = make_engine(target, FakeDrafter(self.memory.guess))
        super().__init__(engine, TinyBridge(), lambda _: FakeSampler(), model, self.memory)

    def answer(self, request: CompletionRequest) -> EngineAnswer:
        self.asked.append((request, self.memory.is_learning, self.memory.is_used))
        return super().answer(request)


def question(*turns: str) -> Question:
    return Question("-".join(turns), "a", turns)


def measured(
    completer: Asked, warm: Warm, earlier: Sequence[Question], questions: Sequence[Question]
) -> tuple[list[Pair], list[str]]:
    said: list[str] = []
    plan = WarmPlan(warm, (Step("learn", tuple(earlier)), Step("measure", tuple(questions))))
    pairs = list(run_warm(completer, completer.memory, plan, GREEDY, 20, said.append))
    return pairs, said


def test_earlier_questions_are_learned_and_measured_ones_are_not() -> None:
    completer = Asked()
    pairs, said = measured(completer, "again", [question("ab"), question("b c")], [question("ab")])
    assert [request.prompt for request in completer.memory.learned] == [
        (Message("user", "ab"),),
        (Message("user", "b c"),),
    ]
    assert said == ["learning 1 of 2: a ab", "learning 2 of 2: a b c"]
    assert completer.memory.num_flushed == 1
    assert len(pairs) == 1 and pairs[0].identical


def test_every_turn_is_learned_with_the_answers_before_it() -> None:
    completer = Asked()
    measured(completer, "again", [question("ab", "c")], [question("ab", "c")])
    first, second = completer.memory.learned
    assert isinstance(second.prompt, tuple) and len(second.prompt) == 3
    assert second.prompt[0] == Message("user", "ab") == first.prompt[0]
    assert (second.prompt[1].role, second.prompt[2]) == ("assistant", Message("user", "c"))


@pytest.mark.parametrize("warm", ["again", "rewritten"])
def test_what_is_remembered_is_compared_with_plain_decoding(warm: Warm) -> None:
    completer = Asked()
    [pair], _ = measured(completer, warm, [question("ab")], [question("ab")])
    assert pair.plain.proposed == 0
    assert pair.plain.passes == pair.plain.emitted
    assert pair.speculative.accepted > 0
    assert pair.speculative.passes < pair.plain.passes


def test_the_unseen_are_compared_with_the_same_drafters_without_memory() -> None:
    completer = Asked()
    [pair], _ = measured(completer, "unseen", [question("ab")], [question("b c")])
    assert pair.identical
    assert pair.plain.proposed == 0 < pair.speculative.proposed
    timed = [entry for entry in completer.asked if entry[0].prompt == (Message("user", "b c"),)][1:]
    assert [(request.speculate, learning, used) for request, learning, used in timed] == [
        (True, False, False),
        (True, False, True),
    ]


def test_a_question_too_long_to_learn_from_is_left_out() -> None:
    completer = Asked(num_context=40)
    long = question("ab " * 50)
    pairs, _ = measured(completer, "again", [question("ab"), long], [question("ab"), long])
    assert len(pairs) == 1
    assert len(completer.memory.learned) == 1


def test_days_are_measured_before_they_are_learned_from() -> None:
    completer = Asked()
    said: list[str] = []
    first, second = (question("ab"),), (question("b c"),)
    steps = (Step("measure", first), Step("learn", first), Step("measure", second))
    plan = WarmPlan("week", steps)
    pairs = run_warm(completer, completer.memory, plan, GREEDY, 20, said.append)
    new = next(pairs)
    assert (new.question, new.speculative.proposed, said) == (*first, 0, [])
    known = next(pairs)
    assert (known.question, said) == (*second, ["learning 1 of 1: a ab"])
    assert known.speculative.accepted > 0 == known.plain.proposed
    assert len(completer.memory.learned) == 1 and next(pairs, None) is None


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
