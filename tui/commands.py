"""Everything that a user can have the chat do, in one table.

    COMMANDS ──> bindings()       keys, changed by a user's file through their ids (tui/keymap.py)
             ├─> CommandProvider  the command palette
             ├─> completions      what the box offers after "/" (tui/completion.py)
             ├─> read()           "/word argument" in the box
             └─> help             the help screen (tui/help.py)

A command means nothing here but its words: the app has one action, `command(id, argument)`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from textual.binding import Binding, BindingType
from textual.command import DiscoveryHit, Hit, Hits, Provider

TakesArgument = Literal["no", "may", "must"]
Group = Literal["Conversation", "Answer", "Message", "View", "App"]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table; `keys` are Textual's names, separated by commas, "" for none."""

    id: str
    title: str
    help: str
    keys: str
    slash: str
    argument: TakesArgument
    group: Group


COMMANDS = (
    Command("new", "New conversation", "begin a new conversation", "ctrl+n", "new", "no",
            "Conversation"),
    Command("library", "Past chats", "search and reopen past chats", "ctrl+l", "library", "may",
            "Conversation"),
    Command("system", "System prompt", "show or set what the model is told first", "", "system",
            "may", "Conversation"),
    Command("set", "Sampling", "show or change sampling: /set temperature 0.3", "", "set", "may",
            "Conversation"),
    Command("export", "Export", "write this conversation to a file", "ctrl+s", "export", "may",
            "Conversation"),
    Command("import", "Import", "read chats from a file", "", "import", "must", "Conversation"),
    Command("summary", "Go on from a summary", "a new conversation that knows a summary", "",
            "summary", "no", "Conversation"),
    Command("incognito", "Incognito", "keep nothing of this conversation", "", "incognito", "no",
            "Conversation"),
    Command("forget", "Forget", "delete this conversation and its tokens", "", "forget", "no",
            "Conversation"),
    Command("stop", "Stop", "stop the answer; what is there stays", "escape", "stop", "no",
            "Answer"),
    Command("copy", "Copy the answer", "copy the last answer", "ctrl+y", "copy", "may", "Answer"),
    Command("regenerate", "Answer again", "ask again; both answers stay", "ctrl+r", "regenerate",
            "no", "Answer"),
    Command("continue", "Continue the answer", "go on with an answer that was cut", "f5",
            "continue", "no", "Answer"),
    Command("plain", "Answer without speculation", "answer again without drafting, both timed", "",
            "plain", "no", "Answer"),
    Command("previous", "Previous version", "show the version before this one", "alt+left",
            "previous", "no", "Answer"),
    Command("next", "Next version", "show the version after this one", "alt+right", "next", "no",
            "Answer"),
    Command("edit", "Edit a message", "change an earlier message and ask anew", "alt+up", "edit",
            "may", "Message"),
    Command("attach", "Attach a file", "add a file to the message, as @ does", "ctrl+o", "attach",
            "may", "Message"),
    Command("editor", "Write in an editor", "write the message in $VISUAL or $EDITOR", "f4",
            "editor", "no", "Message"),
    Command("sources", "Sources", "tint each token by who guessed it", "f3,ctrl+t", "sources", "no",
            "View"),
    Command("stats", "What speculation did", "show figures of drafting", "f2", "stats", "no",
            "View"),
    Command("end", "Jump to the end", "show the end of the conversation", "ctrl+end", "end", "no",
            "View"),
    Command("theme", "Theme", "change the colours", "", "theme", "may", "View"),
    Command("model", "Model", "see, pull and switch models", "", "model", "may", "App"),
    Command("drafter", "Drafter", "switch the drafter", "", "drafter", "may", "App"),
    Command("help", "Help", "show the keys and commands", "f1", "help", "no", "App"),
    Command("quit", "Quit", "stop what runs and leave", "ctrl+q", "quit", "no", "App"),
)  # fmt: skip

