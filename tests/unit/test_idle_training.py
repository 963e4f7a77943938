"""Learning by itself: for a reason, on a quiet machine, in a process that computes in no answer."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import counting_learner
import psutil
import pytest
from token_support import VOCABULARY, Recorded

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import LEARNED
from edgespec.errors import Cancelled, StorageError, UsageError
from edgespec.learning.claim import Claim
from edgespec.learning.trainings import TrainingStore
from edgespec.machine.available import OthersMeter, is_on_battery, own_seconds
from edgespec.machine.facts import file_fingerprint
from edgespec.paths import Paths
from edgespec.pauses import NO_PAUSE, Pause
from edgespec.protocols import Observation
from edgespec.runtime import train_child
from edgespec.runtime.form import Form
from edgespec.runtime.idle import IdleWorker
from edgespec.runtime.idle_training import LEAST_NEW, IdleTraining, Learning, Surroundings
from edgespec.runtime.selection import FormSearch, Selection
from edgespec.runtime.train_child import Told, arguments_of, told
from edgespec.runtime.unlearning import forget_learned, forget_learned_by_itself
from edgespec.types import Completion, CompletionRequest, EncodedPrompt, SpeculationStats, Timings

PATIENCE_S = 30.0
LOOK_S = 0.05
PROGRAM = (sys.executable, "-P", counting_learner.__file__)
COMPLETION = Completion("", (1,), "stop", Timings(0, 0, 0, 1, 0, 1), SpeculationStats())
SERVES = Told("it guesses better", serves=True)


class Bench:
    """A worker with the task alone, in a home of its own; the machine is as the test says."""

    def __init__(self, folder: Path, recorded: Recorded) -> None:
        self.folder = folder
        self.recorded = recorded
        self.facts = Facts(recorded.database)
        self.whole = folder / "small.gguf"
        self.whole.write_bytes(b"weights")
        self.form: Form | None = Form(self.whole)
        self.paths = Paths(folder, folder / "cache")
        self.store = TrainingStore(self.paths.adaptations)
        self.is_on_battery = False
        self.free: int | None = None
        self.busy_share = 0.0
        self.lines: list[str] = []
        self.num_served = 0
        self.training = self.made()
        self.worker = IdleWorker(self.lines.append, [self.training], rest_s=0.01)

    def made(self) -> IdleTraining:
        path = self.paths.database
        learning = Learning(self.folder / "big.gguf", VOCABULARY, path, self.paths, 2)
        around = Surroundings(lambda: self.is_on_battery, lambda: self.free, self.busy_s, LOOK_S)
        program = (*PROGRAM, str(self.folder))
        return IdleTraining(
            learning, lambda: self.form, self.serve, self.lines.append, around, program
        )

    def busy_s(self) -> float:
        """What all cores were busy with: ourselves, and others as busy as the test says."""
        return own_seconds(self.starts()[-1:]) + self.busy_share * time.monotonic()

    def serve(self, pause: Pause) -> None:
        pause()
        self.num_served += 1

    def say(self, num_tokens: int = LEAST_NEW) -> int:
        return self.recorded.add([*range(100)] * (num_tokens // 100))

    @property
    def key(self) -> str:
        return f"{VOCABULARY.fingerprint}|{file_fingerprint(self.whole)}"

    @property
    def learned(self) -> int:
        """Up to which answer it learned."""
        return int((self.facts.get(LEARNED, self.key) or {}).get("sequence", 0))

    @property
    def claim(self) -> Path:
        return self.store.claim(VOCABULARY.fingerprint, file_fingerprint(self.whole))

    def begin(self) -> Observation:
        return self.worker.open(CompletionRequest("a"), EncodedPrompt((1,)))

    def answer(self) -> None:
        self.begin().close(COMPLETION)

    def end(self, outcome: Told | str) -> None:
        """Have the process end with an outcome, and the worker have nothing more to do."""
        text = outcome if isinstance(outcome, str) else json.dumps(dataclasses.asdict(outcome))
        scratch = self.folder / "outcome.part"
        scratch.write_text(text)
        scratch.rename(self.folder / "outcome")
        assert self.worker.wait(PATIENCE_S)

    def starts(self) -> list[int]:
        """The processes that were started."""
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in (self.folder / "starts").read_text().split()]
        return []

    def count(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return int((self.folder / "count").read_text())
        return 0

    def has_counted(self) -> bool:
        """Whether it counts now."""
        before = self.count()
        return wait_until(lambda: self.count() > before, seconds=5.0)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def has_ended(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_database(tmp_path / "edgespec.db") as database:
        made = Bench(tmp_path, Recorded(database))
        with made.worker:
            yield made
        made.training.close()
        assert all(has_ended(number) for number in made.starts())


def test_it_computes_in_no_answer_and_serves_when_it_learned(bench: Bench) -> None:
    newest = bench.say()
    bench.worker.start()
    assert wait_until(bench.has_counted)
    assert bench.worker.doing == "small learns from your chats"
    for _ in range(3):
        began = time.monotonic()
        answering = bench.begin()
        assert time.monotonic() - began < 0.1
        time.sleep(0.02)  # what was being written
        count = bench.count()
        time.sleep(0.1)
        assert bench.count() == count
        answering.close(COMPLETION)
        assert bench.has_counted()
    assert len(bench.starts()) == 1
    told = (bench.folder / "told").read_text().split("\n")
    assert told == arguments_of(
        bench.folder / "big.gguf", bench.whole, bench.paths, bench.claim, 2, 1200.0
    )
    bench.end(SERVES)
    assert bench.num_served == 1
    assert bench.lines == ["small learned from your chats by itself: it guesses better"]
    assert bench.learned == newest
    assert not bench.claim.exists()
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert len(bench.starts()) == 1, "nothing new was said"


def test_it_learns_again_when_enough_was_said(bench: Bench) -> None:
    bench.say()
    bench.end(Told("it is kept out"))
    bench.worker.start()
    assert bench.worker.wait(PATIENCE_S)
    assert (bench.num_served, bench.lines) == (0, [])
    bench.say(LEAST_NEW - 100)
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert len(bench.starts()) == 1
    newest = bench.say(100)
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert len(bench.starts()) == 2
    assert bench.learned == newest


def test_without_a_reason_nothing_is_started(bench: Bench) -> None:
    bench.say(LEAST_NEW - 100)
    bench.worker.start()
    assert bench.worker.wait(PATIENCE_S)
    bench.form = None
    bench.say()
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert bench.starts() == []
    assert not bench.store.folder.exists()


@pytest.mark.parametrize("what", ["battery", "load", "memory"])
def test_it_waits_for_mains_and_a_quiet_machine(bench: Bench, what: str) -> None:
    def set_obstacle(is_there: bool) -> None:
        bench.is_on_battery = is_there and what == "battery"
        bench.busy_share = 1.5 if is_there and what == "load" else 0.5
        bench.free = 1 << 30 if is_there and what == "memory" else 1 << 40

    set_obstacle(True)
    bench.say()
    bench.worker.start()
    assert not bench.worker.wait(5 * LOOK_S), "it looks again and again"
    assert bench.worker.doing == "small waits to learn from your chats"
    assert bench.starts() == []
    began = time.monotonic()
    answering = bench.begin()
    assert time.monotonic() - began < 0.1
    answering.close(COMPLETION)
    set_obstacle(False)
    assert wait_until(bench.has_counted)
    if what == "memory":
        return
    set_obstacle(True)
    assert wait_until(lambda: bench.worker.doing == "small waits to learn from your chats")
    assert wait_until(lambda: not has_moved(bench))
    set_obstacle(False)
    assert wait_until(bench.has_counted)
    assert len(bench.starts()) == 1


def has_moved(bench: Bench) -> bool:
    count = bench.count()
    time.sleep(0.05)
    return bench.count() != count


def test_while_it_reads_it_is_ended_and_begun_again(bench: Bench) -> None:
    (bench.folder / "unread").touch()
    bench.say()
    bench.worker.start()
    assert wait_until(bench.has_counted)
    answering = bench.begin()
    (first,) = bench.starts()
    assert wait_until(lambda: has_ended(first))
    answering.close(COMPLETION)
    assert wait_until(lambda: len(bench.starts()) == 2)
    bench.end(SERVES)
    assert bench.num_served == 1


@pytest.mark.parametrize("outcome", [Told(problem="the disk is full"), "Killed"])
def test_what_goes_wrong_is_told_once_and_not_tried_again(
    bench: Bench, outcome: Told | str
) -> None:
    bench.say()
    bench.end(outcome)
    bench.worker.start()
    assert bench.worker.wait(PATIENCE_S)
    (line,) = bench.lines
    assert line.startswith("small waits to learn from your chats no more in this run: ") or (
        line.startswith("small learns from your chats no more in this run: ")
    )
    assert "disk is full" in line or "ended with status 0" in line
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert (len(bench.starts()), len(bench.lines), bench.learned) == (1, 1, 0)
    assert not bench.claim.exists()


def test_what_cannot_be_learned_yet_is_not_told(bench: Bench) -> None:
    bench.say()
    bench.end(Told(is_too_soon=True))
    bench.worker.start()
    assert bench.worker.wait(PATIENCE_S)
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert (len(bench.starts()), bench.lines, bench.learned) == (1, [], 0)


def test_what_was_forgotten_meanwhile_does_not_serve(bench: Bench) -> None:
    bench.say()
    bench.worker.start()
    assert wait_until(bench.has_counted)
    assert forget_learned(bench.facts, bench.paths)
    assert bench.store.all() == []
    bench.form = None  # it would begin again with what is left
    bench.end(SERVES)
    assert (bench.num_served, bench.lines, bench.learned) == (0, [], 0)


def test_a_database_that_cannot_be_written_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = bench.say()
    bench.end(SERVES)
    with monkeypatch.context() as patched:
        patched.setattr(Facts, "put", lambda *_arguments: False)
        bench.worker.start()
        assert bench.worker.wait(PATIENCE_S)
        bench.answer()
        assert bench.worker.wait(PATIENCE_S)
        assert (len(bench.starts()), bench.num_served) == (1, 1)
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert (len(bench.starts()), bench.learned) == (1, newest)


def test_one_process_at_a_time_learns_for_a_pair(bench: Bench) -> None:
    bench.say()
    bench.store.ensure()
    other = Claim.take(bench.claim)
    assert other is not None
    assert Claim.take(bench.claim) is None
    bench.end(SERVES)
    bench.worker.start()
    assert bench.worker.wait(PATIENCE_S)
    assert bench.starts() == []
    bench.claim.unlink()
    assert not other.holds
    again = Claim.take(bench.claim)
    assert again is not None
    other.give_up()
    assert again.holds
    again.give_up()
    bench.answer()
    assert bench.worker.wait(PATIENCE_S)
    assert bench.num_served == 1
    with pytest.raises(StorageError):
        Claim.take(bench.folder / "nowhere" / "claim")


HOST = """
import sys, time
from pathlib import Path
from edgespec.runtime.learner import Learner
learner = Learner(sys.argv[1:2], sys.argv[2:])
while not (Path(sys.argv[1]) / "count").exists():
    time.sleep(0.01)
