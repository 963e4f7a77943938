"""The conversation as a file, and conversations from files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edgespec.chats import Chat, ChatHead
from edgespec.errors import EdgeSpecError
from edgespec.tui.services import ExportForm
from edgespec.tui.session import Session

if TYPE_CHECKING:
    from edgespec.tui.app import ChatApp


async def export(app: ChatApp, argument: str) -> None:
    """Write this conversation to a file: `/export [md|json] [PATH]`."""
    write, session = app.services.write_chat, app.dialogue.session
    if write is None or not session.messages:
        app.hint("there is nothing to export yet")
        return
    try:
        form, path = destination(argument, time.strftime("chat-%Y%m%d-%H%M%S"))
        text = write(_chat_of(session), form)
        await app.disk.run(lambda: _write_new(path, text))
    except EdgeSpecError as error:
        app.dialogue.error(str(error))
    else:
        app.dialogue.note(f"written to {path}")


async def import_(app: ChatApp, argument: str) -> None:
    """Take in conversations that EdgeSpec, ChatGPT or Open WebUI exported."""
    read = app.services.read_chats
    if read is None:
        app.hint("nothing is kept in this run")
        return
    try:
        path = _expanded(argument)
        number = await app.disk.run(lambda: read(path))
    except EdgeSpecError as error:
        app.dialogue.error(str(error))
    except OSError as error:
        app.dialogue.error(f"{argument} cannot be read ({error.strerror}); name another file")
    else:
        app.dialogue.note(f"{number} conversations came in from {path.name} · Ctrl+L shows them")


def destination(argument: str, name: str) -> tuple[ExportForm, Path]:
    """The form and the file that are meant; `name` is that of a file which was not named.

    >>> destination("json", "chat"), destination("talk.md", "chat")
    (('json', PosixPath('chat.json')), ('md', PosixPath('talk.md')))

    Raises EdgeSpecError for the home of nobody.
    """
    first, _, rest = argument.strip().partition(" ")
    given = rest.strip() if first in get_args(ExportForm) else argument.strip()
    form: ExportForm = "json" if "json" in (first, given.rpartition(".")[2]) else "md"
    return form, _expanded(given or f"{name}.{form}")


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EdgeSpecError(f"{path}: nobody has this home", "name another file") from error


def _chat_of(session: Session) -> Chat:
    path = session.path
    lines = path[0].content.splitlines() or [""]
    created, updated = path[0].created, path[-1].created
    head = ChatHead(session.chat or "", lines[0][:80], created, updated, len(session.messages))
    return Chat(head, session.settings, tuple(session.messages.values()), session.tip)


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; raises EdgeSpecError if it is, or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            path.unlink()
            raise
    except FileExistsError as error:
        raise EdgeSpecError(f"{path} is there already", "name another file") from error
    except OSError as error:
        raise EdgeSpecError(
            f"{path} cannot be written ({error.strerror})", "name another"
        ) from error
