"""The trimmed form of a drafter: chosen and made once, found again ever after.

A file's name says of which drafter it is, for which build, machine and number of threads, so a
drafter that changed, or another build, gets another file. How it was chosen is remembered beside
it: a file that was deleted comes back without measuring, a lost memory does no harm. Files that
were not used for long are deleted. Beside it may be another with rows that follow the user
(runtime/head_rows.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock

from edgespec.errors import BusyError, Cancelled, EdgeSpecError, ModelFileError, StorageError
from edgespec.forms.notes import Notes
from edgespec.forms.rows import NewRows
from edgespec.forms.search import choose
from edgespec.forms.trimming import (
    AS_SHIPPED,
    Count,
    Decision,
    Parent,
    Workshop,
    count_shipped,
    make,
    read_parent,
)
from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.forms.words import shipped_words_id
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import read_trim_info, write_other_rows
from edgespec.llama import library
from edgespec.llama.model import ModelOptions
from edgespec.machine.facts import file_fingerprint
from edgespec.machine.identity import Machine
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.protocols import FactStore
from edgespec.reports import Report

TRIM = "trim"
"""The kind of these facts."""

_WAIT_S = 120.0
"""How long to wait for another process that trims."""

_UNUSED_S = 60 * 24 * 3600.0
_LONGEST_STEM = 80
_SEARCH = ".search-"
"""Beginning of the names of folders of searches that may go on."""


class Trimmer:
    """Finds, chooses and makes trimmed forms in one folder, for one build, machine and layout."""

    def __init__(
        self,
        folder: Path,
        store: FactStore,
        machine: Machine,
        options: ModelOptions,
        report: Report = lambda _line: None,
        *,
        follows: bool = False,
    ) -> None:
        """`folder` is made when it is needed; `options` tell how drafters are loaded.

        One that `follows` finds the form whose rows were chosen by what was said to this user, if
        there is one.
        """
        self._folder = folder
        self._store = store
        self._machine = machine
        self._options = options
        self._report = report
        self._follows = follows
        self._keys: dict[Path, str] = {}
        self._parents: dict[Path, Parent] = {}

    def key(self, whole: Path) -> str:
        """Names a drafter's content, the build, the machine and how weights are loaded.

        Raises ModelFileError for a file that cannot be read.
        """
        if whole not in self._keys:
            layouts = "extra" if self._options.use_extra_buffers else "plain"
            try:
                name = file_fingerprint(whole)
            except OSError as error:
                problem = f"cannot read {whole}: {error.strerror or error}"
                raise ModelFileError(problem) from error
            self._keys[whole] = f"{name}|{library.build_id()}|{self._machine.key}|{layouts}"
        return self._keys[whole]

    def decision(self, whole: Path) -> Decision | None:
        """How a drafter runs here, if that was decided."""
        value = self._store.get(TRIM, self.key(whole))
        return Decision.from_json(value) if value is not None else None

    def found(self, whole: Path) -> tuple[Path | None] | None:
        """What was decided and is there: (file,), or (None,) for the whole drafter; None if not.

        Nothing is measured or made. What a busy machine decided is to be decided again, and serves
        until then.
        """
        decision, path = self.decision(whole), self._path(whole)
        if decision is not None and not decision.is_current:
            return None
        if decision is not None and decision.is_whole:
            return (None,)
        if decision is not None and self._follows:
            own = self._own_path(whole, decision)
            if self._is_usable(own):
                return (own,)
        return (path,) if self._is_usable(path) else None

    def settled(self, whole: Path) -> tuple[Path | None] | None:
        """`found`, but None for what is to be decided again."""
        decision = self.decision(whole)
        return None if decision is not None and not decision.is_final else self.found(whole)

    def trimmed(
        self,
        whole: Path,
        pass_ms: Callable[[], Mapping[int, float]] = lambda: USUAL_PASS_MS,
        pause: Pause = NO_PAUSE,
    ) -> Path | None:
        """The file that runs in place of `whole`, made if it is missing; None for `whole` itself.

        The first time takes about ten seconds. Where trimming fails, one line tells why. `pass_ms`
        gives T(r) of the target as it is now, by number of rows, when that is needed. What `pause`
        ends goes on where it was when this is called again, in this process or another; then
        BusyError is raised while another process trims.
        """
        try:
            found = self.settled(whole)
            return found[0] if found is not None else self._made(whole, pass_ms, pause)
        except Cancelled:
            raise
        except EdgeSpecError as error:
            if isinstance(error, BusyError) and pause is not NO_PAUSE:
                raise
            self._report(f"the drafter {whole.stem} runs untrimmed: {error}")
            return None

    def trim(
        self,
        whole: Path,
        keep: int | None = None,
        type_name: str | None = None,
        count: Count = count_shipped,
        pass_ms: Mapping[int, float] = USUAL_PASS_MS,
        out: Path | None = None,
    ) -> tuple[Path, Parent, Decision]:
        """Choose and make anew: the file's path, what it was made from and as what.

        Rows to `keep` and type of the body are chosen where they are None. It is used from now on,
        unless it was written to `out`. Raises ModelFileError, UsageError, StorageError,
        NativeLibraryError or BusyError.
        """
        with self._workshop(whole, pass_ms, anew=True) as workshop:
            parent = read_parent(whole, workshop, count)
            decision = choose(parent, workshop, keep, type_name)
            if count is count_shipped:
                decision = dataclasses.replace(decision, counts=shipped_words_id())
            path = out or self._path(whole)
            make(parent, decision, path, workshop)
            if out is None:
                self._store.put(TRIM, self.key(whole), decision.to_json())
        return path, parent, decision

    def own_path(self, whole: Path, trimmed: Path) -> Path | None:
        """Where `trimmed` has other rows if those are chosen by what was said to this user.

        None if that is not to be: if it is no form of `whole` that was found here, or somebody gave
        counts of their own. Raises ModelFileError if `whole` cannot be read.
        """
        form = self.decision(whole)
        if not self._follows or form is None or not form.is_final or form.counts is None:
            return None
        own = self._own_path(whole, form)
        return own if trimmed in (self._path(whole), own) else None

    def write_rows(
        self,
        whole: Path,
        body: GgufFile,
        rows: NewRows,
        destination: Path,
        on_progress: Callable[[float], None],
    ) -> None:
        """Write a form of `whole` as `body`, which is one, with other rows.

        Raises BusyError at once if another process trims, ModelFileError, UsageError, StorageError,
        and what `on_progress`, called with the share written, raises.
        """
        with self._alone(wait_s=0.0):
            kept, origin, is_own = rows.kept, rows.origin, rows.is_own
            write_other_rows(whole, body, destination, kept, origin, on_progress, is_own=is_own)

    def _is_usable(self, path: Path) -> bool:
        """Whether there is a whole trimmed file; notes that it is used."""
        if not path.is_file():
            return False
        with contextlib.suppress(ModelFileError):  # damaged: it will be made anew
            if read_trim_info(path) is not None:
                with contextlib.suppress(OSError):  # a folder that is read-only may be used, too
                    os.utime(path)
                return True
        return False

    def _made(
        self, whole: Path, pass_ms: Callable[[], Mapping[int, float]], pause: Pause
    ) -> Path | None:
        started = time.monotonic()
        with self._workshop(whole, pause=pause) as workshop:
            found = self.settled(whole)  # another process may have made it meanwhile
            if found is not None:
                return found[0]
            workshop = dataclasses.replace(workshop, pass_ms=pass_ms())
            try:
                parent = self._parents.get(whole) or read_parent(whole, workshop)
                self._parents[whole] = parent
            except ModelFileError as error:
                problem, counts = str(error), shipped_words_id()
                decision = Decision(0, AS_SHIPPED, counts=counts, is_whole=True, problem=problem)
                self._store.put(TRIM, self.key(whole), decision.to_json())
                raise
            decision = self._decide(whole, parent, workshop)
            if not decision.is_whole:
                make(parent, decision, self._path(whole), workshop)
                self._drop_unused()
            self._store.put(TRIM, self.key(whole), decision.to_json())
            if decision.is_final:
                workshop.notes.clear()
                del self._parents[whole]
        if decision.is_whole:
            return None
        seconds = time.monotonic() - started
        self._report(describe(whole, parent.num_tokens, decision, seconds))
        return self._path(whole)

    def _decide(self, whole: Path, parent: Parent, workshop: Workshop) -> Decision:
        """The remembered choice if it still holds, else a new one."""
        before = self.decision(whole)
        if before is not None and before.is_final and before.counts is not None:
            return before
        found = choose(parent, workshop)
        return dataclasses.replace(
            found,
            counts=shipped_words_id(),
            is_whole=(found.num_kept, found.type_name) == (parent.num_tokens, AS_SHIPPED),
            num_attempts=1 if before is None or before.is_sure else before.num_attempts + 1,
        )

    def _path(self, whole: Path, what: str = "") -> Path:
        digest = hashlib.sha256(f"{self.key(whole)}{what}".encode()).hexdigest()[:16]
        return self._folder / f"{whole.stem[:_LONGEST_STEM]}-{digest}.gguf"

    def _own_path(self, whole: Path, form: Decision) -> Path:
        """Where the form is kept with rows that were chosen for this user."""
        return self._path(whole, f"|{form.num_kept} {form.type_name} {form.counts}")

    @contextlib.contextmanager
    def _workshop(
        self,
        whole: Path,
        pass_ms: Mapping[int, float] = USUAL_PASS_MS,
        pause: Pause = NO_PAUSE,
        *,
        anew: bool = False,
    ) -> Iterator[Workshop]:
        """A folder for scratch files, while no other process trims.

        What `pause` ends leaves the folder and the notes on `whole` to the next one, unless that
        begins `anew`.
        """
        wait_s = _WAIT_S if pause is NO_PAUSE else 0.0
        with self._alone(wait_s), contextlib.ExitStack() as cleanup:
            scratch = self._folder / f"{_SEARCH}{self._path(whole).stem}"
            if anew:
                shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(mode=0o700, exist_ok=True)
            cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
            key = f"{self.key(whole)}|{shipped_words_id()}"
            notes = Notes() if anew else Notes(self._store, key)
            threads, report = self._machine.num_threads, self._report
            try:
                yield Workshop(scratch, self._options, threads, report, pass_ms, pause, notes)
            except Cancelled:
                cleanup.pop_all()
                raise

    @contextlib.contextmanager
    def _alone(self, wait_s: float) -> Iterator[None]:
        """While no other process trims; waits so long for it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with filelock.FileLock(self._folder / ".lock", timeout=wait_s):
                self._drop_scratch()  # whoever holds the lock is alone
                yield
        except filelock.Timeout as error:
            raise BusyError("another process is trimming a drafter", "wait for it") from error
        except OSError as error:
            problem = f"cannot write to {self._folder}: {error.strerror or error}"
            raise StorageError(problem, "free space there or make it writable") from error

    def _drop_scratch(self) -> None:
        """Delete what was left unfinished, and searches that nobody took up again."""
        oldest = time.time() - _UNUSED_S
        for search in self._folder.glob(f"{_SEARCH}*"):
            if search.stat().st_mtime < oldest:
                shutil.rmtree(search, ignore_errors=True)
        for left in self._folder.glob(".*.part"):
            left.unlink(missing_ok=True)

    def _drop_unused(self) -> None:
        """Delete files that no drafter used for two months."""
        oldest = time.time() - _UNUSED_S
        for path in self._folder.glob("*.gguf"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def describe(whole: Path, num_tokens: int, choice: Decision, seconds: float) -> str:
    """What was made of a drafter, in one line."""
    body = "" if choice.type_name == AS_SHIPPED else f", as {choice.type_name}"
    what = f"trimming {whole.stem} to {choice.num_kept:,} of {num_tokens:,} tokens{body}"
    return f"{what} took {seconds:.0f} s"
