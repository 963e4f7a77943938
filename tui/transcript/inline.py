"""Emphasis, code, links: an inline token becomes runs of styled text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.style import Style

from edgespec.tui.transcript.look import Line, Look
from edgespec.tui.transcript.wrapping import displayed

if TYPE_CHECKING:
    from markdown_it.token import Token

WEB = ("https://", "http://")
"""What may be opened: a model's answer must not start other programs."""

_SPACES = re.compile(r"\s+")


def _content(token: Token) -> str:
    return token.content


_TEXTS: dict[str, Callable[[Token], str]] = {
    "text": lambda token: _SPACES.sub(" ", token.content),
    "softbreak": lambda _: "\n",  # models break lines in verse, not to wrap text
    "hardbreak": lambda _: "\n",
    "image": lambda token: f"▣ {token.content}",
}


def runs_of(token: Token, look: Look, ground: Style) -> Line:
    """The text of an inline token, each run's style complete: laid on `ground`."""
    runs: Line = []
    styles = [ground]
    for child in token.children or ():
        if child.nesting == 1:
            styles.append(styles[-1] + _style_of(child, look))
        elif child.nesting == -1:
            styles.pop()
        else:
            text = _TEXTS.get(child.type, _content)(child)
            style = styles[-1] + _style_of(child, look)
            # entities can name control characters
            runs.append((displayed(text), style))
    return [run for run in runs if run[0]]


def _style_of(token: Token, look: Look) -> Style:
    if token.type in ("link_open", "image"):
        href = str(token.attrs.get("href") or token.attrs.get("src") or "")
        return look["link"] + clickable("link", href) if href.startswith(WEB) else Style()
    return look[token.tag if token.tag in ("strong", "em", "s", "code") else ""]


def clickable(action: str, *arguments: str | int) -> Style:
    """A style that runs an action of the transcript at a click."""
    return Style.from_meta({"@click": (action, arguments)})
