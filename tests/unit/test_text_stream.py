"""Token bytes to text: the cuts between tokens must not show."""

from __future__ import annotations

import doctest
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgespec.engine import text_stream
from edgespec.engine.text_stream import TextStream

# Bytes that are text, are broken, or end in the middle of a character.
PARTS = st.sampled_from(
    [
        b"a",
        b"b",
        b"ab",
        b" ",
        "é".encode(),
        "河".encode(),
        "🙂".encode(),
        b"\xc3",
        b"\xf0\x9f",
        b"\xff",
    ]
)
DATA = st.binary(max_size=30) | st.lists(PARTS, max_size=15).map(b"".join)
STOPS = st.lists(st.text("ab é\ufffd", min_size=1, max_size=4), max_size=3)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


def streamed(pieces: list[bytes], stops: list[str]) -> tuple[str, bool]:
    stream = TextStream(stops)
    text = "".join([stream.push(piece) for piece in pieces])
    return text + stream.finish(), stream.stopped


def up_to_first_stop(text: str, stops: list[str]) -> str:
    """Reads character by character until some stop string is complete."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@settings(max_examples=300)
@given(DATA, st.lists(st.integers(0, 30), max_size=8))
@example("né🙂".encode(), [1, 2, 3, 4, 5])
def test_any_cut_gives_the_text_of_the_whole(data: bytes, places: list[int]) -> None:
    assert streamed(cut(data, places), []) == (data.decode("utf-8", "replace"), False)


@settings(max_examples=500)
@given(DATA, st.lists(st.integers(0, 30), max_size=8), STOPS)
@example(b"abcd", [], ["abcd", "bc"])
@example(b"a\xc3", [], ["a\ufffd"])
def test_any_cut_ends_at_the_same_stop_string(
    data: bytes, places: list[int], stops: list[str]
) -> None:
    text, stopped = streamed(cut(data, places), stops)
    whole = data.decode("utf-8", "replace")
    assert text == up_to_first_stop(whole, stops)
    assert stopped == any(stop in whole for stop in stops)


@given(DATA, st.lists(st.integers(0, 30), max_size=8), STOPS)
def test_nothing_shown_is_ever_taken_back(data: bytes, places: list[int], stops: list[str]) -> None:
    """What has been shown after each token is the beginning of the final text."""
    pieces = cut(data, places)
    final, _ = streamed(pieces, stops)
    stream, shown = TextStream(stops), ""
    for piece in pieces:
        shown += stream.push(piece)
        assert final.startswith(shown)
        assert not any(stop in shown for stop in stops)


def test_no_more_is_held_back_than_may_become_a_stop_string() -> None:
    stream = TextStream(["stop now", "\n\n"])
    assert stream.push(b"do not st") == "do not "
    assert stream.push(b"umble\n") == "stumble"
    assert stream.push(b"x") == "\nx"
    assert stream.push(b"stop") == ""
    assert stream.push(b" no") == ""
    assert stream.push(b"!") == "stop no!"


def test_the_beginning_of_a_stop_string_is_shown_when_the_answer_ends() -> None:
    stream = TextStream(["END"])
    assert stream.push(b"the EN") == "the "
    assert stream.finish() == "EN"
    assert not stream.stopped


def test_a_character_split_over_tokens_is_shown_whole() -> None:
    stream = TextStream()
    data = "🙂".encode()
    assert [stream.push(data[index : index + 1]) for index in range(4)] == ["", "", "", "🙂"]


def test_a_broken_character_is_replaced_as_soon_as_it_is_known_to_be_broken() -> None:
    stream = TextStream()
    assert stream.push(b"\xf0\x9f") == ""
    assert stream.push(b"a") == "\ufffda"
    assert stream.push(b"\xc3") == ""
    assert stream.finish() == "\ufffd"


def test_the_stop_string_that_is_complete_first_ends_the_text() -> None:
    assert streamed([b"x one two"], ["two", "one"]) == ("x ", True)
    assert streamed([b"abcd"], ["abcd", "bc"]) == ("a", True)
    assert streamed([b"abc"], ["c", "abc", "bc"]) == ("", True)


def test_nothing_comes_after_a_stop_string() -> None:
    stream = TextStream(["."])
    assert stream.push(b"a. b") == "a"
    assert stream.stopped
    assert stream.push(b" c") == ""
    assert stream.finish() == ""


@pytest.mark.parametrize("stops", [[], [""], ["", ""]])
def test_empty_stop_strings_stop_nothing(stops: list[str]) -> None:
    assert streamed([b"a", b"", b"b"], stops) == ("ab", False)


def test_the_example_in_the_text_holds() -> None:
    assert doctest.testmod(text_stream).failed == 0
