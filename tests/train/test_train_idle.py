"""A drafter learns by itself from what is recorded, with breaks, and drafts from then on."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import Cli
from rigs import SMALL
from tiny_models import write_tiny_model
from train_support import record_answers

from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import LEARNED
from edgespec.learning.checkpoint import read_checkpoint
from edgespec.learning.claim import Claim
from edgespec.learning.lora import read_about
from edgespec.learning.trainings import TrainingStore
from edgespec.paths import Paths
from edgespec.runtime import idle_training
from edgespec.runtime.idle_training import Surroundings
from edgespec.runtime.learner import Learner
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import Running, load
from edgespec.runtime.train_child import Told, arguments_of
from edgespec.runtime.unlearning import forget_learned_by_itself
from edgespec.types import CompletionRequest, SamplingParams

COMMAND = (sys.executable, "-P", "-m", "edgespec")
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384)
NUM_ANSWERS = 96
PATIENCE_S = 240.0


class Home:
    """A home with recorded answers, and a drafter that knows nothing of them."""

    def __init__(self, cli: Cli, folder: Path, drafter: Path) -> None:
        self.cli = cli
        self.paths = Paths(folder, folder / "cache")
        self.drafter = drafter
        self.store = TrainingStore(self.paths.adaptations)
        self.store.ensure()
        claim = Claim.take(self.store.claim("a" * 16, "b" * 16))
        assert claim is not None
        self.claim = claim

    def learner(self, seconds: float) -> Learner:
        path = self.claim.path
        return Learner(arguments_of(self.cli.quick, self.drafter, self.paths, path, 1, seconds))

    def outcome(self, seconds: float) -> Told:
        learner = self.learner(seconds)
        try:
            assert learner.wait(PATIENCE_S)
            return Told(**learner.outcome())
        finally:
            learner.close()

    def wait_for_checkpoint(self, learner: Learner) -> Path:
        wait_until(lambda: learner.wait(0.0) or bool(self.store.idles()))
        (checkpoint,) = self.store.idles()
        return checkpoint

    def status(self) -> str:
        with self.cli.started("learn", "status", home=self.paths.data, command=COMMAND) as running:
            return running.end().stdout


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    cli = Cli.of(tmp_path_factory)
    folder = cli.remembered_in(tmp_path / "home").data
    record_answers(folder, cli.quick, NUM_ANSWERS)
    made = Home(cli, folder, write_tiny_model(tmp_path / "small.gguf", DRAFTER))
    yield made
    made.claim.give_up()


def test_what_was_learned_by_itself_serves(home: Home) -> None:
    told = home.outcome(10.0)
    assert told.serves, told
    assert "it serves from now on" in told.line
    (lora,) = home.store.loras()
    assert read_about(lora).by_itself
    assert home.store.idles() == home.store.trainings() == []
    assert "learned by itself" in home.status()


def test_one_that_was_ended_goes_on_after_a_break(home: Home) -> None:
    learner = home.learner(1000.0)
    checkpoint = home.wait_for_checkpoint(learner)
    learner.abort()
    assert not learner.is_killed
    before, written = read_checkpoint(checkpoint), checkpoint.stat().st_mtime_ns
    time.sleep(1.0)
    assert checkpoint.stat().st_mtime_ns == written, "it was stopped"
    learner.close()
    assert "small trained for quick: learns by itself, " in home.status()
    told = home.outcome(5.0)
    assert told.serves, told
    (lora,) = home.store.loras()
    assert read_about(lora).num_steps > before.progress.num_steps
    assert home.store.idles() == []


def test_one_that_cannot_go_on_begins_anew(home: Home) -> None:
    learner = home.learner(1000.0)
    checkpoint = home.wait_for_checkpoint(learner)
    learner.close()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    told = home.outcome(5.0)
    assert told.serves, told
    assert home.store.idles() == []


def test_nothing_stays_of_what_is_forgotten_meanwhile(home: Home) -> None:
    learner = home.learner(1000.0)
    home.wait_for_checkpoint(learner)
    home.store.delete(home.store.all())
    assert learner.wait(PATIENCE_S)
    assert Told(**learner.outcome()).is_forgotten
    assert home.store.all() == []


def test_what_was_asked_for_is_set_aside(home: Home) -> None:
    learner = ("learn", "drafter", "--drafter", home.drafter, "--model", home.cli.quick)
    asked = (*learner, "--threads", "1", "--steps", "12")
    with home.cli.started(*asked, home=home.paths.data, command=COMMAND) as running:
        ended = running.end()
    assert "it serves from now on" in ended.stderr
    (lora,) = home.store.loras()
    before = lora.read_bytes()
    told = home.outcome(8.0)
    assert told.serves, told
    assert read_about(lora).by_itself
    with open_database(home.paths.database) as database:
        forget_learned_by_itself(Facts(database), home.store.folder)
    assert lora.read_bytes() == before
    assert not read_about(lora).by_itself


def test_too_little_is_told_to_nobody(home: Home, tmp_path: Path) -> None:
    folder = home.cli.remembered_in(tmp_path / "empty").data
    record_answers(folder, home.cli.quick, 3)
    empty = Home(home.cli, folder, home.drafter)
    assert empty.outcome(5.0) == Told(is_too_soon=True)
    empty.claim.give_up()


def answer(running: Running) -> tuple[int, ...]:
    sampling = SamplingParams(temperature=0.8, seed=5)
    *_, last = running.completer.answer(CompletionRequest("Tell me.", sampling, max_tokens=24))
    assert last.completion is not None
    return last.completion.token_ids


def is_trained(running: Running) -> bool:
    form = running.drafters.form
    assert form is not None
    return form.merged is not None


def test_it_drafts_from_the_next_answer_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_training, "LEAST_NEW", 1000)
    monkeypatch.setattr(idle_training, "MOST_SECONDS", 8.0)
    quiet = functools.partial(Surroundings, lambda: False, lambda: None, lambda: None, 0.2)
    monkeypatch.setattr(idle_training, "Surroundings", quiet)
    lines: list[str] = []
    request = LoadRequest(drafter="small", drafter_path=home.drafter, num_threads=1)
    with load(request, home.cli.quick, home.paths, lines.append) as running:
        assert not is_trained(running)
        said = answer(running)
        wait_until(lambda: "small learns from your chats" in running.idle.doing)
        wait_until(lambda: bool(home.store.idles() or home.store.loras()))
        assert answer(running) == said
        assert running.idle.wait(PATIENCE_S)
        assert is_trained(running)
        assert answer(running) == said
    (line,) = [line for line in lines if "by itself" in line]
    assert line.startswith("small learned from your chats by itself: of ")
    with open_database(home.paths.database) as database:
        row = database.connection.execute(
            "SELECT value FROM facts WHERE kind = ?", (LEARNED,)
        ).fetchone()
        assert json.loads(row[0])["sequence"] >= NUM_ANSWERS
        assert Facts(database).forget(LEARNED) == 1
    monkeypatch.setattr(idle_training, "Learner", None)  # nothing is started
    request = dataclasses.replace(request, learn=False)
    with load(request, home.cli.quick, home.paths, lines.append) as running:
        assert running.idle.wait(PATIENCE_S)
        assert is_trained(running)
        assert answer(running) == said
