"""What reports of all kinds tell of machine and program, and the file that they go to."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import edgespec
from edgespec.bench.records import MachineForm
from edgespec.errors import StorageError
from edgespec.machine.identity import Machine


def machine_form(machine: Machine) -> MachineForm:
    """A machine as reports tell of it; its bandwidth is not measured."""
    return MachineForm(
        processor=machine.cpu,
        features=machine.features,
        num_threads=machine.num_threads,
        memory_bytes=machine.memory_bytes,
        system=machine.system,
    )


def commit() -> str:
    """The commit of a program that is run from its repository, "" elsewhere."""
    folder = Path(edgespec.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    options = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(
            ["git", "-C", folder, *options], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def check_writable(out: Path) -> None:
    """Raise StorageError for a file that cannot be written, before anything is measured."""
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not out.exists() or out.is_file():
            with tempfile.TemporaryFile(dir=out.parent):
                pass
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}", "choose another file"
        ) from error
