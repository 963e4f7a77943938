"""The transcript as a widget: the end in view, scrolling, folds, links, selecting, sizes."""

from __future__ import annotations

from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Offset
from tui_support import AppPilot, screen, transcript, until

from edgespec.tui.app import __file__ as APP_FILE
from edgespec.tui.transcript import Entry, Transcript
from edgespec.types import Span


class TranscriptApp(App[None]):
    """A transcript and nothing else, with the chat's own styles."""

    def __init__(self) -> None:
        super().__init__(css_path=APP_FILE.replace("app.py", "chat.tcss"))
        self.steps: list[tuple[str, int]] = []

    def compose(self) -> ComposeResult:
        yield Transcript()

    def on_transcript_step(self, event: Transcript.Step) -> None:
        self.steps.append((event.key, event.step))


def turns(count: int, num_paragraphs: int = 12) -> list[Entry]:
    return [
        entry
        for number in range(count)
        for entry in (
            Entry(f"q{number}", "question", f"Question {number}"),
            Entry(
                f"a{number}",
                "answer",
                "\n\n".join(f"Answer {number}, part {part}" for part in range(num_paragraphs)),
            ),
        )
    ]


def place(pilot: AppPilot, text: str) -> tuple[int, int]:
    """Column and row of `text` on the screen."""
    for row, line in enumerate(screen(pilot).splitlines()):
        if text in line:
            return line.index(text), row
    raise AssertionError(f"{text!r} is not on the screen\n{screen(pilot)}")


def body(pilot: AppPilot) -> list[str]:
    """The rows of the screen without the scroll bar and the hint below."""
    width = pilot.app.size.width - 1
    return [line[:width].partition(" ↓ ")[0].rstrip() for line in screen(pilot).splitlines()]


def at_end(pilot: AppPilot) -> bool:
    return transcript(pilot).is_at_end


async def select(pilot: AppPilot, start: tuple[int, int], end: tuple[int, int]) -> str | None:
    """Drag the mouse from cell to cell; what is selected then."""
    await pilot.mouse_down(offset=Offset(*start))
    await pilot.hover(offset=Offset(*end))
    await pilot.mouse_up(offset=Offset(*end))
    await pilot.pause()
    text = pilot.app.screen.get_selected_text()
    assert text is None or isinstance(text, str)
    return text


async def test_the_end_stays_in_view_until_the_user_scrolls_up() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown.show(turns(5))
        shown.add(Entry("new", "answer", state="open"))
        shown.grow("new", "one\n\ntwo")
        await until(pilot, lambda: "two" in screen(pilot))
        shown.scroll_to(y=10, animate=False)
        await pilot.pause()
        before = body(pilot)
        below = shown.num_rows_below
        assert not at_end(pilot)
        assert f"↓ {below} lines" in screen(pilot)
        shown.grow("new", "\n\nthree\n\nfour")
        await pilot.pause()
        assert body(pilot) == before
        assert shown.num_rows_below == below + 4
        await pilot.click(offset=place(pilot, "↓"))
        await until(pilot, lambda: "four" in screen(pilot))
        assert at_end(pilot)
        shown.grow("new", "\n\nfive")
        await until(pilot, lambda: "five" in screen(pilot))


async def test_scrolling_back_to_the_end_follows_it_again() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown.show(turns(3))
        await pilot.pause()
        shown.scroll_page_up(animate=False)
        await pilot.pause()
        assert not at_end(pilot)
        shown.scroll_page_down(animate=False)
        await until(pilot, lambda: at_end(pilot))


