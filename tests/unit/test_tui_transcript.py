"""The conversation on the screen: Markdown as it grows, hostile text, folding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock
from tui_support import AppPilot, screen, transcript, until, words

from edgespec.tui.app import ChatApp
from edgespec.tui.transcript import Answer, Question, Transcript, chat_parser

RICH_TEXT = """\
# Search

A **binary search** halves the range, *always*, and takes `O(log n)` steps:

1. Look at the middle.
2. Keep one half
   - the left
   - or the right

> Sorted input only.

```python
def middle(low: int, high: int) -> int:
    return (low + high) // 2
```

| n | steps |
|---|---|
| 1,000 | 10 |

---

The end.
"""


class TranscriptApp(App[None]):
    """A transcript and nothing else, with the chat's own styles."""

    CSS_PATH = ChatApp.CSS_PATH

    def __init__(self) -> None:
        import edgespec.tui.app as chat_module

        super().__init__(css_path=chat_module.__file__.replace("app.py", "chat.tcss"))

    def compose(self) -> ComposeResult:
        yield Transcript()


def blocks(answer: Answer) -> list[tuple[str, str]]:
    """Each block's kind and text, in document order."""
    return [(type(block).__name__, str(block._content)) for block in answer.query(MarkdownBlock)]


@pytest.mark.parametrize("num_words", [1, 3, 1000])
async def test_a_grown_answer_looks_like_one_that_came_at_once(num_words: int) -> None:
    async with TranscriptApp().run_test(size=(80, 40)) as pilot:
        grown = await transcript(pilot).answer()
        pieces = words(RICH_TEXT)
        for start in range(0, len(pieces), num_words):
            await grown.grow("".join(pieces[start : start + num_words]))
        at_once = await transcript(pilot).answer()
        await at_once.settle(RICH_TEXT)
        await pilot.pause()
        assert grown.source == RICH_TEXT
        assert blocks(grown) == blocks(at_once)
        assert len(blocks(grown)) == 14


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(
            ["# h\n", "- a\n", "1. b\n", "```\n", "> q\n", "|a|b|\n", "|-|-|\n", "\n", "word ",
             "*", "`", "[l](", "<b>", "![i](u)", "&#27;", "\\", "    code\n", "---\n", "\x1b[2J"]
        ),
        max_size=14,
    )
)  # fmt: skip
async def test_no_text_breaks_the_screen_while_it_grows(pieces: list[str]) -> None:
    async with TranscriptApp().run_test(size=(40, 12)) as pilot:
        answer = await transcript(pilot).answer()
        for piece in pieces:
            await answer.grow(piece)
        await pilot.pause()
        assert answer.source == "".join(pieces)
        assert "\x1b" not in screen(pilot)


async def test_control_codes_of_a_model_never_reach_the_terminal() -> None:
    steal = "\x1b]52;c;c3RvbGVu\x07"
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        await transcript(pilot).question(f"asked {steal} so")
        answer = await transcript(pilot).answer()
        await answer.settle(
            f"said {steal} so, `code {steal}`\n\n```\nfenced {steal}\n```\n\n&#27;]"
        )
        await transcript(pilot).error(f"failed {steal}")
        await pilot.pause()
        shown = screen(pilot)
        assert all(word in shown for word in ("asked", "said", "fenced", "failed"))
        assert "\x1b" not in shown and "\x07" not in shown


async def test_html_and_markup_are_shown_as_the_text_they_are() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        await transcript(pilot).question("[bold]mine[/bold]")
        answer = await transcript(pilot).answer()
        await answer.settle("<div>block</div>\n\nan <b>inline</b> tag and [red]markup[/red]")
        await pilot.pause()
        shown = screen(pilot)
        for text in ("[bold]mine[/bold]", "<div>block</div>", "<b>inline</b>", "[red]markup[/red]"):
            assert text in shown


async def test_single_line_breaks_are_kept() -> None:
    async with TranscriptApp().run_test(size=(80, 24)) as pilot:
        answer = await transcript(pilot).answer()
        await answer.settle("Roses are red,\nviolets are blue.")
        await pilot.pause()
        shown = screen(pilot).splitlines()
        assert [line.strip() for line in shown if "are" in line] == [
            "Roses are red,",
            "violets are blue.",
        ]


