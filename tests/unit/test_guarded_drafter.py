"""A drafter that fails is left out from then on, with one line, and the answers go on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from fakes import (
    FakeDrafter,
    FakeSampler,
    FakeSession,
    FakeTarget,
    certain,
    collect,
    joined,
    judged,
    make_engine,
)

from edgespec.engine.decoding import Limits
from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.passes import Kept, Proposal
from edgespec.planning.guarded import GuardedDrafter
from edgespec.protocols import FREE, Drafter, Matcher, Quote
from edgespec.types import EncodedPrompt

PROMPT = EncodedPrompt((1, 2, 3))


class Failing(FakeDrafter):
    """Raises `error` at the n-th call of `method`; a proposal fails after its first guess."""

    def __init__(self, method: str, count: int, error: BaseException) -> None:
        super().__init__(lambda _text: certain(itertools.repeat(1)), cost_ms=0.5)
        self.num_calls = 0
        self._failure = method, count, error

    def called(self, method: str) -> None:
        wanted, count, error = self._failure
        self.num_calls += method == wanted
        if method == wanted and self.num_calls == count:
            raise error

    def open(
        self, prompt: EncodedPrompt, said: Sequence[int] = (), _matcher: Matcher | None = None
    ) -> FakeSession:
        self.called("open")
        self.num_open += 1
        return FailingSession(self, [*prompt.tokens, *said])


class FailingSession(FakeSession):
    """The same for the methods of a session."""

    def __init__(self, drafter: Failing, text: list[int]) -> None:
        super().__init__(drafter, text)
        self._failing = drafter

    def propose(self, prefix: Sequence[int] = ()) -> Iterator[Proposal]:
        guesses = super().propose(prefix)
        yield next(guesses)
        self._failing.called("propose")
        yield from guesses

    def learn(self, kept: Kept) -> None:
        self._failing.called("learn")
        super().learn(kept)

    def close(self) -> None:
        self._failing.called("close")
        super().close()


def say(drafter: Drafter | None) -> list[int]:
    engine = make_engine(FakeTarget(num_context=64), drafter)
    return joined(collect(engine, [1, 2, 3], limits=Limits(40)))


@pytest.mark.parametrize("method", ["open", "propose", "learn", "close"])
@pytest.mark.parametrize(
    "error", [NativeLibraryError("no", "way"), ValueError("bad"), MemoryError("full")]
)
def test_the_answer_goes_on(method: str, error: Exception) -> None:
    plain = say(None)
    lines: list[str] = []
    count = 1 if method in ("open", "close") else 3
    guarded = GuardedDrafter(Failing(method, count, error), lines.append)
    assert say(guarded) == plain
    assert guarded.has_failed
    assert len(lines) == 1
    assert lines[0].startswith("the drafter fake failed and is left out")
    assert str(error) in lines[0]


def test_after_a_failure_it_is_not_asked_again() -> None:
    """Neither by other answers that are open, nor by later ones."""
    drafter = Failing("learn", 2, ValueError("bad"))
    guarded = GuardedDrafter(drafter, lambda _line: None)
    engine = make_engine(FakeTarget(num_context=160, num_slots=2, max_rows=6), guarded)
    decodings = [engine.open(PROMPT, FakeSampler(), Limits(20)) for _ in range(2)]
    while running := [each for each in decodings if not each.is_over]:
        engine.step(running)
    for decoding in decodings:
        engine.close(decoding)
    assert guarded.has_failed
    pulled = drafter.num_pulled
    say(guarded)
    assert drafter.num_pulled == pulled
    session = guarded.open(PROMPT)
    assert (guarded.name, session.quote, session.bridge_ms) == ("fake", FREE, 0.0)


@pytest.mark.parametrize("method", ["open", "propose", "learn"])
def test_a_stopped_answer_is_no_failure(method: str) -> None:
    guarded = GuardedDrafter(Failing(method, 1, Cancelled()), pytest.fail)
    with pytest.raises(Cancelled):
        say(guarded)
    assert not guarded.has_failed


def test_what_works_is_passed_on() -> None:
    drafter = FakeDrafter(lambda _text: certain([5, 6]))
    drafter.quote = Quote(1.5, 7.0, 0.8, 1.3)
    guarded = GuardedDrafter(drafter, pytest.fail)
    session = guarded.open(PROMPT, (4,))
    assert session.quote == drafter.quote
    assert [guess.token for guess in session.propose()] == [5, 6]
    session.learn(judged(certain([5, 6]), [5], "fake"))
    assert drafter.text == [1, 2, 3, 4, 5]
    assert len(drafter.learned) == 1
    session.close()
    assert drafter.num_open == 0
