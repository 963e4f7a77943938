"""Text that cannot drive a terminal.

Textual writes control characters through to the terminal, where an escape sequence in a model's
answer or in pasted text could set the clipboard, the title or the screen.
"""

from __future__ import annotations

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"}
_PICTURES |= {0x7F: "\u2421"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")


def plain(text: str) -> str:
    """`text` with every control character but tab and line ends as a visible sign for it.

    >>> plain("a\\x1b[2Jb")
    'a␛[2Jb'
    """
    return text.translate(_PICTURES)
