"""Running a benchmark: load, measure in a thread, keep each question as it ends, print."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console

from edgespec import __version__
from edgespec.bench.progress import Progress
from edgespec.bench.recorder import Recorder
from edgespec.bench.records import (
    ProgramForm,
    Report,
    TargetForm,
    Way,
    read_report,
)
from edgespec.bench.resume import check_same, left_of
from edgespec.bench.runner import Asker, Runner, Stopped
from edgespec.bench.same import check_same_bytes, differences
from edgespec.bench.suite import Question
from edgespec.bench.warm import learn
from edgespec.bench.ways import Peer
from edgespec.cli.bench_asked import Asked
from edgespec.cli.bench_peers import opened_peers
from edgespec.cli.bench_written import Output, commit, machine_form
from edgespec.cli.loading import load_completer, may_draft, settle
from edgespec.errors import ContextOverflowError, StorageError
from edgespec.machine.identity import read_bandwidth
from edgespec.runtime.choice import sha256_of
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running
from edgespec.runtime.target import pass_bytes
from edgespec.runtime.ways import BASELINES

_MOST_TOLD = 5
"""Differences that are shown."""


def run_bench(loading: LoadRequest, asked: Asked, output: Output, resume: bool) -> None:
    """Measure, keep what is measured and print; with `resume` go on with what the file lacks.

    Raises what loading raises, StorageError, ContextOverflowError where no question fits, and
    ExactnessError where an answer differs though the same bytes are promised.
    """
    output.check()
    file, earlier = output.json, None
    if resume and file is not None and file.exists():
        earlier = read_report(file)
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        loading = dataclasses.replace(loading, memory_at=_memory_file(asked, stack))
        loaded = stack.enter_context(_loaded(loading, asked, recorder))
        others = stack.enter_context(opened_peers(asked.peers, loading))
        measuring = _Measuring(loaded, recorder, asked, output, *others)
        try:
            measuring.run(earlier)
        finally:  # what was measured before Ctrl-C is not lost
            measuring.tell()
    if not measuring.report.runs:
        raise ContextOverflowError("no question fits the context", "use a larger --context")
    check_same_bytes(measuring.report)


def _loaded(loading: LoadRequest, asked: Asked, recorder: Recorder) -> Running:
    """Target and drafters; models that may draft are weighed first where that was not done yet."""
    loaded = load_completer(loading, asked.sampling, (recorder,))
    form = loaded.drafters.form
    if not may_draft(loading) or (form is not None and form.running != form.whole):
        return loaded
    loaded.close()
    settle(loading)
    return load_completer(loading, asked.sampling, (recorder,))


class _Measuring:
    """One benchmark under way: `report` is what is measured by now."""

    def __init__(
        self,
        loaded: Running,
        recorder: Recorder,
        asked: Asked,
        output: Output,
        peers: Sequence[Peer],
        left_out: Sequence[str],
    ) -> None:
        self._loaded = loaded
        self._recorder = recorder
        self._asked = asked
        self._output = output
        self._peers = peers
        self._left_out = left_out
        self._asker = Asker(loaded.completer)
        self._product = loaded.engine.planner
        self.report = _header(loaded, asked)

    def run(self, earlier: Report | None) -> None:
        """Measure what `earlier` does not have.

        In a thread: Python runs signal handlers between byte codes of the main thread, and one that
        waits inside llama.cpp would notice a signal only when the pass is over.
        """
        questions = self._asked.questions
        num_left = len(left_of(questions, earlier)) if earlier is not None else len(questions)
        console = Console(stderr=True, markup=False, highlight=False)
        with (
            Progress(len(questions), len(questions) - num_left, console) as progress,
            ThreadPoolExecutor(1) as pool,  # leaving it waits until the thread is out of llama.cpp
        ):
            try:
                pool.submit(self._measure, earlier, progress).result()
            finally:
                self._asker.stop()
                for peer in self._peers:
                    peer.close()

    def tell(self) -> None:
        """Print the table, and where answers differ; write the page."""
        report = self.report
        if not report.runs:
            return
        self._output.show(report)
        lines = tuple(differences(report))
        for line in lines[:_MOST_TOLD]:
            click.echo(line, err=True)
        if len(lines) > _MOST_TOLD:
            click.echo(f"and {len(lines) - _MOST_TOLD} more", err=True)

    def _measure(self, earlier: Report | None, progress: Progress) -> None:
        """In the thread: learn and measure, step by step; ways begin with what was learned."""
        asked, memory = self._asked, self._loaded.memory
        runner: Runner | None = None
        if memory is not None:
            memory.is_learning = False  # but of what is to be learned
        with contextlib.suppress(Stopped):
            for step in asked.plan.steps:
                if step.does == "learn":
                    self._learn(step.questions, progress.say)
                    continue
                if runner is None:
                    runner = self._runner(earlier, progress)
                    runner.begin()
                left = step.questions if earlier is None else left_of(step.questions, earlier)
                runner.measure(left)
            if runner is not None:
                runner.finish()

    def _learn(self, questions: Sequence[Question], say: Callable[[str], None]) -> None:
        """Have what the product answers be remembered."""
        asked, loaded = self._asked, self._loaded
        if loaded.memory is None:
            raise StorageError("there is no place for a database", "free space for temporary files")
        loaded.engine.plan_with(self._product)
        complete = self._asker.complete
        learn(complete, loaded.memory, questions, asked.sampling, asked.max_tokens, say)

    def _runner(self, earlier: Report | None, progress: Progress) -> Runner:
        """Who asks every way, from what was measured before on."""
        asked = self._asked
        ways = self._loaded.ways(asked.ways, asked.forms)

        def keep(report: Report) -> None:
            self.report = report
            self._output.keep(report)
            progress.show(report)

        return Runner(
            self._asker,
            ways,
            self._recorder,
            asked.sampling,
            asked.max_tokens,
            self._begun(ways.about, earlier),
            keep,
            lambda: read_bandwidth(self._loaded.machine.num_threads, seconds=0.1),
            self._peers,
        )

    def _begun(self, about: Mapping[str, str], earlier: Report | None) -> Report:
        """The report to begin with; raises UsageError where `earlier` was of something else."""
        ways = [
            Way(name=name, about=sentence, is_planned=name not in BASELINES)
            for name, sentence in about.items()
        ]
        ways += [Way(name=each.name, about=each.about, is_peer=True) for each in self._peers]
        left_out = tuple(self._left_out)
        begun = self.report.model_copy(update={"ways": tuple(ways), "left_out": left_out})
        if earlier is None:
            return begun
        check_same(begun, earlier)
        self.report = earlier.model_copy(update={"is_complete": False})
        return self.report


def _header(loaded: Running, asked: Asked) -> Report:
    """What a report tells besides its runs."""
    model = loaded.completer.model
    return Report(
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        machine=machine_form(loaded.machine),
        program=ProgramForm(
            version=__version__, commit=commit(), library=str(model.settings["library"])
        ),
        target=TargetForm(
            name=model.name,
            description=model.description,
            quantization=model.details.quantization,
            size_bytes=model.size_bytes,
            pass_bytes=pass_bytes(loaded.model),
            sha256=sha256_of(loaded.model.path, loaded.home.facts, loaded.home.paths),
            drafter=model.drafter,
            exactness=model.exactness,
            settings=dict(model.settings),
        ),
        asked=asked.form,
        ways=(),
    )


def _memory_file(asked: Asked, stack: contextlib.ExitStack) -> Path | None:
    """Where a warm run keeps its memory, until `stack` ends."""
    if asked.plan.warm is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="edgespec-bench-")
    return Path(stack.enter_context(folder)) / "edgespec.db"
