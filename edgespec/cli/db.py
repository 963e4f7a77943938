"""`edgespec db`: look at, search, carry, shrink, check and forget what EdgeSpec remembers.

stdout carries data (tables, hits, JSON, exports); progress, questions and sentences go to stderr.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from edgespec.cache.chats.search import search as search_messages
from edgespec.cache.chats.transfer import export_lines
from edgespec.cache.database import Database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.eviction import DEFAULT_LIMIT
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.forget import Forgetting, Forgotten
from edgespec.cache.upkeep.lock import upkeep_lock
from edgespec.cache.upkeep.quarantine import unread
from edgespec.cache.upkeep.repair import repair
from edgespec.cache.upkeep.usage import DatabaseStats, compact, statistics
from edgespec.cli.chats import print_hits
from edgespec.cli.db_export import counted, export_to, import_export, is_export_file
from edgespec.cli.db_opened import back_up_or_tell, damaged, errors_told, opened, require_sound
from edgespec.errors import UsageError
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.paths import user_paths
from edgespec.reports import human_bytes
from edgespec.runtime.prompt_files import delete_prompts
from edgespec.runtime.unlearning import forget_learned

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group()
def db() -> None:
    """What EdgeSpec remembers: conversations, and token sequences that make answers faster."""


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(as_json: bool) -> None:
    """Show what is remembered and how much room it takes."""
    with opened() as (connection, path):
        found = statistics(connection, path)
    if as_json:
        click.echo(json.dumps({**asdict(found), "num_tokens": found.num_tokens}, indent=2))
    else:
        _print_stats(found)


@db.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def search(words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find messages that hold all WORDS, the last one as a beginning."""
    with opened() as (connection, _path):
        hits = search_messages(connection, " ".join(words), limit)
    print_hits(hits, as_json)


@db.command()
@click.option("--conversation", metavar="ID", help="This conversation and what it taught.")
@click.option("--older-than", metavar="AGE", help="What is older: 90m, 12h, 30d, 8w.")
@click.option("--all", "everything", is_flag=True, help="Everything learned and said.")
@click.option("--yes", is_flag=True, help="Do not ask before --all.")
def forget(conversation: str | None, older_than: str | None, everything: bool, yes: bool) -> None:
    """Delete for good; exactly one of the first three options is needed.

    What drafters learned cannot be told apart by conversation, and goes as a whole; so does what
    was computed of conversations, which can be computed again.
    """
    if (conversation is not None) + (older_than is not None) + everything != 1:
        raise UsageError(
            "forget needs one of --conversation, --older-than and --all", "give exactly one"
        )
    age_s = parse_age(older_than) if older_than is not None else 0.0
    if everything and not yes:
        _ask_about_all()
    with opened() as (connection, path), upkeep_lock(path):
        if not everything:
            require_sound(connection, path)
        forgetting = Forgetting(connection)
        if conversation is not None:
            forgotten = forgetting.conversation(conversation)
        elif older_than is not None:
            forgotten = forgetting.before(time.time() - age_s)
        else:
            forgotten = forgetting.everything()
        forgetting.purge(path, everything=everything)
        delete_prompts(user_paths().prompts)
        is_done = everything or forgotten != Forgotten()
        learned = is_done and forget_learned(Facts(Database(connection, path)), user_paths())
    if conversation is not None and forgotten == Forgotten():
        raise UsageError(
            f"there is no conversation {conversation!r}", "`edgespec db search` shows their ids"
        )
    click.echo(
        f"forgot {counted(forgotten.num_conversations, 'conversation')},"
        f" {counted(forgotten.num_messages, 'message')},"
        f" {counted(forgotten.num_tokens, 'recorded token')}"
        + (", and what drafters learned" if learned else ""),
        err=True,
    )
    _tell_of_unread(path)


@db.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="-")
def export(file: Path) -> None:
    """Write conversations and recorded answers to FILE, or to stdout, as lines of JSON.

    `edgespec db import FILE` takes them in again, here or elsewhere.
    """
    with opened() as (connection, _path):
        if str(file) == "-":
            for line in export_lines(connection):
                click.echo(line, nl=False)
            return
        export_to(connection, file)


@db.command("import")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, readable=True, path_type=Path)
)
@click.option(
    "--model",
    default=DEFAULT_TARGET,
    show_default=True,
    metavar="M",
    help="The model whose answers the text is to speed up.",
)
def import_(paths: tuple[Path, ...], model: str) -> None:
    """Read text files, folders of them, or exports of `edgespec db export`.

    In folders, what git ignores is left out, and so are files that are no text. Files that did not
    change since the last import are not read again; what is gone from a folder is forgotten.
    """
    exports = [path for path in paths if path.is_file() and is_export_file(path)]
    texts = [path for path in paths if path not in exports]
    with opened() as (connection, path):
        for export_file in exports:
            import_export(connection, export_file)
        if texts:
            from edgespec.cli.db_import import import_texts  # needs the native library

            import_texts(connection, texts, model)
        back_up_or_tell(path)


@db.command("compact")
def compact_() -> None:
    """Rewrite the file without gaps, its tokens within their size limit."""
    with opened() as (connection, path):
        freed = compact(connection, path, DEFAULT_LIMIT)
        size = statistics(connection, path).file_bytes
    click.echo(f"{human_bytes(freed)} freed, {human_bytes(size)} in use", err=True)


@db.command()
@click.option(
    "--repair", "mend", is_flag=True, help="Bring back the last backup and what is newer."
)
def check(mend: bool) -> None:
    """Read the whole file and say whether it is sound."""
    with opened() as (connection, path):
        found = problems(connection)
    for problem in found:
        click.echo(problem)
    if mend and (found or unread(path)):
        with errors_told(path):
            for line in repair(path):
                click.echo(line, err=True)
        return
    if found:
        raise damaged(path)
    click.echo("the database is sound", err=True)
    _tell_of_unread(path)


def parse_age(text: str) -> float:
    """Seconds of an age such as 30d; raises UsageError.

    >>> parse_age("12h")
    43200.0
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([mhdw])", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no age", "write 90m, 12h, 30d or 8w")
    return float(match[1]) * _UNITS[match[2]]


def _print_stats(found: DatabaseStats) -> None:
    click.echo(f"file           {found.path}")
    click.echo(f"size           {human_bytes(found.file_bytes)}")
    click.echo(f"conversations  {found.num_conversations}, {found.num_messages} messages")
    share = f"{human_bytes(found.token_bytes)} of at most {human_bytes(DEFAULT_LIMIT)}"
    click.echo(f"tokens         {found.num_tokens}, {share}")
    for tier in found.tiers:
        what = "answers" if tier.tier == "model" else "imported text"
        click.echo(
            f"  {what:<13} {tier.num_tokens} in {counted(tier.num_sequences, 'sequence')},"
            f" vocabulary {tier.vocabulary[:12]}"
        )
    click.echo(f"files          {found.num_files} imported")
    if found.last_backup is not None:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.last_backup))
        size = human_bytes(found.backup_bytes)
        click.echo(f"backups        {found.num_backups}, the last of {made}, {size}")


def _tell_of_unread(path: Path) -> None:
    if waiting := unread(path):
        names = ", ".join(file.name for file in waiting)
        click.echo(
            f"what {names} holds is not in it: run `edgespec db check --repair`, or delete it",
            err=True,
        )


def _ask_about_all() -> None:
    if not sys.stdin.isatty():
        raise UsageError("--all forgets everything", "add --yes if that is meant")
    click.confirm("Forget every conversation and everything learned?", abort=True, err=True)