BY_ID: Mapping[str, Command] = {command.id: command for command in COMMANDS}
BY_SLASH: Mapping[str, Command] = {command.slash: command for command in COMMANDS}

NO_KEY = "no-key-"
"""Begins the names of keys that no keyboard has: a binding without one could not be given another
by its id."""


@dataclass(frozen=True, slots=True)
class Given:
    """A command was typed; `argument` is what follows the word, "" for nothing."""

    command: Command
    argument: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What was typed is a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Mistyped:
    """What was typed looks like a command and is none; `line` says why."""

    line: str


def read(text: str) -> Given | Sent | Mistyped:
    """What the user means by `text` in the box.

    >>> read("/set temperature 0.3").argument
    'temperature 0.3'
    >>> read("//set is a word").text
    '/set is a word'
    >>> read("/usr/bin is full").text
    '/usr/bin is full'
    >>> read("/exprot chat.md").line
    'there is no /exprot; did you mean /export? (// sends a slash)'
    """
    if text.startswith("//"):
        return Sent(text[1:])
    form = re.fullmatch(r"/([\w-]+)(?:\s+(.*))?", text, re.DOTALL)
    if form is None:
        return Sent(text)
    word, argument = form[1], (form[2] or "").strip()
    command = BY_SLASH.get(word.lower())
    if command is None:
        return _unknown(text, word, bool(argument))
    if argument and command.argument == "no":
        return Mistyped(f"/{command.slash} takes nothing after it (// sends a slash)")
    if not argument and command.argument == "must":
        return Mistyped(f"/{command.slash} needs something after it: {command.help}")
    return Given(command, argument)


def _unknown(text: str, word: str, has_more: bool) -> Sent | Mistyped:
    """A slip of the finger is told; "/etc holds settings" is a sentence."""
    close = difflib.get_close_matches(word.lower(), BY_SLASH, n=1, cutoff=0.7)
    if not close and has_more:
        return Sent(text)
    instead = f"did you mean /{close[0]}?" if close else "F1 shows all commands"
    return Mistyped(f"there is no /{word}; {instead} (// sends a slash)")


def bindings(namespace: str = "") -> list[BindingType]:
    """A binding for each command, by its id; `namespace` "app." for a widget's."""
    return [
        Binding(
            command.keys or f"{NO_KEY}{command.id}",
            f"{namespace}command({command.id!r})",
            command.title,
            id=command.id,
            show=False,
            priority=command.id == "quit",
        )
        for command in COMMANDS
    ]


def keys_of(command: Command, keymap: Mapping[str, str]) -> str:
    """The keys of `command` as people write them, "" without any.

    >>> keys_of(BY_ID["sources"], {})
    'F3, Ctrl+T'
    """
    keys = keymap.get(command.id, command.keys)
    return ", ".join(readable_key(key.strip()) for key in keys.split(",") if key.strip())


def readable_key(key: str) -> str:
    """One key, as people write it."""
    return "+".join(part.capitalize() for part in key.split("+"))


class CommandProvider(Provider):
    """The commands in Textual's palette, the best matches first."""

    async def discover(self) -> Hits:
        """All of them, in the order of the table."""
        for command in COMMANDS:
            yield DiscoveryHit(command.title, self._runs(command), help=self._help(command))

    async def search(self, query: str) -> Hits:
        """Those whose title matches."""
        matcher = self.matcher(query)
        for command in COMMANDS:
            score = matcher.match(command.title)
            if score > 0:
                title = matcher.highlight(command.title)
                yield Hit(score, title, self._runs(command), help=self._help(command))

    def _runs(self, command: Command) -> partial[Coroutine[Any, Any, bool]]:
        return partial(self.app.run_action, f"app.command({command.id!r})")

    def _help(self, command: Command) -> str:
        keys = keys_of(command, self.app._keymap)
        return f"{command.help} · {keys}" if keys else command.help
