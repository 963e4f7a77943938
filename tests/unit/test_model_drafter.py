"""The model drafter reads what was said, guesses, and learns; the model is a pseudo-model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from itertools import product

import pytest
from fakes import FakeClock
from hypothesis import example, given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.drafters.model import (
    NUM_SINKS,
    PRIOR_OUTLOOK,
    WINDOW,
    ModelDrafter,
    evidence_kind,
    new_calibration,
)
from edgespec.errors import NativeLibraryError
from edgespec.passes import Proposal
from edgespec.types import Message, Prompt
from edgespec.vocab.ngrams import NgramCache
from edgespec.vocab.reader import DrafterReader
from edgespec.vocab.tokenizer import ByteTokenizer

TOKENIZERS = {name: ByteTokenizer(make()) for name, make in TOYS.items()}
PAIRS = list(product(TOKENIZERS, repeat=2))
SAID = "over the low tokenizer is lower; über 龍河 is lowering.\n\n"
NUM_PROMPT = 3

each_pair = pytest.mark.parametrize(("target", "drafter"), PAIRS)


class PseudoModel:
    """A `DraftModel` that keeps its cells, refuses what no KV cache could do, and says `script`.

    `script` gets the cells and gives token and probability; by default it goes on in `SAID`.
    """

    def __init__(
        self, script: Callable[[Sequence[int]], tuple[int, float]], num_context: int = 4096
    ) -> None:
        self.cells: list[int] = []
        self.num_context = num_context
        self.first_guesses: list[list[int]] = []
        self.num_read = 0
        self.fails = False
        self._script = script
        self._is_read = False

    def read(self, tokens: Sequence[int]) -> None:
        assert tokens
        if self.fails:
            self.cells = []
            raise NativeLibraryError("llama.cpp cannot compute", "")
        self.cells.extend(tokens)
        assert len(self.cells) <= self.num_context
        self.num_read += len(tokens)
        self._is_read = True

    def guess(self) -> tuple[int, float]:
        assert self._is_read, "a guess follows a token that was just read"
        return self._script(self.cells)

    def truncate(self, num_tokens: int) -> None:
        assert 0 <= num_tokens <= len(self.cells)
        self._is_read &= num_tokens == len(self.cells)
        del self.cells[num_tokens:]


def chatter(vocabulary: ByteTokenizer) -> Callable[[Sequence[int]], tuple[int, float]]:
    """Goes on in `SAID` by how much was read; no token of it is a control token."""
    tokens = vocabulary.encode(SAID.encode()).tokens
    return lambda cells: (tokens[len(cells) % len(tokens)], 0.9)


def drafter_of(
    target: str, drafter: str, model: PseudoModel, clock: FakeClock | None = None
) -> ModelDrafter:
    """A drafter whose prompt is always its own tokens 4 to 6."""
    return ModelDrafter(
        "pseudo",
        model,
        (TOKENIZERS[target], TOKENIZERS[drafter]),
        lambda _prompt: list(range(4, 4 + NUM_PROMPT)),
        NgramCache(),
        cost_ms=2.0,
        clock=clock or FakeClock(),
    )


def read_at_once(target: str, drafter: str, said: Sequence[int]) -> list[int]:
    """What a drafter would read that was told everything in one go."""
    reader = DrafterReader(TOKENIZERS[target], TOKENIZERS[drafter])
    reader.begin(range(4, 4 + NUM_PROMPT))
    reader.extend(said)
    return list(reader.tokens)


STEP = st.tuples(
    st.lists(st.integers(4, 280), max_size=5),  # what the target kept
    st.integers(0, 4),  # guesses that are asked for
    st.lists(st.integers(4, 280), max_size=3),  # the draft of another drafter before them
)


@each_pair
@given(steps=st.lists(STEP, max_size=8))
@example(steps=[([274], 1, []), ([], 1, [4])])  # the draft before it changes what was said
def test_it_goes_on_from_all_that_was_said(
    target: str, drafter: str, steps: list[tuple[list[int], int, list[int]]]
) -> None:
    model = PseudoModel(chatter(TOKENIZERS[drafter]))
    strategy = drafter_of(target, drafter, model)
    strategy.begin([])
    said: list[int] = []
    for kept, num_asked, prefix in steps:
        said += kept
        strategy.extend(kept)
        guesses = strategy.propose(prefix)
        if num_asked and next(guesses, None) is not None:
            expected = read_at_once(target, drafter, [*said, *prefix])
            assert model.cells[: len(expected)] == expected
            list(itertools.islice(guesses, num_asked - 1))


@each_pair
def test_the_guesses_are_what_the_model_said(target: str, drafter: str) -> None:
    vocabulary = TOKENIZERS[drafter]
    model = PseudoModel(chatter(vocabulary))
    strategy = drafter_of(target, drafter, model)
    strategy.begin([])
    proposed = list(itertools.islice(strategy.propose(), 12))
    assert proposed
    text = b"".join(TOKENIZERS[target].piece(proposal.token) for proposal in proposed)
    guessed = b"".join(map(vocabulary.piece, model.cells[NUM_PROMPT:]))
    last = vocabulary.piece(model.guess()[0])
    assert (guessed + last).startswith(text)


def test_nothing_is_read_until_somebody_asks() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("spm", "bpe", model)
    strategy.begin([])
    for token in range(10, 60):
        strategy.propose()
        strategy.extend([token])
    assert model.num_read == 0
    next(strategy.propose())
    assert model.num_read >= 50


def test_its_own_right_guesses_are_not_read_again() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("bpe", "bpe", model)
    strategy.begin([])
    guesses = [proposal.token for proposal in itertools.islice(strategy.propose(), 5)]
    assert model.num_read == NUM_PROMPT + 4
    strategy.extend(guesses[:3])
    next(strategy.propose())
    assert model.num_read == NUM_PROMPT + 4 + 1, "the last one tells what follows"
    strategy.extend([60])
    next(strategy.propose())
    assert model.num_read == NUM_PROMPT + 5 + 1


@pytest.mark.parametrize("num_said", [WINDOW + 1, 3 * WINDOW])
def test_a_long_past_is_cut_off(num_said: int) -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("bpe", "bpe", model)
    strategy.begin([])
    said = [10 + index % 240 for index in range(num_said)]
    strategy.extend(said)
    next(strategy.propose())
    whole = [*range(4, 4 + NUM_PROMPT), *said]
    assert model.cells == whole[:NUM_SINKS] + whole[-WINDOW:]
    strategy.extend([77])
    next(strategy.propose())
    assert model.cells == [*whole[:NUM_SINKS], *whole[-WINDOW:], 77], "what is read stays read"


class Prompts:
    """A drafter whose prompts are given as its own tokens, and what it has read."""

    def __init__(self) -> None:
        self.model = PseudoModel(chatter(TOKENIZERS["bpe"]))
        self._next: list[int] = []
        self._strategy = ModelDrafter(
            "pseudo",
            self.model,
            (TOKENIZERS["bpe"], TOKENIZERS["bpe"]),
            lambda _prompt: self._next,
            NgramCache(),
            cost_ms=2.0,
            clock=FakeClock(),
        )

    def read(self, prompt: list[int]) -> list[int]:
        """The cells with which it guesses what follows `prompt`."""
        self._next = prompt
        self._strategy.begin([])
        next(self._strategy.propose())
        return list(self.model.cells)


LONG = [10 + index % 240 for index in range(3 * WINDOW)]


@pytest.mark.parametrize("num_shared", [0, NUM_SINKS, 40])
def test_a_short_prompt_after_a_long_one_is_read_whole(num_shared: int) -> None:
    """Even if it begins alike, as chat templates do."""
    prompts = Prompts()
    assert prompts.read(LONG) == LONG[:NUM_SINKS] + LONG[-WINDOW:]
    short = [*LONG[:num_shared], *range(249, 149, -1)]
    assert prompts.read(short) == short
    assert prompts.read(short[:-20]) == short[:-20], "and so are those after it"


def test_a_long_conversation_that_goes_on_is_not_read_again() -> None:
    prompts = Prompts()
    cut = prompts.read(LONG)
    num_read = prompts.model.num_read
    more = [60, 61, 62, *range(70, 90)]
    assert prompts.read(LONG + more) == cut + more
    assert prompts.model.num_read == num_read + len(more)
    # An answer taken back, or rendered otherwise at its end.
    assert prompts.read([*LONG, *more[:-5], 99]) == [*cut, *more[:-5], 99]
    assert prompts.model.num_read == num_read + len(more) + 1


def test_another_long_conversation_is_cut_by_itself() -> None:
    prompts = Prompts()
    prompts.read(LONG)
    other = [250 - index % 230 for index in range(2 * WINDOW)]
    assert prompts.read(other) == other[:NUM_SINKS] + other[-WINDOW:]


def test_a_full_cache_is_begun_anew() -> None:
    """However long an answer gets, there is always room for a draft."""
    model = PseudoModel(chatter(TOKENIZERS["bpe"]), num_context=256)
    strategy = drafter_of("spm", "bpe", model)
    strategy.begin([])
    for index in range(600):
        strategy.extend([10 + index % 100])
        assert list(itertools.islice(strategy.propose(), 8))
    assert len(model.cells) <= 256


def test_a_draft_ends_with_the_cache() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]), num_context=100)
    strategy = drafter_of("bpe", "bpe", model)
    strategy.begin([])
    assert len(list(strategy.propose())) == 100 - NUM_PROMPT + 1


def test_a_draft_ends_with_the_turn() -> None:
    model = PseudoModel(lambda cells: (2 if len(cells) > 6 else 75, 0.9))
    strategy = drafter_of("bpe-other", "bpe", model)
    strategy.begin([])
    assert [proposal.token for proposal in strategy.propose()][-1] == 2


@each_pair
def test_within_a_character_it_is_silent(target: str, drafter: str) -> None:
    strategy = drafter_of(target, drafter, PseudoModel(chatter(TOKENIZERS[drafter])))
    strategy.begin([])
    half = 4 + 0xC3
    if TOKENIZERS[target].fingerprint == TOKENIZERS[drafter].fingerprint:
        return  # ids go over as they are
    strategy.extend([half])
    assert list(itertools.islice(strategy.propose(), 1)) == []
    strategy.extend([4 + 0xBC])
    assert len(list(itertools.islice(strategy.propose(), 1))) == 1
    assert list(itertools.islice(strategy.propose([half]), 1)) == []


def test_estimates_follow_what_is_kept() -> None:
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    strategy.begin([])
    first = next(strategy.propose())
    assert 0.7 < first.acceptance < 0.9, "the prior believes the model a little less than it does"
    for _ in range(100):
        proposals = list(itertools.islice(strategy.propose(), 2))
        strategy.learn(proposals, [proposals[0].token, 3])
        strategy.extend([9])
    first, second = itertools.islice(strategy.propose(), 2)
    assert first.acceptance > 0.97
    assert second.acceptance < 0.1
    assert strategy.outlook == pytest.approx(0.5, abs=0.1)


def test_what_must_be_read_first_is_told_beforehand() -> None:
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    strategy.begin(range(10, 50))
    forty = strategy.start_ms
    assert forty > 0
    strategy.begin(range(10, 30))
    assert strategy.start_ms < forty
    strategy.begin(range(10, 10 + WINDOW // 2))
    list(itertools.islice(strategy.propose(), 1))
    assert strategy.start_ms == 0
    strategy.extend([10])
    assert strategy.start_ms == 0, "one more goes in with the next guess"
    strategy.extend(range(10, 20))
    after_ten = strategy.start_ms
    assert after_ten > 0
    strategy.begin([*range(10, 10 + WINDOW // 2), *range(10, 21)])
    assert strategy.start_ms == pytest.approx(after_ten, rel=0.2), "it goes on from the last one"
    strategy.begin([99])
    strategy.extend([10] * WINDOW * 5)
    most = strategy.start_ms
    strategy.extend([10] * WINDOW)
    assert strategy.start_ms == most, "only the end of a long past is read"


def test_fertility_tells_how_many_tokens_a_text_takes() -> None:
    known = "over the low tokenizer " * 20
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    strategy.read_prompt(known)
    strategy.begin([10, 11])
    assert strategy.fertility == 1.0, "the same vocabulary"
    for target, drafter in PAIRS:
        sizes = [len(TOKENIZERS[name].encode(known.encode()).tokens) for name in (target, drafter)]
        strategy = drafter_of(target, drafter, PseudoModel(chatter(TOKENIZERS[drafter])))
        strategy.read_prompt((Message("system", "龍" * 50), Message("user", known)))
        strategy.begin([10, 11])
        ratio = sizes[1] / sizes[0]
        assert min(ratio, 1.0) <= strategy.fertility <= max(ratio, 1.0)
        assert strategy.fertility == pytest.approx(ratio, rel=0.5)


@pytest.mark.parametrize("prompt", ["", (), (Message("user", ""),), "\ud800", "x" * 10**5])
def test_any_prompt_has_a_fertility(prompt: Prompt) -> None:
    strategy = drafter_of("bpe", "spm", PseudoModel(chatter(TOKENIZERS["spm"])))
    strategy.read_prompt(prompt)
    strategy.begin([10])
    assert 0.1 < strategy.fertility < 10


def test_each_answer_has_the_fertility_of_its_own_prompt() -> None:
    found = []
    strategy = drafter_of("bpe", "spm", PseudoModel(chatter(TOKENIZERS["spm"])))
    for prompt in ("over the low tokenizer " * 20, "龍河 " * 40, "over the low tokenizer " * 20):
        strategy.read_prompt(prompt)
        strategy.begin([10])
        found.append(strategy.fertility)
    assert found[0] == found[2] != found[1]


def test_what_reading_costs_is_measured() -> None:
    clock = FakeClock(tick=0.0)
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    read = model.read

    def slowly(tokens: Sequence[int]) -> None:
        clock.pass_by(0.001 * len(tokens) + 0.002)
        read(tokens)

    model.read = slowly  # type: ignore[method-assign]
    strategy = drafter_of("bpe", "bpe", model, clock)
    for number in range(12):
        strategy.begin([])
        strategy.extend([10 + number] * 101)
        list(itertools.islice(strategy.propose(), 1))
    strategy.begin([])
    strategy.extend([10] * 101)
    assert strategy.start_ms == pytest.approx(100.0, rel=0.1)


def test_guesses_behind_a_wrong_one_are_not_judged() -> None:
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    proposals = [Proposal(9, 0.5, kind) for kind in range(4)]
    strategy.learn(proposals, [9, 8, 9, 9])
    assert strategy.calibration.counts.export()[:4] == [[1, 0], [0, 1], [0, 0], [0, 0]]
    strategy.learn(proposals, [9])
    assert strategy.calibration.counts.export()[:2] == [[2, 0], [0, 1]]


def test_the_cost_of_a_proposal_is_measured() -> None:
    clock = FakeClock(tick=0.003)
    strategy = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])), clock)
    strategy.begin([])
    strategy.extend([60] * 100)
    next(strategy.propose())
    assert strategy.cost_ms == 2.0, "reading a hundred tokens says nothing of one"
    for _ in range(20):
        list(itertools.islice(strategy.propose(), 8))
    assert strategy.cost_ms == pytest.approx(3.0, rel=0.01)
    clock._tick = 10.0
    next(strategy.propose())
    assert strategy.cost_ms < 3.2, "one that was interrupted is hardly believed"


def test_guesses_that_complete_no_token_cost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that waits at every other token of the drafter."""
    clock = FakeClock(tick=0.002)
    strategy = drafter_of("bpe-other", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])), clock)
    translator, is_waiting = strategy._translator, itertools.cycle((True, False))
    push = translator.push
    monkeypatch.setattr(
        translator, "push", lambda *guess: () if next(is_waiting) else push(*guess)[:1]
    )
    strategy.begin([])
    for _ in range(60):
        next(strategy.propose(), None)
    assert strategy.cost_ms == pytest.approx(4.0, rel=0.1)


