"""What reports of all kinds tell of machine and program, and the file that they go to."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import edgespec
from edgespec.bench.records import MachineForm, Report, write_report
from edgespec.bench.replay import Curve
from edgespec.bench.table import print_table, print_what_if
from edgespec.errors import StorageError
from edgespec.files.scratch import write_text
from edgespec.machine.identity import Machine


@dataclass(frozen=True, slots=True)
class Output:
    """Where a report goes: a file of all that was measured, a page, the terminal.

    For each of `curves` it is predicted as well.
    """

    json: Path | None = None
    html: Path | None = None
    curves: tuple[Curve, ...] = ()

    def check(self) -> None:
        """Raise StorageError for files that cannot be written, before anything is measured."""
        for path in (self.json, self.html):
            if path is not None:
                check_writable(path)

    def keep(self, report: Report) -> None:
        """Write what was measured by now; raises StorageError."""
        if self.json is not None and report.runs:
            write_report(self.json, report)

    def show(self, report: Report) -> None:
        """Print the table and write the page; failing at one does not prevent the other."""
        try:
            print_table(report)
            for curve in self.curves:
                print_what_if(report, curve)
        finally:
            if self.html is not None:
                from edgespec.bench.page import html  # much to load

                write_text(self.html, html(report))


def machine_form(machine: Machine) -> MachineForm:
    """A machine as reports tell of it; how fast memory is read is not measured."""
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
