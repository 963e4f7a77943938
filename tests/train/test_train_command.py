"""`edgespec learn drafter` from recorded answers to a drafter that guesses better, with breaks."""

from __future__ import annotations

import dataclasses
import re
import signal
import sys
from pathlib import Path

import pytest
from cli_support import Cli, Ended
from rigs import SMALL
from tiny_models import write_tiny_model
from train_support import record_answers

from edgespec import errors
from edgespec.learning.lessons import LEAST_ANSWERS
from edgespec.learning.lora import read_about
from edgespec.learning.trainings import TrainingStore

COMMAND = (sys.executable, "-P", "-m", "edgespec")
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384)
NUM_ANSWERS = 48


@dataclasses.dataclass
class Home:
    """A home with recorded answers, and a drafter that knows nothing of them."""

    cli: Cli
    folder: Path
    drafter: Path

    @property
    def store(self) -> TrainingStore:
        return TrainingStore(self.folder / "adaptations")

    @property
    def arguments(self) -> tuple[str | Path, ...]:
        on = ("--drafter", self.drafter, "--model", self.cli.quick, "--threads", "1")
        return ("learn", "drafter", *on)

    def train(self, *arguments: str | Path) -> Ended:
        return self.run(*self.arguments, *arguments)

    def run(self, *arguments: str | Path) -> Ended:
        with self.cli.started(*arguments, home=self.folder, command=COMMAND) as running:
            return running.end()


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    cli = Cli.of(tmp_path_factory)
    folder = cli.remembered_in(tmp_path / "home").data
    record_answers(folder, cli.quick, NUM_ANSWERS)
    return Home(cli, folder, write_tiny_model(tmp_path / "small.gguf", DRAFTER))


def test_a_drafter_learns_and_serves(home: Home) -> None:
    ended = home.train("--steps", "60")
    assert ended.returncode == 0, ended.stderr
    assert "it serves from now on" in ended.stderr
    (lora,) = home.store.loras()
    about = read_about(lora)
    assert about.share_trained > about.share_alone + 0.1
    assert (about.num_answers, about.drafter_name) == (NUM_ANSWERS, "small")
    asked = ("--max-tokens", "24", "--json", "Tell me a story.")
    on = ("run", *home.cli.on_quick, "--drafter", home.drafter, "--no-learn", *asked)
    drafted = home.run(*on)
    assert drafted.returncode == 0, drafted.stderr
    plain = home.run("run", *home.cli.on_quick, "--no-speculation", "--no-learn", *asked)
    assert drafted.json()["token_ids"] == plain.json()["token_ids"]
    assert "without what it was trained" not in drafted.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_goes_on(home: Home, number: signal.Signals) -> None:
    started = home.cli.started(*home.arguments, home=home.folder, command=COMMAND)
    with started as running:
        running.wait_for("held-out agreement", "stderr")
        ended = running.stop(number)
    assert ended.returncode == (130 if number == signal.SIGINT else 143)
    found = re.search(
        r"stopped after (\d+) steps; `edgespec learn drafter --resume` goes", ended.stderr
    )
    assert found is not None, ended.stderr
    assert "Traceback" not in ended.stderr
    assert home.store.loras() == []
    assert len(home.store.trainings()) == 1
    status = home.run("learn", "status")
    assert f"can go on after {found[1]} steps" in status.stdout

    record_answers(home.folder, home.cli.quick, NUM_ANSWERS)  # another guide, other lessons
    num_steps = int(found[1]) + 3
    ended = home.train("--resume", "--steps", str(num_steps))
    assert ended.returncode == 0, ended.stderr
    assert "held-out tokens small guesses" in ended.stderr.replace("\n", " ")
    assert f"can go on after {num_steps} steps" in home.run("learn", "status").stdout


def test_what_there_is_nothing_to_go_on_with(home: Home) -> None:
    ended = home.train("--resume", "--steps", "5")
    assert ended.returncode == errors.UsageError.exit_code
    assert "leave out --resume" in ended.stderr
    home.store.ensure()
    ended = home.train("--steps", "1")
    assert ended.returncode == 0, ended.stderr
    (training,) = home.store.trainings()
    training.write_bytes(training.read_bytes()[:-1000])
    ended = home.train("--resume", "--steps", "5")
    assert ended.returncode == errors.StorageError.exit_code
    assert "without --resume" in ended.stderr


def test_too_few_answers_are_not_learned_from(home: Home, tmp_path: Path) -> None:
    folder = home.cli.remembered_in(tmp_path / "empty").data
    record_answers(folder, home.cli.quick, LEAST_ANSWERS - 1)
    ended = dataclasses.replace(home, folder=folder).train("--steps", "5")
    assert ended.returncode == errors.UsageError.exit_code
    assert f"{LEAST_ANSWERS - 1} answers of quick are kept, too few" in ended.stderr


def test_what_cannot_be_trained_is_refused(home: Home, tmp_path: Path) -> None:
    recurrent = write_tiny_model(
        tmp_path / "mamba.gguf", dataclasses.replace(SMALL, architecture="mamba")
    )
    ended = dataclasses.replace(home, drafter=recurrent).train()
    assert ended.returncode == errors.ModelFileError.exit_code
    assert "cannot be trained: its architecture is mamba" in ended.stderr
    for arguments in (("--steps", "5"), ()):
        on = ("learn", "drafter", "--model", home.cli.quick, *arguments)
        ended = home.run(*on)
        assert ended.returncode == errors.UsageError.exit_code
        assert "--drafter" in ended.stderr