async def test_only_what_comes_near_the_screen_is_read_and_nothing_jumps() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown._idle.pause()  # type: ignore[union-attr]
        shown.show([Entry(f"a{n}", "answer", "# head\nword\n" * 40) for n in range(30)])
        await pilot.pause()
        assert sum(message.is_made for message in shown._column.messages) == 1
        shown.scroll_to(y=shown.max_scroll_y // 2, animate=False)
        await pilot.pause()
        before = body(pilot)
        while list(shown._column.estimated()):
            shown._correct()
        await pilot.pause()
        assert body(pilot) == before


async def test_estimates_are_corrected_in_idle_moments_and_what_is_in_view_stays() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown.show([Entry(f"a{n}", "answer", f"{n} at\n\n# head\nword\n" * 9) for n in range(9)])
        shown.jump_to("a5")
        await pilot.pause()
        before = body(pilot)
        await until(pilot, lambda: not list(shown._column.estimated()))
        await pilot.pause()
        assert body(pilot) == before
        assert "5 at" in before[1]


@pytest.mark.parametrize("is_followed", [True, False])
async def test_another_width_keeps_in_view_what_was(is_followed: bool) -> None:
    async with TranscriptApp().run_test(size=(90, 20)) as pilot:
        shown = transcript(pilot)
        shown.show([Entry(f"a{n}", "answer", f"begin{n} " + "word " * 60) for n in range(20)])
        await pilot.pause()
        if not is_followed:
            shown.jump_to("a7")
            await pilot.pause()
            assert place(pilot, "begin7")[1] == 1
        for width in (40, 120, 200, 50):
            await pilot.resize_terminal(width, 20)
            await until(pilot, lambda width=width: width - 1 <= shown.size.width <= width)
            await until(pilot, lambda: not any(shown._column.estimated()))
            await until(pilot, lambda: ("begin19" if is_followed else "begin7") in screen(pilot))
            assert shown.is_at_end is is_followed


async def test_jumping_marks_an_entry_until_it_is_unmarked() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown.show(turns(9))
        shown.jump_to("q4")
        await pilot.pause()
        assert place(pilot, "Question 4")[1] == 1
        marked = shown.render_line(1)
        shown.unmark()
        await pilot.pause()
        assert shown.render_line(1) != marked
        assert shown.render_line(1).text == marked.text
        shown.jump_to_end()
        await until(pilot, lambda: "Answer 8, part 11" in screen(pilot))


async def test_a_waiting_question_stays_below_what_is_added() -> None:
    async with TranscriptApp().run_test() as pilot:
        shown = transcript(pilot)
        shown.add(Entry("1", "question", "first"))
        shown.add(Entry("2", "question", "second", state="waiting"))
        shown.add(Entry("3", "note", "a note"))
        shown.add(Entry("4", "answer", "an answer"))
        assert [entry.key for entry in shown.entries] == ["1", "3", "4", "2"]
        shown.update(Entry("2", "question", "second"))
        shown.add(Entry("5", "error", "an error"))
        shown.remove("3")
        assert [entry.key for entry in shown.entries] == ["1", "4", "2", "5"]
        assert shown.text_of("4") == "an answer"
        await pilot.pause()
        assert "✗ an error" in screen(pilot) and "a note" not in screen(pilot)


async def test_an_empty_transcript_shows_the_welcome() -> None:
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        shown = transcript(pilot)
        shown.welcome(["EdgeSpec", "", "A model\x1b"])
        await until(pilot, lambda: "A model␛" in screen(pilot))
        assert place(pilot, "EdgeSpec") == (26, 8)
        shown.show(turns(3))
        await until(pilot, lambda: "EdgeSpec" not in screen(pilot))
        shown.clear()
        await until(pilot, lambda: "EdgeSpec" in screen(pilot))
        assert shown.entries == ()


@pytest.mark.parametrize(
    ("href", "opened"),
    [("https://example.org/", True), ("file:///etc/passwd", False), ("javascript:x", False)],
)
async def test_only_web_links_are_opened(href: str, opened: bool, monkeypatch: Any) -> None:  # noqa: ANN401
    urls: list[str] = []
    async with TranscriptApp().run_test(size=(60, 20)) as pilot:
        monkeypatch.setattr(pilot.app, "open_url", lambda url, new_tab=True: urls.append(url))
        transcript(pilot).add(Entry("a", "answer", f"See [the page]({href})."))
        await pilot.pause()
        await pilot.click(offset=place(pilot, "the page"))
        transcript(pilot).action_link(href)
        await pilot.pause()
    assert urls == ([href] * 2 if opened else [])


async def test_a_click_or_a_call_shows_and_hides_what_is_folded() -> None:
    async with TranscriptApp().run_test(size=(60, 24)) as pilot:
        shown = transcript(pilot)
        shown.add(Entry("q", "question", "\n".join(f"line {number}" for number in range(40))))
        shown.add(Entry("a", "answer", "<think>in secret</think>Said."))
        await pilot.pause()
        await pilot.click(offset=place(pilot, "▸"))
        await until(pilot, lambda: "in secret" in screen(pilot))
        shown.toggle_fold()
        await until(pilot, lambda: "in secret" not in screen(pilot))
        await pilot.click(offset=place(pilot, "28 more lines"))
        await until(pilot, lambda: "line 12" in screen(pilot))
        assert "line 0" in screen(pilot)


async def test_arrows_ask_for_another_version() -> None:
    app = TranscriptApp()
    async with app.run_test(size=(60, 20)) as pilot:
        transcript(pilot).add(Entry("a", "answer", "Said.", version=(2, 3)))
        await pilot.pause()
        await pilot.click(offset=place(pilot, "‹"))
        await pilot.click(offset=place(pilot, "›"))
        await pilot.pause()
    assert app.steps == [("a", -1), ("a", 1)]


async def test_selected_text_is_copied_as_it_is_shown() -> None:
    async with TranscriptApp().run_test(size=(60, 24)) as pilot:
        transcript(pilot).show(
            [
                Entry("q", "question", "first\nsecond"),
                Entry("a", "answer", "Some **bold** text\n\n```\ncode:\n    deep\n```"),
            ]
        )
        await pilot.pause()
        column, row = place(pilot, "bold")
        assert await select(pilot, (column, row), (column + 3, row)) == "bold"
        end = place(pilot, "deep")
        text = await select(pilot, place(pilot, "second"), (end[0] + 3, end[1]))
        assert text == "second\n\nSome bold text\n\n\ncode:\n    deep"
        start = place(pilot, "second")
        backwards = await select(pilot, (start[0] + 5, start[1]), place(pilot, "first"))
        assert backwards == "first\nsecond"


async def test_a_double_click_selects_a_block() -> None:
    async with TranscriptApp().run_test(size=(60, 24)) as pilot:
        transcript(pilot).add(Entry("a", "answer", "one\ntwo\n\nthree"))
        await pilot.pause()
        await pilot.click(Transcript, offset=place(pilot, "two"), times=2)
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "one\ntwo"


async def test_tinting_shows_answers_as_they_were_written() -> None:
    async with TranscriptApp().run_test(size=(60, 24)) as pilot:
        shown = transcript(pilot)
        shown.add(Entry("a", "answer", "**bo", (Span(4, "target"),), state="open"))
        shown.tint = True
        shown.grow("a", "ld**", (Span(4, "context"),))
        await until(pilot, lambda: "**bold**" in screen(pilot))
        colours = {
            segment.text.strip(): segment.style and segment.style.color
            for segment in shown.render_line(1)
        }
        assert colours["**bo"] != colours["ld**"]
        shown.tint = False
        await until(pilot, lambda: "**" not in screen(pilot))
        assert [part.strip() for part in shown.legend.plain.split("■")][1:] == [
            "the model", "this chat", "past answers", "imported", "drafter", "grammar",
        ]  # fmt: skip


async def test_another_theme_gives_other_colours() -> None:
    async with TranscriptApp().run_test(size=(60, 24)) as pilot:
        transcript(pilot).show(turns(1))
        await pilot.pause()
        before = transcript(pilot).render_line(1)
        pilot.app.theme = "textual-light"
        await until(pilot, lambda: transcript(pilot).render_line(1) != before)
        assert transcript(pilot).render_line(1).text == before.text


@pytest.mark.parametrize("size", [(40, 15), (20, 5), (200, 50)])
async def test_any_size_of_screen_will_do(size: tuple[int, int]) -> None:
    async with TranscriptApp().run_test(size=size) as pilot:
        transcript(pilot).show(turns(3))
        await until(pilot, lambda: "Answer 2" in screen(pilot))
