"""Chips: labels that stand for long text, and what a draft stands for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events
from textual.app import App, ComposeResult

from edgespec.tui.attachments import Attachment
from edgespec.tui.chips import MARK, Chips, Pasted, folds, shown
from edgespec.tui.message_input import MessageInput


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("a", False),
        ("a\n" * 8, False),
        ("a\n" * 9, True),
        ("a" * 2_000, False),
        ("a" * 2_001, True),
        (f"a{MARK}b", True),
    ],
)
def test_long_pastes_fold(text: str, folded: bool) -> None:
    assert folds(text) is folded


def test_labels_tell_sizes_and_differ() -> None:
    chips = Chips()
    labels = [chips.label(Pasted(text)) for text in ("a\n" * 2000, "b\n" * 2000, "a\n" * 2000)]
    assert [shown(label) for label in labels] == [
        "[pasted 2,000 lines]",
        "[pasted 2,000 lines #2]",
        "[pasted 2,000 lines]",
    ]
    file = Attachment("src/a[1].py", "x", 12_345)
    assert shown(chips.label(file)) == "[@a(1).py 12 KB]"
    assert shown(chips.label(file, 1_234)) == "[@a(1).py 1,234 tokens]"


def test_files_are_named_in_the_text_and_added_once_each_at_its_end() -> None:
    chips = Chips()
    a, b = (chips.label(Attachment(name, f"text of {name}", 9)) for name in ("a.py", "b"))
    text = chips.expand(f"compare {a} and {b} with {a}")
    assert text == (
        "compare a.py and b with a.py\n\na.py\n```py\ntext of a.py\n```\n\nb\n```\ntext of b\n```"
    )


def test_a_label_in_a_paste_is_text() -> None:
    chips = Chips()
    label = chips.label(Pasted("secret"))
    assert chips.expand(chips.draft(f"see {label}")) == f"see {label}"
    assert chips.expand(shown(label)) == shown(label)


visible = st.text(st.characters(exclude_categories=["Cc"]), max_size=6)


@given(st.lists(visible | st.just("x" * 30_000)))
def test_any_text_becomes_a_draft_that_stands_for_it(texts: list[str]) -> None:
    chips = Chips()
    assert chips.expand("".join(chips.draft(text) for text in texts)) == "".join(texts)


class BoxApp(App[None]):
    """A message box and what it sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def compose(self) -> ComposeResult:
        yield MessageInput()

    def on_mount(self) -> None:
        self.query_one(MessageInput).focus()

    def on_message_input_submitted(self, event: MessageInput.Submitted) -> None:
        self.sent.append(event.text)


LONG = ("one\ntwo\n" * 5, "y" * 2_500, f"a{MARK}b")
Step = tuple[str, str]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("type"), st.sampled_from("ab ")),
        st.tuples(st.just("paste"), st.sampled_from(["c", "d e", *LONG])),
        st.tuples(st.just("press"), st.sampled_from(["backspace", "delete", "left", "right",
                                                     "home", "end", "ctrl+j"])),
        st.tuples(st.just("press"), st.just("enter")),
    ),
    max_size=25,
)  # fmt: skip


class Model:
    """What the box should hold: characters, a chip being one, and a cursor between them."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.cursor = 0
        self.sent: list[str] = []

    def insert(self, *units: str) -> None:
        self.units[self.cursor : self.cursor] = units
        self.cursor += len(units)

    def press(self, key: str) -> None:
        before, after = self.units[: self.cursor], self.units[self.cursor :]
        if key == "backspace" and before:
            self.units, self.cursor = before[:-1] + after, self.cursor - 1
        elif key == "delete":
            self.units = before + after[1:]
        elif key == "left":
            self.cursor = max(0, self.cursor - 1)
        elif key == "right":
            self.cursor = min(len(self.units), self.cursor + 1)
        elif key == "home":
            self.cursor -= [*before[::-1], "\n"].index("\n")
        elif key == "end":
            self.cursor += [*after, "\n"].index("\n")
        elif key == "ctrl+j":
            self.insert("\n")
        elif key == "enter":
            self.send()

    def send(self) -> None:
        units = list(self.units)
        while units and units[-1] in (" ", "\n"):
            units.pop()
        while units and units[0] == "\n":
            units.pop(0)
        if units:
            self.sent.append("".join(units))
            self.units, self.cursor = [], 0


async def play(script: list[Step]) -> tuple[list[str], str]:
    app = BoxApp()
    async with app.run_test() as pilot:
        box = app.query_one(MessageInput)
        for kind, value in script:
            if kind == "paste":
                box.post_message(events.Paste(value))
                await pilot.pause(0)
            else:
                await pilot.press("space" if value == " " else value)
        await pilot.pause()
        return app.sent, box.chips.expand(box.text)


@settings(max_examples=20, deadline=None)
@given(steps)
def test_whatever_is_typed_pasted_and_deleted_is_what_is_sent(script: list[Step]) -> None:
    model = Model()
    for kind, value in script:
        if kind == "press":
            model.press(value)
        elif value in LONG:
            model.insert(value)
        else:
            model.insert(*value)
    sent, left = asyncio.run(play(script))
    assert sent == model.sent
    assert left == "".join(model.units)
