"""What a pane of the chat shows, without what a model, a machine or a clock says in it.

Blank rows go, for answers differ in length. Answers become one line, figures `#`, ages `«age»`.
The panel at the right of a wide window follows below what is at its left; of a box over the
chat only that is kept which is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

PANEL_COLUMNS = 40

_TITLE = re.compile(r"╭─ \w+ ")
_VERSIONS = re.compile(r"‹ \d+/\d+ ›")
_LABEL = re.compile(rf"({_VERSIONS.pattern} · )?qwen2\.5-coder-1\.5b · .*tok/s")
_STATE = re.compile(r"● (?!■)(\w+)( · .*)?")
_AGE = re.compile(r"\bnow\b|\d+ (min|h|days?) ago")
_FOUND_ANSWER = re.compile(rf"  answer · ({_AGE.pattern})$")
_NUMBER = re.compile(r"(?<![\w.-])[\d–][\d,.]*")
_PANEL_LISTS = {"Where it came from": "sources", "Drafters": "drafters",
                "A pass over rows, ms": "times", "Waits for time": "work"}  # fmt: skip


def masked(pane: str, panel: bool = False) -> str:
    """The pane as a golden keeps it; `panel` if the panel is open at its right."""
    rows = pane.rstrip("\n").split("\n")
    title = next((row for row in rows if _TITLE.search(row)), None)
    if title is not None:
        return "\n".join([*_dialog(rows, title), ""])
    if not panel:
        return "\n".join([*_chat(rows), ""])
    width = max(map(len, rows)) - PANEL_COLUMNS
    left, right = [row[:width] for row in rows], [row[width:] for row in rows]
    return "\n".join([*_chat(left), "", *_panel(right), ""])


def _dialog(rows: list[str], title: str) -> Iterator[str]:
    """What stands in a box that lies over the chat."""
    found = _TITLE.search(title)
    assert found is not None
    yield found[0]
    is_answer = False
    for row in rows[rows.index(title) + 1 :]:
        text = row[found.start() + 1 : title.rindex("╮")].strip()
        if set(text) == {"─"}:
            return
        if text:
            yield "«answer»" if is_answer else _figures(text)
        is_answer = bool(_FOUND_ANSWER.search(text))


def _chat(rows: Iterable[str]) -> Iterator[str]:
    """Questions, answers, labels and notes; then the box and the state."""
    place: Literal["question", "answer", "other"] = "other"
    for row in filter(None, (row.strip() for row in rows)):
        if row.startswith("▌"):
            place = "question"
            yield row
        elif row[0] in "╭│╰●" or _LABEL.match(row):
            place = "other"
            yield _figures(row)
        elif place == "other" or _VERSIONS.fullmatch(row):
            yield _figures(row)
        elif place == "question":
            place = "answer"
            yield "«answer»"


def _panel(rows: Iterable[str]) -> Iterator[str]:
    """Labels of figures; lists that depend on the machine are named only."""
    hidden = False
    for row in filter(None, (row.strip() for row in rows)):
        if row in _PANEL_LISTS:
            hidden = True
            yield f"{row}: «{_PANEL_LISTS[row]}»"
        elif row == "This conversation" or not hidden:
            hidden = False
            if not set(row) <= set("▁▂▃▄▅▆▇█ "):
                yield re.sub(r"#( tok/s|x|%)$", "#", _figures(row))


def _figures(row: str) -> str:
    """The row without figures and the room they take; hints in a frame come and go."""
    if row.startswith("╰"):
        return "╰───╯"
    state = _STATE.fullmatch(row)
    if state is not None:
        return f"● {state[1]}{' · «figures»' if state[2] else ''}"
    versions = _VERSIONS.match(row)
    start = versions.end() if versions else 0
    rest = _NUMBER.sub("#", _AGE.sub("«age»", row[start:]))
    return re.sub(r" {3,}", "   ", re.sub(r"─{3,}", "───", row[:start] + rest))
