"""Terminal input with pastes in it, against Textual's own parser."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual._xterm_parser import XTermParser
from textual.message import Message

from edgespec.tui import pasting
from edgespec.tui.pasting import PASTE_BEGINS, PASTE_ENDS, PasteParser

KEYS = ("a", "é", "\r", "\x1b[A", "\x1b[13;2u", "\x03", "[200~", "~", "\x1b[I")
TEXTS = ("", "one", "a\rb", "\x1b[200~", "\x1b[20", "\x1b", "\x1b[201", "a\x00b", "x" * 50)

streams = st.lists(st.tuples(st.just(False), st.sampled_from(KEYS))
                   | st.tuples(st.just(True), st.sampled_from(TEXTS)))  # fmt: skip


def seen(messages: list[Message]) -> list[tuple[str, str]]:
    return [
        (type(each).__name__, getattr(each, "text", getattr(each, "key", ""))) for each in messages
    ]


def fed(parser: XTermParser, pieces: list[str]) -> list[tuple[str, str]]:
    return seen([event for piece in pieces for event in parser.feed(piece)])


@given(streams, st.lists(st.integers(0, 60), max_size=8))
def test_keys_are_as_textual_reads_them_and_pastes_whole_wherever_the_input_is_cut(
    pieces: list[tuple[bool, str]], cuts: list[int]
) -> None:
    stream = "".join(f"{PASTE_BEGINS}{each}{PASTE_ENDS}" if is_paste else each
                     for is_paste, each in pieces)  # fmt: skip
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    textual = XTermParser()
    expected = []
    for is_paste, each in pieces:
        expected += [("Paste", each.replace("\x00", ""))] if is_paste else fed(textual, [each])
    assert fed(PasteParser(), [stream[a:b] for a, b in pairwise(places)]) == expected


def test_a_paste_without_end_keeps_a_bounded_part_of_itself() -> None:
    parser = PasteParser()
    pieces = [PASTE_BEGINS, *(["x" * (1 << 20)] * 40), PASTE_ENDS, "a"]
    found = [event for piece in pieces for event in parser.feed(piece)]
    assert isinstance(found[0], events.Paste) and isinstance(found[1], events.Key)
    assert 4 << 20 < len(found[0].text) <= pasting.MAX_PASTE
