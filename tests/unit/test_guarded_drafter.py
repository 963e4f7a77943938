"""A drafter that fails is left out from then on, with one line, and the answer goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from fakes import FakeDrafter, FakeTarget, certain, collect, joined, make_engine

from edgespec.engine.decoding import Limits
from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.passes import Proposal
from edgespec.planning.guarded import GuardedDrafter
from edgespec.protocols import Drafter

METHODS = ("begin", "propose", "learn", "extend")


class Failing(FakeDrafter):
    """Raises `error` at the n-th call of `method`; a proposal fails after its first guess."""

    def __init__(self, method: str, count: int, error: BaseException) -> None:
        super().__init__(lambda _text: certain(itertools.repeat(1)), cost_ms=0.5)
        self.num_calls = 0
        self._failure = method, count, error

    def _called(self, method: str) -> None:
        wanted, count, error = self._failure
        self.num_calls += method == wanted
        if method == wanted and self.num_calls == count:
            raise error

    def begin(self, prompt: Sequence[int]) -> None:
        self._called("begin")
        super().begin(prompt)

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        guesses = super().propose(prefix)
        yield next(guesses)
        self._called("propose")
        yield from guesses

    def learn(self, proposals: Sequence[Proposal], kept: Sequence[int]) -> None:
        self._called("learn")

    def extend(self, tokens: Sequence[int]) -> None:
        self._called("extend")
        super().extend(tokens)


def say(drafter: Drafter | None) -> list[int]:
    engine = make_engine(FakeTarget(num_context=64), drafter)
    return joined(collect(engine, [1, 2, 3], limits=Limits(40)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error", [NativeLibraryError("no", "way"), ValueError("bad"), MemoryError("full")]
)
def test_the_answer_goes_on(method: str, error: Exception) -> None:
    plain = say(None)
    lines: list[str] = []
    count = 1 if method == "begin" else 3
    guarded = GuardedDrafter(Failing(method, count, error), lines.append)
    assert say(guarded) == plain
    assert guarded.has_failed
    assert len(lines) == 1
    assert lines[0].startswith("the drafter fake failed and is left out")
    assert str(error) in lines[0]


def test_after_a_failure_it_is_not_asked_again() -> None:
    drafter = Failing("extend", 1, ValueError("bad"))
    guarded = GuardedDrafter(drafter, lambda _line: None)
    say(guarded)
    pulled = drafter.num_pulled
    say(guarded)
    assert drafter.num_pulled == pulled
    assert (guarded.cost_ms, guarded.start_ms, guarded.name) == (0.0, 0.0, "fake")


@pytest.mark.parametrize("method", ["propose", "extend"])
def test_a_stopped_answer_is_no_failure(method: str) -> None:
    guarded = GuardedDrafter(Failing(method, 2, Cancelled()), pytest.fail)
    with pytest.raises(Cancelled):
        say(guarded)
    assert not guarded.has_failed


def test_what_works_is_passed_on() -> None:
    drafter = FakeDrafter(lambda _text: certain([5, 6]), cost_ms=1.5)
    guarded = GuardedDrafter(drafter, pytest.fail)
    guarded.begin([1])
    assert [guess.token for guess in guarded.propose()] == [5, 6]
    guarded.learn(list(certain([5, 6])), [5])
    guarded.extend([5])
    assert drafter.text == [1, 5]
    assert len(drafter.learned) == 1
    drafter.start_ms, drafter.fertility = 7.0, 1.3
    assert (guarded.cost_ms, guarded.start_ms, guarded.outlook) == (1.5, 7.0, 1.0)
    assert guarded.fertility == 1.3
