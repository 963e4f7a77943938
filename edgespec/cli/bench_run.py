"""Running a benchmark: load, measure in a thread, keep each question as it ends, print."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console

from edgespec import __version__
from edgespec.bench.progress import Progress
from edgespec.bench.quiet import disturbances
from edgespec.bench.recorder import Recorder
from edgespec.bench.records import (
    ProgramForm,
    Report,
    TargetForm,
    Way,
    read_report,
    write_report,
)
from edgespec.bench.report import print_table
from edgespec.bench.resume import check_same, left_of
from edgespec.bench.runner import Asker, Runner, Stopped
from edgespec.bench.same import differences
from edgespec.bench.suite import Question
from edgespec.bench.warm import WarmPlan, learn_earlier
from edgespec.cli.bench_asked import Asked
from edgespec.cli.bench_written import check_writable, commit, machine_form
from edgespec.cli.loading import load_completer
from edgespec.errors import ContextOverflowError, ExactnessError, StorageError
from edgespec.machine.identity import copy_bandwidth
from edgespec.runtime.choice import sha256_of
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running

_MOST_TOLD = 5
"""Lines of one kind that are printed."""


def run_bench(loading: LoadRequest, asked: Asked, out: Path | None, resume: bool) -> None:
    """Measure, keep in the file `out` and print; with `resume` go on with what that lacks.

    Raises what loading raises, StorageError, ContextOverflowError where no question fits, and
    ExactnessError where an answer differs though the same bytes are promised.
    """
    earlier = read_report(out) if resume and out is not None and out.exists() else None
    if out is not None:
        check_writable(out)
    recorder = Recorder()
    with _memory_folder(asked) as memory_at:
        loading = dataclasses.replace(loading, memory_at=memory_at)
        with load_completer(loading, asked.sampling, (recorder,)) as loaded:
            measuring = _Measuring(loaded, recorder, asked, out)
            try:
                measuring.run(earlier)
            finally:  # what was measured before Ctrl-C is not lost
                measuring.tell()
    measuring.check()


class _Measuring:
    """One benchmark under way: `report` is what is measured by now."""

    def __init__(self, loaded: Running, recorder: Recorder, asked: Asked, out: Path | None) -> None:
        self._loaded = loaded
        self._recorder = recorder
        self._asked = asked
        self._out = out
        self._asker = Asker(loaded.completer)
        self.report = _header(loaded, asked)

    def run(self, earlier: Report | None) -> None:
        """Measure what `earlier` does not have.

        In a thread: Python runs signal handlers between byte codes of the main thread, and one that
        waits inside llama.cpp would notice a signal only when the pass is over.
        """
        questions = self._asked.questions
        left = left_of(questions, earlier) if earlier is not None else questions
        console = Console(stderr=True, markup=False, highlight=False)
        with (
            Progress(len(questions), len(questions) - len(left), console) as progress,
            ThreadPoolExecutor(1) as pool,  # leaving it waits until the thread is out of llama.cpp
        ):
            try:
                pool.submit(self._measure, earlier, left, progress).result()
            finally:
                self._asker.stop()

    def tell(self) -> None:
        """Print the table, and what makes it doubtful."""
        report = self.report
        if not report.runs:
            return
        print_table(report)
        for lines in (report.left_out, tuple(differences(report)), tuple(disturbances(report))):
            for line in lines[:_MOST_TOLD]:
                click.echo(line, err=True)
            if len(lines) > _MOST_TOLD:
                click.echo(f"and {len(lines) - _MOST_TOLD} more", err=True)

    def check(self) -> None:
        """Raise where nothing was measured, or where answers are not the same that should be."""
        report = self.report
        if not report.runs:
            raise ContextOverflowError("no question fits the context", "use a larger --context")
        num_different = sum(run.differs_at is not None for run in report.runs)
        if num_different and report.target.exactness == "identical":
            raise ExactnessError(
                f"{num_different} answers are not those of plain decoding",
                "run `edgespec doctor`, and report this",
            )

    def _measure(
        self, earlier: Report | None, questions: Sequence[Question], progress: Progress
    ) -> None:
        """In the thread: learn, build the ways, ask."""
        asked, loaded = self._asked, self._loaded
        with contextlib.suppress(Stopped):
            if isinstance(asked.plan, WarmPlan):
                if loaded.memory is None:
                    raise StorageError(
                        "there is no place for a database", "free space for temporary files"
                    )
                learn_earlier(
                    self._asker.complete,
                    loaded.memory,
                    asked.plan,
                    asked.sampling,
                    asked.max_tokens,
                    progress.say,
                )
            ways = loaded.ways(asked.ways, asked.forms)
            report = self._begun(ways.about, earlier)
            runner = Runner(self._asker, ways, self._recorder, asked.sampling, asked.max_tokens)

            def keep(report: Report) -> None:
                self.report = report
                if self._out is not None and report.runs:
                    write_report(self._out, report)
                progress.show(report)

            runner.run(questions, report, keep)

    def _begun(self, about: Mapping[str, str], earlier: Report | None) -> Report:
        """The report to begin with; raises UsageError where `earlier` was of something else."""
        ways = tuple(Way(name=name, about=sentence) for name, sentence in about.items())
        begun = self.report.model_copy(update={"ways": ways})
        if earlier is None:
            return begun
        check_same(begun, earlier)
        self.report = earlier.model_copy(update={"is_complete": False})
        return self.report


def _header(loaded: Running, asked: Asked) -> Report:
    """What a report tells besides its runs."""
    model, machine = loaded.completer.model, loaded.machine
    return Report(
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        machine=machine_form(machine).model_copy(
            update={"copy_bandwidth": copy_bandwidth(machine.num_threads, seconds=0.1)}
        ),
        program=ProgramForm(
            version=__version__, commit=commit(), library=str(model.settings["library"])
        ),
        target=TargetForm(
            name=model.name,
            description=model.description,
            quantization=model.details.quantization,
            size_bytes=model.size_bytes,
            sha256=sha256_of(loaded.model.path, loaded.home.facts, loaded.home.paths),
            drafter=model.drafter,
            exactness=model.exactness,
            settings=dict(model.settings),
        ),
        asked=asked.form,
        ways=(),
    )


@contextlib.contextmanager
def _memory_folder(asked: Asked) -> Iterator[Path | None]:
    """Where a warm run keeps its memory, for as long as it lasts."""
    if not isinstance(asked.plan, WarmPlan):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="edgespec-bench-") as folder:
        yield Path(folder) / "edgespec.db"