def test_the_parser_is_shared_safely_between_texts() -> None:
    parser = chat_parser()
    assert [token.type for token in parser.parse("a\nb")] == [
        token.type for token in parser.parse("a\nb")
    ]


@pytest.mark.parametrize(
    ("href", "opened"),
    [("https://example.org/", True), ("file:///etc/passwd", False), ("javascript:x", False)],
)
async def test_only_web_links_are_opened(href: str, opened: bool, monkeypatch: Any) -> None:  # noqa: ANN401
    urls: list[str] = []
    async with TranscriptApp().run_test() as pilot:
        monkeypatch.setattr(pilot.app, "open_url", lambda url, new_tab=True: urls.append(url))
        answer = await transcript(pilot).answer()
        answer.post_message(Markdown.LinkClicked(answer, href))
        await pilot.pause()
    assert urls == ([href] if opened else [])


# Following the end, and folding


async def converse(pilot: AppPilot, num_turns: int) -> None:
    for number in range(num_turns):
        await transcript(pilot).question(f"Question {number}")
        answer = await transcript(pilot).answer()
        await answer.settle("\n\n".join(f"Answer {number}, line {line}" for line in range(12)))
        await pilot.pause()


def folded(pilot: AppPilot) -> list[bool]:
    return [answer.has_class("-folded") for answer in transcript(pilot).query(Answer)]


async def test_far_answers_are_folded_and_keep_their_height() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        await converse(pilot, 2)
        first = transcript(pilot).query(Answer).first()
        height = first.outer_size.height
        await converse(pilot, 4)
        await until(pilot, lambda: first.has_class("-folded"))
        await pilot.pause()
        assert first.outer_size.height == height
        assert not folded(pilot)[-1]


async def test_scrolling_back_shows_folded_answers_as_they_were() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        await converse(pilot, 6)
        await until(pilot, lambda: folded(pilot)[0])
        transcript(pilot).scroll_home(animate=False)
        await until(pilot, lambda: "Answer 0, line 3" in screen(pilot))
        await until(pilot, lambda: folded(pilot)[-1])
        transcript(pilot).scroll_end(animate=False)
        await until(pilot, lambda: "Answer 5, line 11" in screen(pilot))
        assert not folded(pilot)[-1]


async def test_a_new_width_gives_folded_answers_their_new_height() -> None:
    async with TranscriptApp().run_test(size=(90, 20)) as pilot:
        await transcript(pilot).question("Long")
        answer = await transcript(pilot).answer()
        await answer.settle("word " * 150)
        await converse(pilot, 5)
        await until(pilot, lambda: folded(pilot)[0])
        height = answer.outer_size.height
        await pilot.resize_terminal(45, 20)
        await until(pilot, lambda: answer.outer_size.height > height)
        await until(pilot, lambda: folded(pilot)[0])
        folded_height = answer.outer_size.height
        answer.fold(False)
        await pilot.pause()
        assert answer.outer_size.height == folded_height


async def test_notes_and_errors_come_before_a_waiting_message() -> None:
    async with TranscriptApp().run_test() as pilot:
        shown = transcript(pilot)
        await shown.question("first")
        await shown.question("second", waiting=True)
        await shown.note("a note")
        await shown.answer()
        assert [child.has_class("-waiting") for child in shown.children] == [False] * 3 + [True]
        shown.release()
        await shown.error("an error")
        assert shown.children[-1].has_class("error")


async def test_retracting_takes_the_newest_asked_message_only() -> None:
    async with TranscriptApp().run_test() as pilot:
        shown = transcript(pilot)
        for text in ("first", "second"):
            await shown.question(text)
        await shown.question("third", waiting=True)
        await shown.retract()
        assert [str(question.content) for question in shown.query(Question)] == ["first", "third"]
        await shown.withdraw()
        await shown.retract()
        await shown.retract()
        assert not shown.query(Question)


async def test_clearing_brings_the_welcome_back() -> None:
    async with TranscriptApp().run_test() as pilot:
        await converse(pilot, 3)
        assert "EdgeSpec" not in screen(pilot)
        await transcript(pilot).clear()
        transcript(pilot).welcome("A model")
        await until(pilot, lambda: "A model" in screen(pilot))
        assert "EdgeSpec" in screen(pilot)
        assert transcript(pilot).last_answer == ""
