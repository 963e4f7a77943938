"""Text of answers and questions becomes rows: pure, the same in whatever pieces it comes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from textual.highlight import HighlightTheme
from textual.strip import Strip
from textual.style import Style

from edgespec.tui.sources import CATEGORIES, source_category
from edgespec.tui.transcript.items import Entry
from edgespec.tui.transcript.look import STYLE_NAMES, Frame, Look
from edgespec.tui.transcript.message import Message
from edgespec.tui.transcript.sources import coloured
from edgespec.types import Span

STYLES = {name: Style.from_meta({"named": name}) for name in STYLE_NAMES}
SYNTAX = {name: Style.from_meta({"code": name}) for name in HighlightTheme.STYLES.values()}
LOOK = Look(Style(), STYLES, lambda: SYNTAX)

RICH_TEXT = """\
# Search

A **binary search** halves the range, *always*, and takes `O(log n)` steps; see [the page](https://example.org):

1. Look at the middle.
2. Keep one half
   - the left
   - or the right

   ```sh
   sort values
   ```
3. ~~Give up~~

> Sorted input only.
>
> > Nothing else.

```python
def middle(low: int, high: int) -> int:
\treturn (low + high) // 2  # a comment that is much too long for the eighty columns there are
```

| n | steps | what is said about it, at a length that does not fit into the column |
|--:|:-----:|---|
| 1,000 | 10 | `few`, in every case that matters to anybody who reads tables in a terminal |
| 1,000,000 | 20 | more | and a cell too many |

***

Roses are red,
violets are blue, \\(a_1 * b * c\\) and [x] and &lt;b&gt;.

- [x] done
- [ ] open

\\[
x * y * z
\\]

[one]: defines nothing
"""

PIECES = (
    "# head\n", "- item\n", "1. one\n", "  - deep\n", "```py\n", "```\n", "> quote\n", "|a|b|\n",
    "|-|-|\n", "|c|d|e|\n", "\n", "word ", "*", "**", "`", "[link](1)", "<b>", "![image](2)",
    "\\(a*b*c\\)", "\\[", "\\", "    code\n", "---\n", "===\n", "~~~\n", "\x1b[2", "\r\n", "\r",
    "\t", "#", "-", "1.", "2) two\n", "   indented\n", "日本語 ", "[x]: y\n", "x" * 30,
    "def f(a):\n",
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str:
    return "".join(draw(st.lists(st.sampled_from(PIECES), max_size=20)))


def rows(message: Message, frame: Frame) -> list[Strip]:
    drawn = [piece.rows(frame) for piece in message.pieces()]
    return [rows[index] for rows in drawn for index in range(len(rows))]


def shown(entry: Entry, total: int = 80) -> str:
    frame = Frame(total, LOOK)
    return "\n".join(row.text.rstrip() for row in rows(Message(entry), frame))


def letters(text: str) -> Counter[str]:
    return Counter(character for character in text if character.isalpha())


@given(texts(), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(20, 130))
@example(RICH_TEXT, [1], 80)
@example(RICH_TEXT, [3, 7], 40)
@example("foo\n#hashtag", [5], 80)
@example("text\n|a|b|\n|-|-x", [11], 80)
@example("```\n```x\n```\r\nend", [4], 80)
def test_an_answer_looks_the_same_in_whatever_pieces_it_comes(
    text: str, sizes: list[int], total: int
) -> None:
    frame = Frame(total, LOOK)
    grown = Message(Entry("a", "answer", state="open"))
    place = step = 0
    while place < len(text):
        size = sizes[step % len(sizes)]
        grown.grow(text[place : place + size])
        assert len(rows(grown, frame)) == grown.height(frame)
        place, step = place + size, step + 1
    grown.update(Entry("a", "answer", text))
    whole = Message(Entry("a", "answer", text))
    assert rows(grown, frame) == rows(whole, frame)


@given(texts(), st.integers(20, 130))
@example(
    RICH_TEXT.replace("&lt;", "<").replace("&gt;", ">").replace("https://example.org", "1"), 80
)
def test_no_letter_of_an_answer_is_lost_at_any_width(text: str, total: int) -> None:
    assert letters(shown(Entry("a", "answer", text), total)) == letters(text)


@given(texts(), st.integers(20, 130))
def test_every_row_fills_the_width_and_no_control_character_gets_through(
    text: str, total: int
) -> None:
    frame = Frame(total, LOOK)
    for kind in ("question", "answer", "note", "error"):
        message = Message(Entry("a", kind, text, version=(1, 2)))
        for row in rows(message, frame):
            assert row.cell_length == total
            assert all(character >= " " for character in row.text)


@pytest.mark.parametrize("total", [80, 120])
def test_a_rich_answer_looks_as_it_did(total: int, request: pytest.FixtureRequest) -> None:
    golden = request.path.parent / "goldens/transcript" / f"rich_answer_{total}.txt"
    drawn = shown(Entry("a", "answer", RICH_TEXT, label="model · 31 tok/s", version=(2, 3)), total)
    if request.config.getoption("--snapshot-update"):
        golden.write_text(drawn + "\n", encoding="utf-8")
    assert drawn + "\n" == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\(a_1*b*c\\) [x] \\[d*e*f\\]", "\\(a_1*b*c\\) [x] \\[d*e*f\\]"),
        ("a \\(without end *b*", "a \\(without end b"),
        ("\\* no item", "* no item"),
        ("<div>block</div> [red]markup[/red]", "<div>block</div> [red]markup[/red]"),
        ("said &#27;]52", "said �]52"),
        ("Roses,\nviolets", "Roses,\n    violets"),
        ("99. a\n1. b\n1. c", "99. a\n    100. b\n    101. c"),
    ],
)
def test_what_is_no_markup_comes_through_as_it_is(text: str, expected: str) -> None:
    assert shown(Entry("a", "answer", text)).strip() == expected


def test_code_is_highlighted_to_its_end_as_if_it_had_come_at_once() -> None:
    code = "```python\n" + "".join(f"x{i} = '''a\nb{i}'''  # {i}\n" for i in range(40)) + "```\n"
    frame = Frame(80, LOOK)
    grown = Message(Entry("a", "answer", state="open"))
    for line in code.splitlines(keepends=True):
        grown.grow(line)
        rows(grown, frame)
    assert rows(grown, frame) == rows(Message(Entry("a", "answer", code)), frame)


def test_a_mark_that_may_end_code_is_not_shown_as_code() -> None:
    message = Message(Entry("a", "answer", "```\nx\n``", state="open"))
    frame = Frame(80, LOOK)
    assert "`" not in "".join(row.text for row in rows(message, frame))
    message.update(Entry("a", "answer", "```\nx\n``"))
    assert "``" in "".join(row.text for row in rows(message, frame))


def test_only_the_last_block_is_drawn_again() -> None:
    frame = Frame(80, LOOK)
    message = Message(Entry("a", "answer", RICH_TEXT, state="open"))
    before = message.pieces()
    rows(message, frame)
    message.grow("\nmore\n\nand more")
    same = [one is other for one, other in zip(before, message.pieces(), strict=False)]
    assert all(same[:-1]) and len(same) > 12


def test_a_thought_shows_its_end_while_it_comes_and_is_one_line_after() -> None:
    frame = Frame(80, LOOK)
    message = Message(Entry("a", "answer", "<thi", state="open"))
    assert rows(message, frame) == []
    message.grow("nk>" + "".join(f"step {i}\n" for i in range(9)))
    assert [row.text.strip() for row in rows(message, frame)] == ["step 6", "step 7", "step 8"]
    message.grow("</think>\n\nYes.")
    assert [row.text.strip() for row in rows(message, frame)] == [
        "▸ thought for 18 words · click or press to show", "", "Yes.",
    ]  # fmt: skip
    message.fold()
    assert "step 0" in "".join(row.text for row in rows(message, frame))


def test_a_long_question_shows_its_beginning_and_how_much_is_left() -> None:
    text = "\n".join(f"line {number}" for number in range(2000))
    drawn = shown(Entry("q", "question", text)).splitlines()
    assert len(drawn) == 13
    assert drawn[-1].strip() == "▌ … 1,988 more lines"
    message = Message(Entry("q", "question", text))
    message.fold()
    assert len(rows(message, Frame(80, LOOK))) == 2001
    assert "more line" not in shown(Entry("q", "question", "\n".join("123456789abc")))


def test_a_question_of_one_huge_line_is_folded_too() -> None:
    assert len(shown(Entry("q", "question", "word " * 100_000)).splitlines()) == 13


def test_an_answer_says_which_version_it_is_and_what_it_is_labelled() -> None:
    drawn = shown(Entry("a", "answer", "Half", state="cut", version=(2, 3), label="cut off"))
    assert drawn.split("\n") == ["    Half", "", "    ‹ 2/3 › · cut off"]


def test_a_tinted_answer_is_its_raw_text_in_the_colours_of_its_sources() -> None:
    spans = (Span(3, "target"), Span(4, "smollm2-135m"), Span(2, "context"))
    message = Message(Entry("a", "answer", "**a** b\nc d", spans), tint=True)
    drawn = rows(message, Frame(80, LOOK))
    assert [row.text.strip() for row in drawn] == ["**a** b", "c d"]
    named = [
        (segment.text, segment.style.meta["named"])
        for row in drawn
        for segment in row
        if segment.style and "named" in segment.style.meta
    ]
    assert named == [("**a", "target"), ("** b", "drafter"), ("c", "context")]


@given(st.text(max_size=30), st.lists(st.builds(Span, st.integers(0, 9), st.sampled_from("ab"))))
def test_every_character_has_one_place_among_its_sources(text: str, spans: list[Span]) -> None:
    assert "".join(piece for piece, _ in coloured(text, tuple(spans))) == text


@pytest.mark.parametrize(
    ("name", "category"),
    [("target", "target"), ("context", "context"), ("database", "model"),
     ("database/statistics", "statistics"), ("qwen2.5-0.5b", "drafter"), ("grammar", "grammar")],
)  # fmt: skip
def test_each_source_has_its_category(name: str, category: str) -> None:
    assert source_category(name) == category
    assert category in CATEGORIES
