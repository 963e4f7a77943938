"""One call of a tool, read from the text of a JSON object as it comes.

>>> reader = CallReader(0)
>>> reader.feed('{"name": "f", "arguments": {"x"')
('{"x"', '')
>>> reader.feed(': "}"}} and')
(': "}"}', ' and')
>>> reader.name, reader.arguments, reader.is_over
('f', '{"x": "}"}', True)
"""

from __future__ import annotations

import json
import re
import secrets

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)


class CallReader:
    """Takes the text of one call; its arguments are known while they come, if its name is first."""

    def __init__(self, index: int) -> None:
        """Begin before the opening brace; `index` counts the calls of an answer from 0."""
        self.index = index
        self.id = f"call_{secrets.token_hex(12)}"
        self.name: str | None = None
        self.arguments = ""
        self.is_over = False
        self.text = ""
        self._depth = 0
        self._in_string = self._is_escaped = False
        self._start: int | None = None  # of the arguments in `text`
        self._end: int | None = None

    def feed(self, text: str) -> tuple[str, str]:
        """What that adds to the arguments, and what of it comes after the call."""
        taken = 0
        while taken < len(text) and not self.is_over:
            self._take(text[taken])
            taken += 1
        before = len(self.arguments)
        if self._start is not None:
            self.arguments = self.text[self._start : self._end]
        elif self.is_over:
            self._read_whole()
        return self.arguments[before:], text[taken:]

    def _take(self, letter: str) -> None:
        if not self.text and letter.isspace():
            return
        self.text += letter
        if self._in_string:
            self._in_string = self._is_escaped or letter != '"'
            self._is_escaped = not self._is_escaped and letter == "\\"
        elif letter == '"':
            self._in_string = True
        elif letter in "{[":
            if letter == "{" and self._start is None:
                self._find_head()
            self._depth += 1
        elif letter in "}]":
            self._depth -= 1
            if self._depth == 1 and self._start is not None and self._end is None:
                self._end = len(self.text)
            self.is_over = self._depth <= 0
        elif self._depth == 0:
            self.is_over = True  # it is no object

    def _find_head(self) -> None:
        """See whether this brace opens the arguments."""
        head = _HEAD.match(self.text)
        if head is not None:
            self.name, self._start = _as_name(head[1]), head.end()

    def _read_whole(self) -> None:
        """Read a call whose keys are in another order, or whose arguments are no object."""
        try:
            call = json.loads(self.text)
        except ValueError:
            return
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return
        given = call.get("arguments", call.get("parameters", {}))
        self.name = call["name"]
        self.arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def _as_name(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return literal.strip('"')
