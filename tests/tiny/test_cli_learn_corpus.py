"""`edgespec learn corpus` on a tiny model: what is kept is what the target said and knew."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from cli_support import Cli, Ended
from gguf import quants

from edgespec.gguf.file import GgufFile
from edgespec.learning.corpus import Corpus, Said
from edgespec.learning.prompts import all_asked
from edgespec.machine.facts import file_fingerprint

AT_ONCE = ("--threads", "1")


class Home:
    """A home of its own, and the corpus that is made in it."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli = cli
        self.folder = cli.remembered_in(folder).data

    @property
    def arguments(self) -> tuple[str | Path, ...]:
        return ("learn", "corpus", "--model", self.cli.quick, *AT_ONCE)

    def make(self, *arguments: str | Path) -> Ended:
        return self.cli.run(*self.arguments, *arguments, home=self.folder)

    @property
    def corpus(self) -> Corpus:
        return Corpus(self.folder / "corpora", file_fingerprint(self.cli.quick))

    def answers(self) -> list[Said]:
        def unexpected(line: str) -> None:
            raise AssertionError(line)

        return list(self.corpus.read(unexpected))


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(Cli.of(tmp_path_factory), tmp_path / "home")


def test_what_is_kept_is_what_the_target_says_and_knows(home: Home) -> None:
    ended = home.make("--tokens", "3000", "--states")
    assert ended.returncode == 0, ended.stderr
    answers = home.answers()
    assert 3000 <= sum(len(each.tokens) for each in answers) <= 3000 + 2 * 16 * 256
    assert f"in {len(answers)} answers" in ended.stderr
    asked = {each.key: each for each in all_asked()}
    tensor = GgufFile(home.cli.quick).tensors["token_embd.weight"]
    head = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
    for said in answers:
        first = asked[said.key].messages
        assert said.messages[: len(first)] == first
        assert len(said.tokens) == len(said.top.tokens)
        chances = np.exp(said.top.logprobs.astype(np.float32))
        assert np.all(chances.sum(1) < 1.01)
        if not said.temperature:
            assert np.array_equal(said.top.tokens[:, 0], said.tokens)
        assert said.states is not None
        told = said.states.scales > 0
        assert told[1:].all(), "only the first token is read off a pass that gives no states"
        guessed = (said.states.as_floats()[told] @ head.T).argmax(1)
        likeliest = said.top.tokens[told, 0]
        assert (guessed == likeliest).mean() > 0.9, "a state is what a token is read off"
    assert {each.temperature > 0 for each in answers} == {False, True}


def test_it_ends_with_what_is_finished_and_goes_on(home: Home) -> None:
    started = home.cli.started(*home.arguments, "--tokens", "400000", home=home.folder)
    with started as running:
        running.wait_for(" a second", "stderr")
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.returncode == 130
    before = home.answers()
    assert before
    assert "the same command goes on" in ended.stderr
    wanted = sum(len(each.tokens) for each in before) + 500
    again = home.make("--tokens", str(wanted))
    assert again.returncode == 0, again.stderr
    answers = home.answers()
    places = [each.place for each in answers]
    assert places[: len(before)] == [each.place for each in before]
    assert len(set(places)) == len(places), "nothing is asked twice"
    enough = home.make("--tokens", str(wanted))
    assert enough.returncode == 0
    assert len(home.answers()) == len(answers), "there is enough"


@pytest.mark.parametrize(
    "nonsense", [("--minutes", "0"), ("--disk", "nan"), ("--tokens", "0"), ("--at-once", "17")]
)
def test_nonsense_is_refused_in_one_line(home: Home, nonsense: tuple[str, str]) -> None:
    ended = home.make(*nonsense)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
