"""An answer as a lesson: where the two vocabularies meet, and what each version would have said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.learning.online.correction import Correction, Floats
from edgespec.learning.online.examples import FLOOR, NO_ROW, Examples, candidates
from edgespec.learning.online.lesson import DirectMap, Distribution, Place, example
from edgespec.learning.online.reading import (
    MOST_TOKENS,
    NUM_SINKS,
    WINDOW,
    AnswerText,
    LessonReader,
    Reading,
    direct_map,
)
from edgespec.learning.online.student import noted
from edgespec.learning.online.version import Version
from edgespec.vocab.tokenizer import ByteTokenizer

TARGET, DRAFTER = (ByteTokenizer(TOYS[name]()) for name in ("bpe", "bpe-other"))
WIDTH = 8


class Scripted:
    """Implements `ScoringModel`: logits are a function of the token read, and it notes what is."""

    def __init__(self, num_rows: int) -> None:
        random = np.random.default_rng(4)
        self.states: Floats = random.normal(0, 1, (2000, WIDTH)).astype(np.float32)
        self.head: Floats = random.normal(0, 1, (num_rows, WIDTH)).astype(np.float32)
        self.read: list[int] = []

    def score(self, tokens: Sequence[int], first: int) -> Iterator[tuple[Floats, Floats]]:
        self.read = list(tokens)
        for token in tokens[first:]:
            yield self.head @ self.states[token], self.states[token]


def kept_rows(*left_out: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    rows = [token for token in range(DRAFTER.vocab.num_tokens) if token not in left_out]
    return np.array(rows, dtype=np.int32)


def said(text: bytes, prompt: Sequence[int] = (5, 6, 7), end: int | None = 2) -> AnswerText:
    tokens = [*TARGET.encode(text).tokens, *([] if end is None else [end])]
    told = []
    for token in tokens:
        ids = np.array([token, 9, 10], dtype=np.int32)
        told.append(Distribution(ids, np.log(np.array([0.7, 0.2, 0.1], dtype=np.float32))))
    return AnswerText(tuple(prompt), tuple(tokens), tuple(told))


def read_with(
    given: AnswerText, versions: Sequence[Version] = (), *left_out: int
) -> tuple[Reading, Scripted]:
    kept = kept_rows(*left_out)
    model = Scripted(len(kept))
    reading = LessonReader(model, (TARGET, DRAFTER), kept).read(
        given, versions or [Version.none(WIDTH)]
    )
    assert reading is not None
    return reading, model


def test_an_answer_is_read_in_the_drafters_tokens() -> None:
    text = b"the tokenizer is lower"
    reading, model = read_with(said(text))
    tokens = DRAFTER.encode(text).tokens
    assert model.read == [5, 6, 7, *tokens]
    rows = [int(row[0]) for row in reading.examples.rows]
    assert rows == [*tokens, DRAFTER.specials.end_of_turn]
    assert (reading.examples.truth == 0).all()


def test_distributions_teach_where_both_write_the_same_token() -> None:
    text = b"the tokenizer is lower"
    reading, _ = read_with(said(text))
    starts = {0, *TARGET.encode(text).ends}
    target = dict(zip([0, *TARGET.encode(text).ends], TARGET.encode(text).tokens, strict=False))
    encoded = DRAFTER.encode(text)
    for place, (start, token) in enumerate(
        zip([0, *encoded.ends[:-1]], encoded.tokens, strict=True)
    ):
        same = start in starts and TARGET.piece(target[start]) == DRAFTER.piece(token)
        assert reading.examples.is_direct[place] == same
        told = reading.examples.target_logprobs[place]
        assert np.isnan(told).all() != same
        if same:
            assert told[0] == pytest.approx(np.log(0.7))
            assert np.nanmin(told) in (pytest.approx(FLOOR), pytest.approx(np.log(0.1)))
    assert reading.examples.is_direct.any()
    assert not reading.examples.is_direct.all()


def test_hits_are_of_places_where_a_draft_may_begin() -> None:
    text = b"the lowest token is the tokenizer"
    starts = [0, *TARGET.encode(text).ends]
    encoded = DRAFTER.encode(text)
    places = [place for place, start in enumerate([0, *encoded.ends]) if start in starts]
    said_rows = [*encoded.tokens, int(DRAFTER.specials.end_of_turn or 0)]
    surely = [sure_of(row) for row in sorted(set(said_rows))]
    reading, _ = read_with(said(text), surely)
    for version, row in zip(reading.hits, sorted(set(said_rows)), strict=True):
        assert version.tolist() == [said_rows[place] == row for place in places]


def sure_of(row: int) -> Version:
    """A version that always says one token."""
    return Version(
        Correction(
            np.array([row], dtype=np.int32),
            np.zeros((0, WIDTH), dtype=np.float32),
            np.zeros((1, 0), dtype=np.float32),
            np.full(1, 1e6, dtype=np.float32),
        )
    )


def test_a_long_prompt_is_cut_to_a_window() -> None:
    prompt = list(range(10, 1000))
    _, model = read_with(said(b"the token", prompt))
    read = model.read[: NUM_SINKS + WINDOW]
    assert read == [*prompt[:NUM_SINKS], *prompt[-WINDOW:]]


def test_a_long_answer_is_cut() -> None:
    reading, model = read_with(said(b"the token " * 300))
    assert len(reading.examples) == MOST_TOKENS
    assert len(model.read) == 3 + MOST_TOKENS - 1


def test_without_a_prompt_the_first_token_is_given() -> None:
    reading, model = read_with(said(b"the token is", ()))
    tokens = DRAFTER.encode(b"the token is").tokens
    assert model.read == tokens
    assert len(reading.examples) == len(tokens)  # the end of the turn for the first token


def test_tokens_that_were_trimmed_away_teach_nothing_of_themselves() -> None:
    text = b"the token is"
    gone = DRAFTER.encode(text).tokens[0]
    reading, _ = read_with(said(text), (), gone)
    assert reading.examples.truth[0] == NO_ROW
    assert not reading.examples.is_direct[0]
    assert not reading.hits[0][0]


@pytest.mark.parametrize("nothing", [AnswerText((5,), (), ()), AnswerText((), (), ())])
def test_nothing_said_is_nothing_learned(nothing: AnswerText) -> None:
    kept = kept_rows()
    reader = LessonReader(Scripted(len(kept)), (TARGET, DRAFTER), kept)
    assert reader.read(nothing, [Version.none(WIDTH)]) is None


@given(st.text(max_size=60), st.sampled_from(sorted(TOYS)), st.sampled_from(sorted(TOYS)))
def test_any_text_can_be_read(text: str, target: str, drafter: str) -> None:
    pair = ByteTokenizer(TOYS[target]()), ByteTokenizer(TOYS[drafter]())
    kept = np.arange(4, pair[1].vocab.num_tokens, 2, dtype=np.int32)
    tokens = pair[0].encode(text.encode()).tokens
    reading = LessonReader(Scripted(len(kept)), pair, kept).read(
        AnswerText((5, 6), tuple(tokens), ()), [Version.none(WIDTH)]
    )
    if reading is not None:
        assert not reading.examples.is_direct.any()  # nothing was told
        assert reading.hits.shape[1] <= len(reading.examples)


def test_direct_tokens_have_the_same_bytes() -> None:
    kept = kept_rows()
    direct = direct_map(TARGET, DRAFTER, kept)
    for row, token in enumerate(direct.token_of):
        if token >= 0 and DRAFTER.piece(int(kept[row])):
            assert TARGET.piece(int(token)) == DRAFTER.piece(int(kept[row]))
    end = DRAFTER.specials.end_of_turn
    assert direct.token_of[end] == TARGET.specials.end_of_turn
    token = TARGET.encode(b"the").tokens[0]
    assert DRAFTER.piece(int(kept[direct.row_of[token]])) == TARGET.piece(token)


def test_candidates_are_those_wanted_and_the_likeliest() -> None:
    logits = np.arange(100, dtype=np.float32)
    rows = candidates(logits, np.array([3, 98], dtype=np.int32), 6)
    assert rows.tolist() == [3, 98, 99, 97, 96, 95]
    assert candidates(logits, np.arange(9, dtype=np.int32), 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_rest_is_all_other_mass() -> None:
    logits = np.random.default_rng(1).normal(0, 2, 300).astype(np.float32)
    direct = DirectMap.of(np.arange(300, dtype=np.int32), 300)
    one = example(Place(7), logits, np.ones(WIDTH, np.float32), direct, 10)
    mass = np.exp(one.logits[0]).sum() + np.exp(one.rest[0])
    assert mass == pytest.approx(np.exp(logits - logits.max()).sum(), rel=1e-5)
    assert len(set(one.rows[0].tolist())) == 10


def test_what_is_noted_of_the_target_is_its_likeliest_tokens() -> None:
    logits = np.random.default_rng(2).normal(0, 4, 5000).astype(np.float32)
    found = noted(logits)
    order = np.argsort(-logits)
    assert found.ids.tolist() == order[: len(found.ids)].tolist()
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(np.exp(found.logprobs), probabilities[found.ids], rtol=0.2)
    assert np.exp(found.logprobs).sum() == pytest.approx(1.0, abs=1e-4)


def test_examples_are_joined_and_taken_in_order() -> None:
    whole, _ = read_with(said(b"the tokenizer is lower"))
    examples = whole.examples
    parts = [examples.take(slice(0, 2)), examples.take(slice(2, None))]
    joined = Examples.joined(parts)
    np.testing.assert_array_equal(joined.rows, examples.rows)
    np.testing.assert_array_equal(joined.hidden, examples.hidden)
    assert len(joined) == len(examples)
