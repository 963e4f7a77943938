"""An answer's text as it is told to clients: words, and calls of tools.

Text that may be the beginning of a call is held back; the arguments of a call are told as they
come. What begins like a call and is none is words after all. Small models that were shown the form
`hermes` often write the call alone, or in a block of code: that is a call, too, where it names a
tool that there is.

>>> speech = Speech(HERMES)
>>> speech.feed('Let me see.\\n<tool_')
[Words(text='Let me see.')]
>>> [begun, more] = speech.feed('call>\\n{"name": "f", "arguments": {"x"')
>>> begun.name, more, speech.feed(': 1}}\\n</tool_call>')
('f', Arguments(index=0, text='{"x"'), [Arguments(index=0, text=': 1}')])
>>> [call.arguments for call in speech.calls]
['{"x": 1}']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgespec.server.called import CallReader
from edgespec.server.tools import HERMES as HERMES
from edgespec.server.tools import Toolbox, ToolForm
from edgespec.types import ToolCall

_BARE = re.compile(r'\s*(?:<\|python_tag\|>\s*)?\{\s*"(?:name|type|parameters)"')
_BARE_LIST = re.compile(r'\s*(?:\[TOOL_CALLS\]\s*)?\[\s*\{\s*"(?:name|arguments|id)"')
_FENCE = "```"
_BLANK = re.compile(r"\s")
_MOST_UNDECIDED = 64
"""Characters by which an answer that is a call without marks has shown it."""


@dataclass(frozen=True, slots=True)
class Words:
    """More of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A call begins; calls are numbered from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the text of a call's arguments."""

    index: int
    text: str


Part = Words | Begun | Arguments


class Speech:
    """Reads one answer; `text` and `calls` are what was told so far."""

    def __init__(
        self,
        form: ToolForm | None = None,
        *,
        is_parallel: bool = True,
        names: Sequence[str] = (),
    ) -> None:
        """Without a form all is words; calls after the first are left out unless `is_parallel`.

        `names` are what can be called.
        """
        self.text = ""
        self.calls: list[ToolCall] = []
        self._form = form
        self._is_parallel = is_parallel
        self._names = frozenset(names)
        self._heads = [f'{word}{{"name":"{name}"' for name in names for word in ("", "json", "xml")]
        self._held = ""
        self._before = ""  # what stands before the call under way: words, if it is none
        self._num_begun = 0
        self._call: CallReader | None = None

    def feed(self, text: str) -> list[Part]:
        """What has become certain."""
        if self._form is None:
            return self._words(text)
        self._held += text
        parts: list[Part] = []
        while self._held:
            if self._call is not None:
                parts += self._read(self._call)
            elif self._skip_between(self._form):
                start = self._find_call(self._form, parts)
                if start is None:
                    break
                self._held = self._held[start:]
                self._call = CallReader(self._num_begun)
            else:
                break
        return parts

    def finish(self) -> list[Part]:
        """What is left at the end of the answer."""
        left, call = self._held, self._call
        if call is not None:
            left = self._before + call.text + left if call.name is None else ""
        self._held, self._call = "", None
        return self._words(left if left.strip(" \n,;]") or not self.calls else "")

    def _read(self, call: CallReader) -> list[Part]:
        """Read on in a call."""
        was_named = call.name is not None
        more, self._held = call.feed(self._held)
        if call.is_over:
            self._call = None
        if call.name is None:
            return self._words(self._before + call.text) if call.is_over else []
        if not was_named and not self._is_known(call.name):
            self._call = None
            return self._words(self._before + call.text)
        if not was_named:
            self._num_begun += 1
        if call.index and not self._is_parallel:
            return []
        if not was_named:
            self.calls.append(ToolCall(call.name, call.arguments, call.id))
        self.calls[call.index] = replace(self.calls[call.index], arguments=call.arguments)
        begun = [] if was_named else [Begun(call.index, call.id, call.name)]
        return [*begun, *([Arguments(call.index, more)] if more else [])]

    def _is_known(self, name: str) -> bool:
        """Whether a call of this is one; without a mark it is if there is such a tool."""
        return bool(self._before.strip("[ \n")) or not self._names or name in self._names

    def _skip_between(self, form: ToolForm) -> bool:
        """Drop what stands after a call and says nothing; False if it is not all there."""
        if not self._num_begun:
            return True
        self._held = self._held.lstrip(" \n,;]" if not form.closes else " \n")
        for closes in (form.closes, _FENCE) if form.closes else ():
            if self._held.startswith(closes):
                self._held = self._held[len(closes) :].lstrip(" \n")
            elif closes.startswith(self._held):
                return False
        return bool(self._held)

    def _find_call(self, form: ToolForm, parts: list[Part]) -> int | None:
        """Where in what is held the next call's braces are to begin; tells the words before it."""
        if not form.opens:
            return self._find_bare_call(form, parts)
        held = self._held
        at = held.find(form.opens)
        fence, is_call = self._find_fence(at if at >= 0 else len(held))
        if is_call:
            return self._begin(held[:fence].rstrip(), held.index("{", fence), parts)
        if at >= 0 and fence >= at:
            return self._begin(held[:at].rstrip(), at + len(form.opens), parts)
        begun = max(_num_opening(held, form.opens), _num_opening(held, _FENCE))
        certain = held[: min(fence, len(held) - begun)].rstrip()
        parts += self._words(certain)
        self._held = held[len(certain) :]
        return None

    def _find_fence(self, end: int) -> tuple[int, bool]:
        """Where before `end` a call without marks begins, and whether it is one for sure."""
        held = self._held
        places = [0] if self._num_begun or not self.text else []
        places += [match.start() for match in re.finditer(_FENCE, held[:end])]
        for place in places:
            written = _BLANK.sub("", held[place:].lstrip().removeprefix(_FENCE))
            if any(written.startswith(head) for head in self._heads):
                return place, True
            if any(head.startswith(written) for head in self._heads):
                return place, False
        return end, False

    def _find_bare_call(self, form: ToolForm, parts: list[Part]) -> int | None:
        """A call without marks is at the beginning of the answer, or after another one."""
        if self._num_begun:
            at = self._held.find("{")
            return self._begin("", at, parts) if at >= 0 else None
        if not self.text:
            if (_BARE_LIST if form.is_list else _BARE).match(self._held):
                return self._begin("", self._held.index("{"), parts)
            is_open = self._held.lstrip()[:1] in ("", "{", "[", "<")
            if is_open and len(self._held) < _MOST_UNDECIDED:
                return None
        parts += self._words(self._held)
        self._held = ""
        return None

    def _begin(self, words: str, start: int, parts: list[Part]) -> int:
        """Tell the words before a call that begins at `start`, and keep what is between them."""
        parts += self._words(words)
        self._before = self._held[len(words) : start]
        return start

    def _words(self, text: str) -> list[Part]:
        self.text += text
        return [Words(text)] if text else []


def speech_of(toolbox: Toolbox | None) -> Speech:
    """Who reads an answer that may use these tools."""
    if toolbox is None:
        return Speech()
    is_parallel = toolbox.is_parallel is not False
    return Speech(toolbox.form, is_parallel=is_parallel, names=toolbox.names)


def _num_opening(text: str, opens: str) -> int:
    """Letters at the end of `text` that may be the beginning of `opens`."""
    for length in range(min(len(opens) - 1, len(text)), 0, -1):
        if opens.startswith(text[-length:]):
            return length
    return 0