time.sleep(0.2)
if sys.stdin.readline() == "stop\\n":
    learner.abort()
print(learner.pid, learner.is_killed, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("is_stopped", [False, True])
def test_it_ends_with_a_host_that_is_killed(tmp_path: Path, is_stopped: bool) -> None:
    """Also one that is stopped, and notices nothing itself."""
    command = [sys.executable, "-P", "-c", HOST, str(tmp_path), *PROGRAM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(b"stop\n" if is_stopped else b"go on\n")
        host.stdin.flush()
        number, is_killed = host.stdout.readline().split()
        assert is_killed == b"False"
        child = psutil.Process(int(number))
        if is_stopped:
            assert wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
        else:
            assert child.status() != psutil.STATUS_STOPPED
        host.kill()
    assert wait_until(lambda: has_ended(int(number)))


# -- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("12 answers are kept, too few"), Told(is_too_soon=True)),
        (StorageError("the disk is full"), Told(problem="the disk is full")),
        (Cancelled(), Told(is_forgotten=True)),
        (OSError("no such disk"), Told(problem="OSError: no such disk")),
        (MemoryError(), Told(problem="not enough memory")),
        (RuntimeError("no\nkernel"), Told(problem="RuntimeError: no kernel")),
    ],
)
def test_the_process_tells_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: Told
) -> None:
    def learn(_arguments: list[str], _ready: Callable[[], None]) -> Told:
        raise error

    monkeypatch.setattr(train_child, "learn", learn)
    assert told([], lambda: None) == expected


