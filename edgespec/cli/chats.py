"""What `edgespec chat` does without a model: list, search, export and import chats."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgespec.cache.chats.search import marked
from edgespec.cache.chats.store import ChatStore
from edgespec.chats import Chat, ChatHead, ChatHit
from edgespec.cli.db_opened import back_up_or_tell, opened
from edgespec.errors import UsageError
from edgespec.files.scratch import write_text

LAST = "last"
_SHOWN = 8
"""Digits of an id in a list: enough to tell chats apart."""


def chats_command(values: dict[str, Any]) -> bool:
    """Take the options that need no model out of `values` and do what they ask; False for none.

    Raises UsageError, StorageError.
    """
    is_list, text = values.pop("is_list"), values.pop("search")
    exported, imported = values.pop("export"), values.pop("imported")
    form, output, as_json = values.pop("form"), values.pop("output"), values.pop("as_json")
    asked = [is_list, text is not None, exported is not None, imported is not None]
    if sum(asked) + (values["continued"] is not None) > 1:
        raise UsageError(
            "--continue, --list, --search, --export and --import exclude each other", "give one"
        )
    if is_list:
        _list(as_json)
    elif text is not None:
        with _chats() as store:
            print_hits(store.search(text), as_json)
    elif exported is not None:
        _export(exported, form, output)
    elif imported is not None:
        _import(Path(imported))
    return any(asked)


def chat_id(name: str) -> str:
    """The id of the chat that `name` names: `last`, or the beginning of one id; UsageError."""
    with _chats() as store:
        if name == LAST:
            last = store.last()
            if last is None:
                raise UsageError("there is no chat yet", "begin one")
            return last
        found = store.named(name) if name else []
    if len(found) != 1:
        raise UsageError(
            f"{'several chats begin' if found else 'there is no chat that begins'} with {name!r}",
            "`edgespec chat --list` shows them",
        )
    return found[0]


def print_hits(hits: Sequence[ChatHit], as_json: bool) -> None:
    """Print messages that were found, one a line."""
    if as_json:
        found = [
            {
                **{"conversation": hit.chat, "title": hit.title, "message": hit.message},
                **{"role": hit.role, "created": hit.created, "snippet": marked(hit.snippet)},
            }
            for hit in hits
        ]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for hit in hits:
        click.echo(f"{hit.chat}  {_time(hit.created)}  {hit.role}: {marked(hit.snippet)}")
    if not hits:
        click.echo("nothing found", err=True)


@contextlib.contextmanager
def _chats() -> Iterator[ChatStore]:
    with opened() as (connection, path):
        yield ChatStore(connection, path)


def _list(as_json: bool) -> None:
    with _chats() as store:
        heads = store.recent(limit=-1)
    if as_json:
        click.echo(json.dumps([asdict(head) for head in heads], indent=2, ensure_ascii=False))
        return
    for head in heads:
        click.echo(_line(head))
    if not heads:
        click.echo("there is no chat yet", err=True)


def _line(head: ChatHead) -> str:
    mark = "*" if head.is_pinned else " "
    title = " ".join(head.title.split())
    return f"{head.id[:_SHOWN]}{mark} {_time(head.updated)}  {head.num_messages:>4}  {title}"


def _export(name: str, form: str, output: str | None) -> None:
    from edgespec.cache.chats.as_markdown import markdown_of
    from edgespec.cache.chats.chat_files import chat_file

    number = chat_id(name)
    with _chats() as store:
        chat = store.load(number)
    if chat is None:
        raise UsageError(f"there is no chat {number!r}", "`edgespec chat --list` shows them")
    text = chat_file(chat) if form == "json" else markdown_of(chat)
    if output is None or output == "-":
        click.echo(text, nl=False)
        return
    path = Path(output)
    write_text(path, text, "export to another place")
    click.echo(f"{path}: {_told(chat)}", err=True)


def _import(path: Path) -> None:
    from edgespec.cache.chats.chat_files import import_chats

    with opened() as (connection, database):
        try:
            imported = import_chats(connection, path)
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror or error}", "check the path"
            ) from error
        back_up_or_tell(database)
    click.echo(
        f"{path.name}: {_counted(imported.num_new)} added or continued,"
        f" {imported.num_known} known already",
        err=True,
    )


def _told(chat: Chat) -> str:
    return f"{chat.head.title or 'a chat'}, {len(chat.messages)} messages"


def _counted(number: int) -> str:
    return f"{number} chat{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "?"
