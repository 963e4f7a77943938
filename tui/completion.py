"""What can be completed at the cursor, and the list from which it is chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from textual.content import Content
from textual.fuzzy import FuzzySearch
from textual.geometry import Offset, Region
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from edgespec.tui.commands import COMMANDS, keys_of
from edgespec.tui.settings import SETTINGS

MAX_ROWS = 8
MAX_SHOWN = 50
MAX_RANKED = 200
"""Candidates that the fuzzy matcher looks at; a cheaper order decides which."""
MAX_WAYS = 5_000
"""Ways to find a query's letters in a candidate beyond which the matcher takes too long."""


@dataclass(frozen=True, slots=True)
class Query:
    """What stands before the cursor: `text` without the sign that begins at column `start`."""

    kind: Literal["command", "setting", "file"]
    text: str
    start: int


def query_at(line: str, row: int, column: int) -> Query | None:
    """The query that ends at `column` of `line`, None if nothing is to be completed there.

    >>> query_at("see @src/ma", 0, 11)
    Query(kind='file', text='src/ma', start=4)
    >>> query_at("/se", 0, 3).kind
    'command'
    >>> query_at("/set te", 0, 7)
    Query(kind='setting', text='te', start=5)
    >>> query_at("me@home", 0, 7) is None
    True
    """
    before = line[:column]
    if row == 0 and re.fullmatch(r"/[\w-]*", before):
        return Query("command", before[1:], 0)
    setting = re.fullmatch(r"/set\s+([\w-]*)", before) if row == 0 else None
    if setting:
        return Query("setting", setting[1], setting.start(1))
    found = re.search(r"(?:^|(?<=\s))@(\S*)$", before)
    return Query("file", found[1], found.start()) if found else None


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of the list: `value` is what choosing it gives, `label` what is shown."""

    value: str
    label: Content


def command_choices(query: str, keymap: Mapping[str, str]) -> list[Choice]:
    """Commands whose word matches, with what they do; all of them for an empty query."""
    width = max(len(command.slash) for command in COMMANDS)
    by_slash = {command.slash: command for command in COMMANDS}
    choices = []
    for slash, offsets in ranked(query, by_slash):
        command = by_slash[slash]
        word = _bold(f"/{slash}", [offset + 1 for offset in offsets])
        more = f"{' ' * (width - len(slash) + 2)}{keys_of(command, keymap):11}  {command.help}"
        choices.append(Choice(command.id, Content.assemble(word, (more, "$text-muted"))))
    return choices


def setting_choices(query: str) -> list[Choice]:
    """Names of settings that match, with what they mean."""
    meanings = {setting.name: setting.meaning for setting in SETTINGS}
    width = max(map(len, meanings)) + 2
    return [
        Choice(
            name,
            Content.assemble(_bold(f"{name:{width}}", offsets), (meanings[name], "$text-muted")),
        )
        for name, offsets in ranked(query.replace("-", "_"), meanings)
    ]


def file_choices(query: str, candidates: Iterable[str]) -> list[Choice]:
    """Paths that match."""
    return [Choice(path, _bold(path, offsets)) for path, offsets in ranked(query, candidates)]


def _bold(text: str, offsets: Iterable[int]) -> Content:
    content = Content(text)
    for offset in offsets:
        content = content.stylize("bold $text-primary", offset, offset + 1)
    return content


def ranked(query: str, candidates: Iterable[str]) -> list[tuple[str, list[int]]]:
    """Candidates that have the letters of `query` in order, the best first, with their columns."""
    if not query:
        return [(candidate, []) for candidate, _ in zip(candidates, range(MAX_SHOWN), strict=False)]
    letters = re.compile(".*?".join(re.escape(letter) for letter in query), re.IGNORECASE)
    wanted = query.lower()

    def cheap(candidate: str) -> tuple[bool, bool, int, str]:
        path = candidate.lower()
        name = path.rstrip("/").rpartition("/")[2]
        return not name.startswith(wanted), wanted not in path, len(path), path

    matching = sorted(filter(letters.search, candidates), key=cheap)[:MAX_RANKED]
    matcher = FuzzySearch()
    scored = [(*_match(matcher, query, candidate), candidate) for candidate in matching]
    scored.sort(key=lambda row: -row[0])
    return [(candidate, offsets) for _, offsets, candidate in scored[:MAX_SHOWN]]


def _match(matcher: FuzzySearch, query: str, candidate: str) -> tuple[float, list[int]]:
    """The matcher's score, unless it would look at too many ways."""
    lower = candidate.lower()
    ways = math.prod(lower.count(letter) for letter in query.lower())
    if query.lower() not in lower and ways > MAX_WAYS:
        return 0.0, []
    score, offsets = matcher.match(query, candidate)
    return score, list(offsets)


class Completions(OptionList, can_focus=False):
    """The list above the box; the box keeps the keyboard and tells it what to do."""

    DEFAULT_CSS = """
    Completions {
        display: none;
        overlay: screen;
        height: auto;
        max-height: 8;
        padding: 0 1;
        border: none;
        background: $surface;
        scrollbar-size-vertical: 1;
    }
    """

    def __init__(self, chosen: Callable[[], object]) -> None:
        """`chosen` is called when a row is clicked; it is the highlighted one then."""
        super().__init__()
        self._chosen = chosen
        self._choices: list[Choice] = []

    @property
    def is_open(self) -> bool:
        """True while there is something to choose."""
        return bool(self.display)

    @property
    def choice(self) -> Choice | None:
        """The highlighted row."""
        row = self.highlighted
        return self._choices[row] if self.is_open and row is not None else None

    def offer(self, choices: list[Choice], box: Region) -> None:
        """Show `choices` above `box` (on the screen), the first one highlighted."""
        if not choices:
            self.close()
            return
        self._choices = choices
        self.set_options(Option(choice.label) for choice in choices)
        self.highlighted = 0
        rows = min(MAX_ROWS, len(choices), max(1, box.y))
        self.styles.width = box.width
        self.styles.max_height = rows
        self.absolute_offset = Offset(box.x, box.y - rows)
        self.display = True
        self.refresh(layout=True)

    def close(self) -> None:
        """Show nothing."""
        self.display = False

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A row was clicked."""
        event.stop()
        self._chosen()
