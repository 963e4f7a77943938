"""The part of `edgespec db import` that reads text: files to tokens, with progress."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edgespec.cache.tokens.sequences import VocabularyKey
from edgespec.cache.tokens.text_files import Found, find_files
from edgespec.cache.tokens.text_import import Imported, Importer
from edgespec.cli.db_export import counted
from edgespec.cli.loading import model_on_disk
from edgespec.llama.model import Model, ModelOptions
from edgespec.models.gguf_check import check_gguf
from edgespec.vocab.tokenizer import ByteTokenizer


def import_texts(connection: sqlite3.Connection, paths: Sequence[Path], model_name: str) -> None:
    """Import files into the statistics tier of a model's vocabulary; tells on stderr what was done.

    Raises ModelFileError, UnknownModelError, sqlite3.Error.
    """
    path = model_on_disk(model_name)
    check_gguf(path)
    with Model(path, ModelOptions(vocabulary_only=True)) as model:
        tokenizer = ByteTokenizer(model.vocab)
        vocabulary = VocabularyKey(tokenizer.fingerprint, model.vocab.num_tokens)
        importer = Importer(connection, vocabulary, model.vocab.tokenize)
        files = list(find_files(paths))
        outcomes: Counter[str] = Counter()
        num_tokens = num_forgotten = 0
        for imported in _with_progress(importer.add(files), files):
            outcomes[imported.outcome] += 1
            num_tokens += imported.num_tokens
            num_forgotten += imported.num_forgotten
        num_gone = importer.forget_missing(path for path in paths if path.is_dir())
    _tell(outcomes, num_tokens, num_gone, num_forgotten)


def _with_progress(imported: Iterable[Imported], files: Sequence[Found]) -> Iterator[Imported]:
    """Pass everything on, under a bar if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield from imported
        return
    columns = (TextColumn("importing"), BarColumn(), TextColumn("{task.fields[file]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(file.num_bytes for file in files), file="")
        for one in imported:
            progress.update(task, advance=one.found.num_bytes, file=one.found.path.name)
            yield one


def _tell(outcomes: Counter[str], num_tokens: int, num_gone: int, num_forgotten: int) -> None:
    files, tokens = counted(outcomes["imported"], "file"), counted(num_tokens, "token")
    parts = [f"{files} imported ({tokens})"]
    parts += [f"{outcomes[name]} {name}" for name in outcomes if name != "imported"]
    if num_gone:
        parts.append(f"{num_gone} gone and forgotten")
    click.echo(", ".join(parts), err=True)
    if num_forgotten:
        older = counted(num_forgotten, "older token")
        click.echo(f"the size limit was reached, so that it forgot {older}", err=True)
