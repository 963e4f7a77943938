"""The head of a drafter follows what is said, through real llama.cpp: exchanged between answers."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pause_support import Asking
from rigs import EXACT, SMALL, OpenModel, WriteModel, ask, eager_completer, invariant_rows
from train_support import put_training

from edgespec.cache.database import Database, open_database, transaction
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import FOLLOWED
from edgespec.cache.tokens.sequences import Recording, SequenceStore, VocabularyKey
from edgespec.engine.completer import EngineCompleter
from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.estimates.guess_costs import GuessCosts
from edgespec.forms.counts import TokenCounts, ranked
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import count_shipped
from edgespec.gguf.trim import forget_own_rows, read_trim_info
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.context import Context
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.target import LlamaTarget
from edgespec.machine.identity import this_machine
from edgespec.paths import Paths
from edgespec.reports import is_progress
from edgespec.runtime import head_rows as following
from edgespec.runtime.form import Form, Trainings
from edgespec.runtime.head_rows import Follow, HeadFollower, open_follower
from edgespec.runtime.idle import IdleWorker
from edgespec.runtime.model_drafter import BoundDrafter, DraftWeights, open_model_drafter
from edgespec.runtime.observers import Observers
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, SamplingParams
from edgespec.vocab.tokenizer import ByteTokenizer

TARGET = SMALL
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", quantization="Q4_1")
NUM_KEPT = 340
LARGER = dataclasses.replace(TARGET, num_layers=4)
"""Of the same vocabulary, and large enough to have DRAFTER draft."""

OPTIONS = dataclasses.replace(EXACT, num_context=512)
MACHINE = dataclasses.replace(this_machine(), num_threads=1)
PATIENCE_S = 60.0
WARM = SamplingParams(temperature=0.8, seed=5)


class Home:
    """What is on disk: a whole drafter and its trimmed form, and what a target said."""

    def __init__(self, folder: Path, whole: Path, database: Database, target: Model) -> None:
        self.folder = folder / "trimmed"
        self.adaptations = folder / "adaptations"
        self.whole = whole
        self.database = database
        self.tokenizer = ByteTokenizer(target.vocab)
        self.key = VocabularyKey(self.tokenizer.fingerprint, target.vocab.num_tokens)
        self.trimmer().trim(whole, NUM_KEPT, "q8_0")

    def trimmer(self, *, follows: bool = True) -> Trimmer:
        store = Facts(self.database)
        return Trimmer(self.folder, store, MACHINE, ModelOptions(), follows=follows)

    def files(self, *, follows: bool = True) -> Form:
        return Form(self.whole, self.trimmer(follows=follows).trimmed(self.whole))

    def follow(self) -> Follow:
        path = self.database.path
        assert path is not None
        trainings = Trainings(self.key.fingerprint, self.adaptations, print)
        return Follow(self.trimmer(), path, self.key, trainings)

    def own(self) -> Path:
        """Where rows of the user's own are kept."""
        files = self.files()
        assert files.trimmed is not None
        path = self.trimmer().own_path(self.whole, files.trimmed)
        assert path is not None
        return path

    def say(self, num_tokens: int = 6000) -> int:
        """Record text of words that the trimmed head lacks; the number of the answer."""
        text = "\n".join(self.rare_words()).encode()
        once = self.tokenizer.encode(text).tokens
        store = SequenceStore(self.database.connection)
        scope = store.scope(self.key, "model")
        for _ in range(4):
            number = store.record(scope, Recording((once * num_tokens)[: num_tokens // 4]))
        assert number is not None
        return number

    def forget(self) -> None:
        """As `edgespec db forget --all` does."""
        store, connection = SequenceStore(self.database.connection), self.database.connection
        with transaction(connection):
            for (number,) in connection.execute("SELECT id FROM sequences").fetchall():
                store.remove(number)
        Facts(self.database).forget(FOLLOWED)
        forget_own_rows(self.folder.glob("*.gguf"))

    def rare_words(self) -> list[str]:
        with Model(self.whole, ModelOptions(vocabulary_only=True)) as model:
            drafter = ByteTokenizer(model.vocab)
            order = ranked(count_shipped(drafter), ())[::-1].tolist()
        pieces = (drafter.piece(token) for token in order)
        return [piece.decode() for piece in pieces if piece.isalpha() and len(piece) > 1][:40]

    def mark(self) -> object:
        """What is noted of the answers that were looked at."""
        row = self.database.connection.execute(
            "SELECT value FROM facts WHERE kind = ?", (FOLLOWED,)
        ).fetchone()
        return row and row[0]


@pytest.fixture
def home(tmp_path: Path, write_model: WriteModel, open_model: OpenModel) -> Iterator[Home]:
    with open_database(tmp_path / "edgespec.db") as database:
        yield Home(tmp_path, write_model(DRAFTER), database, open_model(TARGET))


@dataclass
class Rig:
    """A target with a drafter whose head follows, and what was reported."""

    completer: EngineCompleter
    bound: BoundDrafter
    idle: IdleWorker
    lines: list[str] = field(default_factory=list)

    def answer(
        self, sampling: SamplingParams | None = None, text: str = "one two three"
    ) -> Completion:
        request = CompletionRequest(text, sampling or SamplingParams(), max_tokens=48)
        return ask(self.completer, request)

    def wait(self) -> None:
        assert self.idle.wait(PATIENCE_S)

    def kept(self) -> list[int]:
        return [int(token) for token in self.bound.weights.kept]


@contextlib.contextmanager
def rig(home: Home, model: Model) -> Iterator[Rig]:
    lines: list[str] = []
    with contextlib.ExitStack() as cleanup:
        context = cleanup.enter_context(Context(model, OPTIONS))
        target = LlamaTarget(context, invariant_rows(context, (30,)))
        files = home.follow().trainings.of(home.files())
        bound = open_model_drafter(files, context, cleanup, of_any_size=True)
        bound.drafter.costs = GuessCosts(0.01)  # as if they cost nothing: ask at every chance
        follower = open_follower(home.follow(), files, bound, context)
        assert follower is not None
        idle = cleanup.enter_context(IdleWorker(lines.append, [follower]))
        completer = eager_completer(target, bound.drafter, observer=Observers([idle]))
        yield Rig(completer, bound, idle, lines)


def test_rows_follow_what_is_said_and_the_bytes_stay(home: Home, open_model: OpenModel) -> None:
    model = open_model(TARGET)
    samplings, texts = (SamplingParams(), WARM), ("one two three", "in the morning")
    with rig(home, model) as following_:
        before = following_.kept()

        def ask() -> list[tuple[int, ...]]:
            return [following_.answer(s, t).token_ids for s in samplings for t in texts]

        expected = ask()
        following_.wait()
        assert following_.kept() == before, "nothing was said that is remembered"
        home.say()
        assert ask() == expected  # while rows are chosen, written, loaded
        following_.answer()
        following_.wait()
        after = following_.kept()
        assert after != before
        assert len(after) == len(before) == NUM_KEPT
        assert ask() == expected
        assert following_.answer().stats.proposed > 0
        following_.wait()
        assert following_.kept() == after, "looked at once"
        assert following_.lines == []
    info = read_trim_info(home.own())
    assert info is not None
    assert info.is_own
    assert info.kept.tolist() == after
    assert "tokens said to you" in info.origin
    assert home.files().trimmed == home.own(), "the next start finds it"
    default = home.files(follows=False).trimmed
    assert default is not None
    assert default != home.own(), "incognito goes without it"
    found = read_trim_info(default)
    assert found is not None
    assert found.kept.tolist() == before
    with rig(home, model) as again:
        assert again.kept() == after
        assert again.answer().token_ids == expected[0]


def test_rows_that_follow_keep_what_was_trained(home: Home, open_model: OpenModel) -> None:
    store = TrainingStore(home.adaptations)
    lora = put_training(store, home.key.fingerprint, home.whole)
    with rig(home, open_model(TARGET)) as following_:
        expected = following_.answer().token_ids
        before = store.merged_of(lora)
        home.say()
        following_.answer()
        following_.wait()
        assert following_.answer().token_ids == expected
        (merged,) = store.merged_of(lora)
        assert [merged] != before, "added to the new rows"
        info = read_trim_info(merged)
        assert info is not None and info.is_own
        assert info.kept.tolist() == following_.kept()
        assert following_.lines == []


def test_too_little_new_text_is_not_looked_at(
    home: Home, open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(home, open_model(TARGET)) as following_:
        home.say(following.LEAST_NEW - 4)
        following_.answer()
        following_.wait()
        assert home.mark() is None
        monkeypatch.setattr(following, "MIN_GAIN", 1.1)
        number = home.say(100)
        following_.answer()
        following_.wait()
        assert home.mark() == f'{{"sequence": {number}}}'
        assert not home.own().exists(), "not worth it"


def test_forgotten_text_chooses_no_rows(home: Home, open_model: OpenModel) -> None:
    with rig(home, open_model(TARGET)) as following_:
        by_shipped = following_.kept()
        home.say()
        following_.answer()
        following_.wait()
        assert following_.kept() != by_shipped
        home.forget()
        assert not home.own().exists()
        assert home.files().trimmed == home.files(follows=False).trimmed
        expected = following_.answer().token_ids
        following_.wait()
        assert following_.kept() == by_shipped
        assert following_.answer().token_ids == expected
        assert following_.lines == []
    info = read_trim_info(home.own())
    assert info is not None
    assert not info.is_own


def test_what_another_process_chose_serves_here_too(home: Home, open_model: OpenModel) -> None:
    model = open_model(TARGET)
    with rig(home, model) as one, rig(home, model) as other:
        home.say()
        one.answer()
        one.wait()
        assert one.kept() != other.kept()
        expected = other.answer().token_ids
        other.wait()
        assert one.kept() == other.kept()
        assert other.answer().token_ids == expected
        assert one.lines == other.lines == []


class Direct:
    """A follower without a thread, that is told when to pause."""

    def __init__(self, home: Home, model: Model, cleanup: contextlib.ExitStack) -> None:
        context = cleanup.enter_context(Context(model, OPTIONS))
        files = home.files()
        self.bound = open_model_drafter(files, context, cleanup, of_any_size=True)
        self.free: int | None = None
        self._follower = HeadFollower(
            home.follow(), files, home.own(), self.bound, context, lambda: self.free
        )

    @property
    def kept(self) -> list[int]:
        return [int(token) for token in self.bound.weights.kept]

    def look(self, ask: Callable[[], None]) -> None:
        """Look once; `ask` is called again and again, and may raise."""
        assert not self._follower.run(Asking(ask))


@pytest.fixture
def direct(home: Home, open_model: OpenModel) -> Iterator[Direct]:
    with contextlib.ExitStack() as cleanup:
        yield Direct(home, open_model(TARGET), cleanup)


def go_on() -> None:
    """Nobody asks for anything."""


def test_it_may_be_ended_anywhere_and_goes_on_later(home: Home, direct: Direct) -> None:
    home.say()
    before = direct.kept
    calls: list[int] = []
    direct.look(lambda: calls.append(1))
    total = len(calls)
    assert direct.kept != before
    home.forget()
    direct.look(go_on)
    assert direct.kept == before
    home.say()
    for most in [*range(0, total, max(total // 40, 1)), *range(max(total - 30, 0), total)]:
        left = [0] * most

        def pause(left: list[int] = left) -> None:
            if not left:
                raise Cancelled
            left.pop()

        try:
            direct.look(pause)
        except Cancelled:
            assert direct.kept == before
            assert not list(home.folder.glob(".*.part"))
            direct.bound.weights.draft_model.read([5, 6])
            direct.bound.weights.draft_model.guess()
            direct.bound.weights.draft_model.truncate(0)
    direct.look(go_on)
    assert direct.kept != before


def test_where_there_is_no_room_the_next_start_has_it(home: Home, direct: Direct) -> None:
    home.say()
    before = direct.kept
    direct.free = 1000
    direct.look(go_on)
    assert direct.kept == before
    assert home.files().trimmed == home.own()
    direct.free = 1 << 40
    direct.look(go_on)
    assert direct.kept != before


def test_a_file_that_does_not_load_is_told_and_the_old_one_serves(
    home: Home, open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_args: object, **_options: object) -> DraftWeights:
        raise NativeLibraryError("llama.cpp refused", "")

    with rig(home, open_model(TARGET)) as following_:
        expected, before = following_.answer().token_ids, following_.kept()
        monkeypatch.setattr(following, "load_weights", failing)
        home.say()
        for _ in range(3):
            assert following_.answer().token_ids == expected
            following_.wait()
        assert following_.kept() == before
        (line,) = following_.lines
        assert line.endswith("follows what is said no more in this run: llama.cpp refused")
        assert not is_progress(line)
    assert not home.own().exists()


def test_a_process_killed_while_writing_leaves_the_old_file(home: Home, direct: Direct) -> None:
    home.say()
    direct.look(go_on)
    content = home.own().read_bytes()
    code = f"""
import os, signal
from pathlib import Path
import numpy as np
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import write_other_rows
path = Path({str(home.own())!r})
kill = lambda _share: os.kill(os.getpid(), signal.SIGKILL)
kept = np.arange({NUM_KEPT}, dtype=np.int32)
write_other_rows(Path({str(home.whole)!r}), GgufFile(path), path, kept, "", kill, is_own=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert home.own().read_bytes() == content
    assert list(home.folder.glob(".*.part")), "what it left is deleted by the next that writes"
    home.forget()
    direct.look(go_on)
    assert not list(home.folder.glob(".*.part"))


def test_what_somebody_chose_does_not_follow(home: Home) -> None:
    def count(tokenizer: ByteTokenizer) -> TokenCounts:
        return dataclasses.replace(count_shipped(tokenizer), origin="mine")

    path, _, _ = home.trimmer().trim(home.whole, NUM_KEPT, "q8_0", count)
    assert home.trimmer().own_path(home.whole, path) is None
    assert home.trimmer(follows=False).own_path(home.whole, path) is None
    home.trimmer().trim(home.whole, NUM_KEPT, "q8_0")
    assert home.trimmer().own_path(home.whole, path) is not None
    assert home.trimmer(follows=False).own_path(home.whole, path) is None
    elsewhere = home.folder / "elsewhere.gguf"
    assert home.trimmer().own_path(home.whole, elsewhere) is None


def test_it_is_on_where_learning_is(
    home: Home, write_model: WriteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[HeadFollower | None] = []

    def open_and_note(*arguments: object) -> HeadFollower | None:
        opened.append(open_follower(*arguments))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(following, "open_follower", open_and_note)
    paths, target = Paths(data=tmp_path, cache=tmp_path), write_model(LARGER)
    home.say()
    options = LoadRequest(drafter=str(home.whole), drafter_path=home.whole, num_threads=1)
    request = CompletionRequest("one two three", SamplingParams(), max_tokens=8)

    def ask(options: LoadRequest) -> None:
        with load(options, target, paths, lambda _line: None) as loaded:
            assert loaded.completer.model.drafter.endswith(home.whole.stem)
            assert list(loaded.completer.answer(request))
            assert loaded.idle.wait(PATIENCE_S)
            assert all(follower is not None for follower in opened)

    changes: tuple[dict[str, Any], ...] = (
        {"learn": False},
        {"learn": False, "remember": False},
        {"trim": False},
        {"memory_at": tmp_path / "elsewhere.db"},
    )
    for change in changes:
        ask(dataclasses.replace(options, **change))
        assert opened == []
    ask(options)
    assert len(opened) == 1
    assert home.own().exists()