def test_the_process_says_nothing_else_and_gives_way(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("target", "drafter", "data", "cache", "claim")]
    arguments = [*(str(name) for name in names), "2", "5"]
    command = [sys.executable, "-P", "-m", "edgespec.runtime.train_child", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None

        def gives_way() -> bool:
            is_over = child.poll() is not None
            return is_over or os.getpriority(os.PRIO_PROCESS, child.pid) == 19

        assert wait_until(gives_way)
        (line,) = child.stdout.read().splitlines()
        assert Told(**json.loads(line)) == Told(is_forgotten=True), "there is no claim"
        assert child.stderr.read() == b""


# -- the machine ----------------------------------------------------------------------------------


def test_what_others_keep_busy_is_told_from_look_to_look() -> None:
    busy_s, own_s = iter([100.0, 103.0, 103.0, 200.0]), iter([10.0, 11.0, 12.0, 12.0])
    clock = itertools.count(step=4).__next__
    meter = OthersMeter(lambda: next(busy_s), lambda: float(clock()))
    found = [meter.look(next(own_s)) for _ in range(4)]
    assert found == [None, (3 - 1) / 4, 0.0, 97 / 4]
    assert OthersMeter(lambda: None).look(1.0) is None


def test_our_own_work_is_no_load_of_others() -> None:
    before = own_seconds()
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    assert own_seconds([os.getpid()]) >= 2 * before
    assert own_seconds() >= before + 0.05
    assert own_seconds([1 << 30]) >= before
    meter = OthersMeter()
    meter.look(own_seconds())
    time.sleep(0.05)
    found = meter.look(own_seconds())
    assert found is None or 0 <= found < 4096


@pytest.mark.parametrize(
    ("plugged", "expected"), [(False, True), (True, False), (None, False), ("no battery", False)]
)
def test_unknown_power_counts_as_mains(
    monkeypatch: pytest.MonkeyPatch, plugged: object, expected: bool
) -> None:
    @dataclasses.dataclass
    class Battery:
        power_plugged: object

    def sensors() -> object:
        return None if plugged == "no battery" else Battery(plugged)

    monkeypatch.setattr(psutil, "sensors_battery", sensors, raising=False)
    assert is_on_battery() == expected


def test_a_system_that_knows_no_power_runs_on_mains(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> object:
        raise OSError("no such file")

    monkeypatch.setattr(psutil, "sensors_battery", fails, raising=False)
    assert not is_on_battery()
    monkeypatch.delattr(psutil, "sensors_battery")
    assert not is_on_battery()


def test_what_was_learned_by_itself_goes_alone(bench: Bench) -> None:
    bench.store.ensure()
    pair = "1" * 32, "2" * 32
    asked = bench.store.training(*pair)
    idle, claim = bench.store.idle(*pair), bench.store.claim(*pair)
    for path in (asked, idle, claim):
        path.touch()
    bench.facts.put(LEARNED, bench.key, {"sequence": 7})
    forget_learned_by_itself(bench.facts, bench.store.folder)
    assert bench.store.all() == [asked]
    assert bench.learned == 0


@dataclasses.dataclass
class Weighed:
    """Stands for the stages of a model that drafts, all weighed already."""

    form: Form
    trials: object = None

    def __post_init__(self) -> None:
        self.trials = self

    def loading(self, _path: Path) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def unsettled(self) -> list[Path]:
        return []

    def fit(self, _pass_ms: object, _pause: object) -> Weighed:
        return self


def test_what_is_learned_again_drafts_as_soon_as_there_is_room(tmp_path: Path) -> None:
    before, after = (Form(tmp_path, None, tmp_path / name) for name in ("before", "after"))
    weighed, exchanged, is_room = Weighed(before), [], False
    for form in (before, after):
        form.running.touch()

    def exchange(form: Form, _pause: Pause) -> bool:
        exchanged.append(form)
        return is_room

    search = FormSearch(cast("Selection", weighed), dict, before, exchange)
    search.run(NO_PAUSE)
    weighed.form = after
    search.run(NO_PAUSE)
    assert exchanged == [], "rows that follow make another file of the same training"
    search.serve_learned(NO_PAUSE)
    is_room = True
    search.run(NO_PAUSE)
    assert exchanged == [after, after]
    search.run(NO_PAUSE)
    assert exchanged == [after, after]
    weighed.form = Form(tmp_path)
    after.running.unlink()
    search.run(NO_PAUSE)
    assert exchanged[2:] == [weighed.form], "what is forgotten drafts no more"


def test_signals_of_the_terminal_do_not_reach_it(bench: Bench) -> None:
    bench.say()
    bench.worker.start()
    assert wait_until(bench.has_counted)
    (number,) = bench.starts()
    assert os.getpgid(number) == number != os.getpgrp()
    assert os.getsid(number) == os.getsid(0), "else the system would not end it when it is stopped"
    os.kill(number, signal.SIGKILL)
    assert bench.worker.wait(PATIENCE_S)
    (line,) = bench.lines
    assert line.endswith("the training ended by signal 9")