def test_after_warming_up_everything_is_as_before() -> None:
    warm, cold = (
        drafter_of("spm", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"]))) for _ in range(2)
    )
    warm.warm_up()
    for strategy in (warm, cold):
        strategy.begin([])
        strategy.extend([70, 71])
    assert list(itertools.islice(warm.propose(), 6)) == list(itertools.islice(cold.propose(), 6))
    assert warm.ngrams.export() == cold.ngrams.export()


def test_after_a_failure_it_begins_anew() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("bpe", "bpe", model)
    strategy.begin([])
    strategy.extend([60, 61])
    list(itertools.islice(strategy.propose(), 3))
    model.fails = True
    strategy.extend([62])
    with pytest.raises(NativeLibraryError):
        next(strategy.propose())
    model.fails = False
    next(strategy.propose())
    assert model.cells == [4, 5, 6, 60, 61, 62]


def test_a_new_answer_shares_what_was_read() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("bpe", "bpe", model)
    for _ in range(2):
        strategy.begin([])
        strategy.extend(range(10, 60))
        next(strategy.propose())
    assert model.num_read == NUM_PROMPT + 50 + 1


def test_a_prompt_that_nobody_read_to_it_comes_from_the_target() -> None:
    told: list[object] = []

    def render(prompt: Prompt) -> list[int]:
        told.append(prompt)
        return [4]

    strategy = ModelDrafter(
        "pseudo",
        PseudoModel(chatter(TOKENIZERS["bpe"])),
        (TOKENIZERS["spm"], TOKENIZERS["bpe"]),
        render,
        NgramCache(),
        2.0,
        FakeClock(),
    )
    strategy.begin(TOKENIZERS["spm"].encode(b"is it").tokens)
    next(strategy.propose())
    strategy.read_prompt("as text")
    strategy.begin([5, 6])
    next(strategy.propose())
    assert told == ["is it", "as text"]


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
    assert drafter_of("bpe", "spm", PseudoModel(lambda _cells: (4, 1.0))).outlook == pytest.approx(
        PRIOR_OUTLOOK
    )
