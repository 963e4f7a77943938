"""What the model drafter quotes and estimates, and how it learns both."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from fakes import FakeClock, judged, told
from pseudo_model import (
    NOTHING,
    PAIRS,
    TOKENIZERS,
    PseudoModel,
    chatter,
    drafter_of,
    guesses,
    session_of,
)

from edgespec.drafters.model import (
    EXPECTED,
    WINDOW,
    ModelDrafter,
    evidence_kind,
    new_calibration,
)
from edgespec.types import EncodedPrompt, Message, Prompt


def test_estimates_follow_what_is_kept() -> None:
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    session = strategy.open(NOTHING)
    first = next(session.propose())
    assert 0.7 < first.acceptance < 0.9, "the prior believes the model a little less than it does"
    for _ in range(100):
        proposals = list(itertools.islice(session.propose(), 2))
        session.learn(judged(proposals, [proposals[0].token, 3], "pseudo"))
    first, second = itertools.islice(session.propose(), 2)
    assert first.acceptance > 0.97
    assert second.acceptance < 0.1


def start_ms(strategy: ModelDrafter, tokens: Iterable[int]) -> float:
    """What reading a prompt of the target's tokens is to take."""
    session = strategy.open(EncodedPrompt(tuple(tokens)))
    quote = session.quote
    session.close()
    return quote.start_ms


def test_what_must_be_read_first_is_told_beforehand() -> None:
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    assert start_ms(strategy, range(10, 50)) > start_ms(strategy, range(10, 30)) > 0
    half = range(10, 10 + WINDOW // 2)
    session = strategy.open(EncodedPrompt(tuple(half)))
    guesses(session, 1)
    assert session.quote.start_ms == 0
    session.learn(told([10]))
    assert session.quote.start_ms == 0, "one more goes in with the next guess"
    session.learn(told(range(10, 20)))
    after_ten = session.quote.start_ms
    assert after_ten > 0
    session.close()
    following = start_ms(strategy, [*half, *range(10, 21)])
    assert following == pytest.approx(after_ten, rel=0.2), "it goes on from the last one"
    session = strategy.open(EncodedPrompt((99,)))
    session.learn(told([10] * WINDOW * 5))
    most = session.quote.start_ms
    session.learn(told([10] * WINDOW))
    assert session.quote.start_ms == most, "only the end of a long past is read"


def fertility(target: str, drafter: str, prompt: Prompt) -> float:
    model = PseudoModel(chatter(TOKENIZERS[drafter]))
    session = drafter_of(target, drafter, model).open(EncodedPrompt((10, 11), prompt))
    return session.quote.fertility


def test_fertility_tells_how_many_tokens_a_text_takes() -> None:
    known = "over the low tokenizer " * 20
    assert fertility("bpe", "bpe", known) == 1.0, "the same vocabulary"
    for target, drafter in PAIRS:
        sizes = [len(TOKENIZERS[name].encode(known.encode()).tokens) for name in (target, drafter)]
        found = fertility(target, drafter, (Message("system", "龍" * 50), Message("user", known)))
        ratio = sizes[1] / sizes[0]
        assert min(ratio, 1.0) <= found <= max(ratio, 1.0)
        assert found == pytest.approx(ratio, rel=0.5)


@pytest.mark.parametrize("prompt", ["", (), (Message("user", ""),), "\ud800", "x" * 10**5])
def test_any_prompt_has_a_fertility(prompt: Prompt) -> None:
    assert 0.1 < fertility("bpe", "spm", prompt) < 10


def test_what_reading_costs_is_measured() -> None:
    clock = FakeClock(tick=0.0)
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    read = model.read

    def slowly(tokens: Sequence[int]) -> None:
        clock.pass_by(0.001 * len(tokens) + 0.002)
        read(tokens)

    model.read = slowly  # type: ignore[method-assign]
    strategy = drafter_of("bpe", "bpe", model, clock=clock)
    for number in range(12):
        session = strategy.open(NOTHING, [10 + number] * 101)
        guesses(session, 1)
        session.close()
    assert start_ms(strategy, [10] * 101) == pytest.approx(100.0, rel=0.1)


def slow_chatter(clock: FakeClock) -> PseudoModel:
    """Takes 3 ms a guess, unless `clock` ticks by itself."""
    script = chatter(TOKENIZERS["bpe"])

    def slowly(cells: Sequence[int]) -> tuple[int, float]:
        clock.pass_by(0.003)
        return script(cells)

    return PseudoModel(slowly)


def test_the_cost_of_a_proposal_is_measured() -> None:
    clock = FakeClock(tick=0.0)
    session = session_of("bpe", "bpe", slow_chatter(clock), clock)
    session.learn(told([60] * 100))
    guesses(session, 1)
    assert session.quote.guess_ms == 2.0, "reading a hundred tokens says nothing of one"
    for _ in range(20):
        guesses(session, 8)
    assert session.quote.guess_ms == pytest.approx(3.0, rel=0.01)
    clock._tick = 10.0
    guesses(session, 1)
    assert session.quote.guess_ms < 3.2, "one that was interrupted is hardly believed"


def test_guesses_that_complete_no_token_cost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that waits at every other token of the drafter."""
    clock = FakeClock(tick=0.0)
    session = session_of("bpe-other", "bpe", slow_chatter(clock), clock)
    translator, is_waiting = session._translator, itertools.cycle((True, False))
    push = translator.push
    monkeypatch.setattr(
        translator, "push", lambda *guess: () if next(is_waiting) else push(*guess)[:1]
    )
    for _ in range(60):
        guesses(session, 1)
    assert session.quote.guess_ms == pytest.approx(6.0, rel=0.1)


def test_what_the_bridge_takes_is_told() -> None:
    """The clock ticks once a look: twice for what is read, twice for each guess."""
    session = session_of("spm", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    session.learn(told([70, 71]))
    guesses(session, 3)
    assert session.bridge_ms > 2.5
    guesses(session, 1)
    assert session.bridge_ms == pytest.approx(2.0), "that of the last that was asked for"


def test_every_kind_of_evidence_has_a_prior_in_order() -> None:
    calibration = new_calibration()
    for place in range(5):
        kinds = [evidence_kind(probability / 100, place) for probability in range(101)]
        assert kinds == sorted(kinds)
        for probability, kind in enumerate(kinds):
            assert calibration.estimate(kind) == pytest.approx(probability / 100, abs=0.06)
    assert {evidence_kind(0.5, place) for place in range(9)} == {
        evidence_kind(0.5, place) for place in range(3)
    }
    assert evidence_kind(1.0, 2) == calibration.num_kinds - 1
    session = session_of("bpe", "spm", PseudoModel(lambda _cells: (4, 1.0)))
    assert session.quote.expected == pytest.approx(EXPECTED)
