"""The model drafter reads what was said, guesses, and goes on; the model is a pseudo-model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from fakes import FakeClock, told
from hypothesis import example, given
from hypothesis import strategies as st
from pseudo_model import (
    NOTHING,
    NUM_PROMPT,
    PAIRS,
    TOKENIZERS,
    PseudoModel,
    chatter,
    drafter_of,
    guesses,
    session_of,
)

from edgespec.drafters.model import NUM_SINKS, WINDOW, ModelDrafter, ModelParts, ModelSession
from edgespec.errors import NativeLibraryError
from edgespec.protocols import FREE
from edgespec.types import EncodedPrompt, Prompt
from edgespec.vocab.reader import DrafterReader

each_pair = pytest.mark.parametrize(("target", "drafter"), PAIRS)


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
    session = session_of(target, drafter, model)
    said: list[int] = []
    for kept, num_asked, prefix in steps:
        said += kept
        session.learn(told(kept))
        proposed = session.propose(prefix)
        if num_asked and next(proposed, None) is not None:
            expected = read_at_once(target, drafter, [*said, *prefix])
            assert model.cells[: len(expected)] == expected
            list(itertools.islice(proposed, num_asked - 1))


@dataclass
class Following:
    """A session, and what was said in its answer."""

    session: ModelSession
    said: list[int] = field(default_factory=list)


@each_pair
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.booleans(), STEP), max_size=15),
    num_models=st.integers(1, 3),
)
def test_each_cache_follows_its_answer_in_turns(
    target: str,
    drafter: str,
    steps: list[tuple[int, bool, tuple[list[int], int, list[int]]]],
    num_models: int,
) -> None:
    """Three answers, some of which end and begin anew; without a cache one is silent."""
    models = [PseudoModel(chatter(TOKENIZERS[drafter])) for _ in range(num_models)]
    strategy = drafter_of(target, drafter, *models)
    answers = [Following(strategy.open(NOTHING)) for _ in range(3)]
    for place, ends, (kept, num_asked, prefix) in steps:
        each = answers[place]
        if ends:
            each.session.close()
            each = answers[place] = Following(strategy.open(NOTHING, kept), list(kept))
        else:
            each.session.learn(told(kept))
            each.said += kept
        before = [list(model.cells) for model in models]
        proposed = guesses(each.session, num_asked, prefix)
        changed = [
            model for model, cells in zip(models, before, strict=True) if model.cells != cells
        ]
        assert len(changed) <= 1, "no other answer's cache is touched"
        if proposed:
            expected = read_at_once(target, drafter, [*each.said, *prefix])
            assert any(model.cells[: len(expected)] == expected for model in models)


def test_as_many_answers_are_followed_as_there_are_caches() -> None:
    models = [PseudoModel(chatter(TOKENIZERS["bpe"])) for _ in range(2)]
    strategy = drafter_of("bpe", "bpe", *models)
    first, second, third = (strategy.open(NOTHING) for _ in range(3))
    assert (guesses(first, 1) != [], guesses(second, 1) != [], guesses(third, 1)) == (
        True,
        True,
        [],
    )
    assert third.quote == FREE, "silence costs nothing"
    third.learn(told([60]))
    third.close()
    second.close()
    assert second.quote == FREE
    assert guesses(strategy.open(NOTHING), 1) != []


def test_a_guess_that_completes_no_token_reads_weights_as_well() -> None:
    letters = drafter_of("bpe", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"])))
    session = letters.open(NOTHING)
    assert session.quote.guess_bytes == 1000
    for _ in range(100):
        letters.costs.observe(0.002, 1, 0)
    assert session.quote.guess_bytes > 3000


def test_an_answer_takes_the_cache_that_holds_most_of_it() -> None:
    models = [PseudoModel(chatter(TOKENIZERS["bpe"])) for _ in range(2)]
    strategy = drafter_of("bpe", "bpe", *models)
    texts = [range(10, 60), range(100, 150)]
    for text in texts:
        strategy.open(NOTHING, text).close()
    both = [strategy.open(NOTHING, text) for text in texts]
    for session in both:
        guesses(session, 1)
        session.close()
    num_read = [model.num_read for model in models]
    again = [strategy.open(NOTHING, text) for text in reversed(texts)]
    for session in again:
        guesses(session, 1)
    assert [model.num_read - before for model, before in zip(models, num_read, strict=True)] == [
        1,
        1,
    ]


def test_other_models_guess_from_the_next_answer_on() -> None:
    before, after = (PseudoModel(chatter(TOKENIZERS["bpe"])) for _ in range(2))
    strategy = drafter_of("bpe", "bpe", before)
    guesses(strategy.open(NOTHING, range(10, 60)), 1)
    strategy.use([after])
    guesses(strategy.open(NOTHING, range(10, 60)), 1)
    assert before.num_read == after.num_read


@each_pair
def test_the_guesses_are_what_the_model_said(target: str, drafter: str) -> None:
    vocabulary = TOKENIZERS[drafter]
    model = PseudoModel(chatter(vocabulary))
    session = session_of(target, drafter, model)
    proposed = list(itertools.islice(session.propose(), 12))
    assert proposed
    text = b"".join(TOKENIZERS[target].piece(proposal.token) for proposal in proposed)
    guessed = b"".join(map(vocabulary.piece, model.cells[NUM_PROMPT:]))
    last = vocabulary.piece(model.guess()[0])
    assert (guessed + last).startswith(text)


def test_nothing_is_read_until_somebody_asks() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    session = session_of("spm", "bpe", model)
    for token in range(10, 60):
        session.propose()
        session.learn(told([token]))
    assert model.num_read == 0
    next(session.propose())
    assert model.num_read >= 50


def test_its_own_right_guesses_are_not_read_again() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    session = session_of("bpe", "bpe", model)
    proposed = guesses(session, 5)
    assert model.num_read == NUM_PROMPT + 4
    session.learn(told(proposed[:3]))
    next(session.propose())
    assert model.num_read == NUM_PROMPT + 4 + 1, "the last one tells what follows"
    session.learn(told([60]))
    next(session.propose())
    assert model.num_read == NUM_PROMPT + 5 + 1


@pytest.mark.parametrize("num_said", [WINDOW + 1, 3 * WINDOW])
def test_a_long_past_is_cut_off(num_said: int) -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    session = session_of("bpe", "bpe", model)
    said = [10 + index % 240 for index in range(num_said)]
    session.learn(told(said))
    next(session.propose())
    whole = [*range(4, 4 + NUM_PROMPT), *said]
    assert model.cells == whole[:NUM_SINKS] + whole[-WINDOW:]
    session.learn(told([77]))
    next(session.propose())
    assert model.cells == [*whole[:NUM_SINKS], *whole[-WINDOW:], 77], "what is read stays read"


class Prompts:
    """A drafter whose prompts are given as its own tokens, and what it has read."""

    def __init__(self) -> None:
        self.model = PseudoModel(chatter(TOKENIZERS["bpe"]))
        self._next: list[int] = []
        parts = ModelParts(
            "pseudo",
            [self.model],
            (TOKENIZERS["bpe"], TOKENIZERS["bpe"]),
            lambda _prompt: self._next,
            guess_ms=2.0,
            clock=FakeClock(),
        )
        self._strategy = ModelDrafter(parts)

    def read(self, prompt: list[int]) -> list[int]:
        """The cells with which it guesses what follows `prompt`."""
        self._next = prompt
        session = self._strategy.open(NOTHING)
        next(session.propose())
        session.close()
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
    session = session_of("spm", "bpe", model)
    for index in range(600):
        session.learn(told([10 + index % 100]))
        assert list(itertools.islice(session.propose(), 8))
    assert len(model.cells) <= 256


def test_a_draft_ends_with_the_cache() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]), num_context=100)
    session = session_of("bpe", "bpe", model)
    assert len(list(session.propose())) == 100 - NUM_PROMPT + 1


def test_a_draft_ends_with_the_turn() -> None:
    model = PseudoModel(lambda cells: (2 if len(cells) > 6 else 75, 0.9))
    session = session_of("bpe-other", "bpe", model)
    assert [proposal.token for proposal in session.propose()][-1] == 2


@each_pair
def test_within_a_character_it_is_silent(target: str, drafter: str) -> None:
    session = session_of(target, drafter, PseudoModel(chatter(TOKENIZERS[drafter])))
    half = 4 + 0xC3
    if TOKENIZERS[target].fingerprint == TOKENIZERS[drafter].fingerprint:
        return  # ids go over as they are
    session.learn(told([half]))
    assert guesses(session, 1) == []
    session.learn(told([4 + 0xBC]))
    assert len(guesses(session, 1)) == 1
    assert guesses(session, 1, [half]) == []


def test_after_warming_up_everything_is_as_before() -> None:
    warm, cold = (
        drafter_of("spm", "bpe", PseudoModel(chatter(TOKENIZERS["bpe"]))) for _ in range(2)
    )
    warm.warm_up()
    sessions = [strategy.open(NOTHING, (70, 71)) for strategy in (warm, cold)]
    first, second = ([*itertools.islice(session.propose(), 6)] for session in sessions)
    assert first == second
    assert warm.ngrams.export() == cold.ngrams.export()


def test_after_a_failure_it_begins_anew() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    session = session_of("bpe", "bpe", model)
    session.learn(told([60, 61]))
    list(itertools.islice(session.propose(), 3))
    model.fails = True
    session.learn(told([62]))
    with pytest.raises(NativeLibraryError):
        next(session.propose())
    model.fails = False
    next(session.propose())
    assert model.cells == [4, 5, 6, 60, 61, 62]


def test_a_new_answer_shares_what_was_read() -> None:
    model = PseudoModel(chatter(TOKENIZERS["bpe"]))
    strategy = drafter_of("bpe", "bpe", model)
    for _ in range(2):
        session = strategy.open(NOTHING, range(10, 60))
        guesses(session, 1)
        session.close()
    assert model.num_read == NUM_PROMPT + 50 + 1


def test_a_prompt_of_which_only_tokens_are_known_is_their_text() -> None:
    rendered: list[object] = []

    def render(prompt: Prompt) -> list[int]:
        rendered.append(prompt)
        return [4]

    parts = ModelParts(
        "pseudo",
        [PseudoModel(chatter(TOKENIZERS["bpe"])) for _ in range(2)],
        (TOKENIZERS["spm"], TOKENIZERS["bpe"]),
        render,
        2.0,
        FakeClock(),
    )
    strategy = ModelDrafter(parts)
    tokens = tuple(TOKENIZERS["spm"].encode(b"is it").tokens)
    for prompt in ("", "as text"):
        guesses(strategy.open(EncodedPrompt(tokens, prompt)), 1)
    assert rendered == ["is it", "as text"]
