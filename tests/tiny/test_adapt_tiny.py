"""A drafter that learns between answers, through real llama.cpp: the same bytes, always."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rigs import (
    EXACT,
    SMALL,
    OpenModel,
    WriteModel,
    ask,
    corpus_tokens,
    eager_completer,
    invariant_rows,
)
from tiny_models import TinySpec

from edgespec.engine.completer import EngineCompleter
from edgespec.estimates.guess_costs import GuessCosts
from edgespec.gguf.trim import write_trimmed
from edgespec.learning.online.adaptations import AdaptationStore, History, Saved, read, write
from edgespec.learning.online.correction import Correction, Floats
from edgespec.learning.online.learner import Learner
from edgespec.learning.online.student import Student
from edgespec.llama.context import Context
from edgespec.llama.model import Model
from edgespec.llama.target import LlamaTarget
from edgespec.runtime.form import Form
from edgespec.runtime.idle import IdleWorker
from edgespec.runtime.model_drafter import BoundDrafter, open_model_drafter
from edgespec.runtime.observers import Observers
from edgespec.runtime.online import open_student
from edgespec.types import Completion, CompletionRequest, SamplingParams

TARGET = SMALL
DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384)
OTHER = dataclasses.replace(SMALL, architecture="gemma3", vocabulary="spm", num_layers=1)
OPTIONS = dataclasses.replace(EXACT, num_context=512)
PATIENCE_S = 60.0


@dataclass
class Rig:
    """A target with one drafter, its student, and what was reported."""

    completer: EngineCompleter
    bound: BoundDrafter
    student: Student | None
    idle: IdleWorker
    lines: list[str]

    def answer(self, sampling: SamplingParams, text: str = "one two three") -> Completion:
        return ask(self.completer, CompletionRequest(text, sampling, max_tokens=48))


@contextlib.contextmanager
def rig(
    model: Model, files: Form, store: AdaptationStore | None, *, learns: bool = True
) -> Iterator[Rig]:
    lines: list[str] = []
    with contextlib.ExitStack() as cleanup:
        context = cleanup.enter_context(Context(model, OPTIONS))
        target = LlamaTarget(context, invariant_rows(context, (30,)))
        bound = open_model_drafter(
            files, context, cleanup, of_any_size=True, adapts=store is not None
        )
        bound.drafter.costs = GuessCosts(0.01)  # as if they cost nothing: ask at every chance
        student = None
        if store is not None:
            student = open_student(bound, store, "tiny", learns, lines.append, cleanup)
        learners = [student] if student is not None else []
        idle = cleanup.enter_context(IdleWorker(lines.append, learners))
        observers = Observers([idle, *learners])
        completer = eager_completer(target, bound.drafter, observer=observers)
        yield Rig(completer, bound, student, idle, lines)


@pytest.mark.parametrize("drafter", [DRAFTER, OTHER, SMALL])
def test_same_bytes_while_the_drafter_learns(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, drafter: TinySpec
) -> None:
    model, files = open_model(TARGET), Form(write_model(drafter))
    samplings = [SamplingParams(), SamplingParams(temperature=0.8, seed=5)]
    texts = ["one two three", "the tokenizer", "in the morning"]
    with rig(model, files, None) as plain:
        expected = [
            plain.answer(s, t).token_ids for _ in range(3) for s in samplings for t in texts
        ]
    store = AdaptationStore(tmp_path / "adaptations")
    with rig(model, files, store) as learning:
        said = []
        for _ in range(3):
            for sampling in samplings:
                for text in texts:
                    said.append(learning.answer(sampling, text).token_ids)
                    assert learning.idle.wait(PATIENCE_S)
        assert learning.lines == []
        if drafter is DRAFTER:  # a copy of the target, say, cannot become better
            assert learning.bound.draft_model.correct is not None
            assert len(store.all()) == 1
    assert said == expected


def test_a_drafter_learns_what_the_target_says_again_and_again(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path
) -> None:
    model, files = open_model(TARGET), Form(write_model(DRAFTER))
    store = AdaptationStore(tmp_path / "adaptations")
    with rig(model, files, store) as learning:
        first = learning.answer(SamplingParams())
        for _ in range(25):
            assert learning.idle.wait(PATIENCE_S)
            last = learning.answer(SamplingParams())
    assert last.token_ids == first.token_ids
    assert last.stats.accepted > first.stats.accepted
    with rig(model, files, store, learns=False) as again:
        assert again.student is None
        served = again.answer(SamplingParams())
        assert served.token_ids == first.token_ids
        assert served.stats.accepted > first.stats.accepted


def test_a_request_stops_what_is_studied(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path
) -> None:
    model, files = open_model(TARGET), Form(write_model(DRAFTER))
    with rig(model, files, AdaptationStore(tmp_path / "adaptations")) as learning:
        expected = learning.answer(SamplingParams()).token_ids
        for _ in range(20):  # at once, whatever is being studied
            assert learning.answer(SamplingParams()).token_ids == expected
        assert learning.idle.wait(PATIENCE_S)
        assert learning.lines == []


@pytest.mark.parametrize("damage", ["cut off", "foreign", "of another head"])
def test_a_file_that_cannot_be_used_is_told_and_the_chat_goes_on(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, damage: str
) -> None:
    model, files = open_model(TARGET), Form(write_model(DRAFTER))
    store = AdaptationStore(tmp_path / "adaptations")
    with rig(model, files, store) as learning:
        expected = learning.answer(SamplingParams()).token_ids
        for _ in range(8):
            learning.answer(SamplingParams())
            assert learning.idle.wait(PATIENCE_S)
    (path,) = store.all()
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "foreign":
        path.write_bytes(b"something else")
    else:
        other = Learner(100, 32).state()
        write(Saved(read(path).pair, History(), other), path)
    with rig(model, files, store) as damaged:
        assert damaged.bound.draft_model.correct is None
        assert damaged.answer(SamplingParams()).token_ids == expected
        assert len(damaged.lines) == 1
        assert "goes without what it learned" in damaged.lines[0]


def test_a_student_that_fails_says_so_once_and_answers_go_on(
    open_model: OpenModel,
    write_model: WriteModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, files = open_model(TARGET), Form(write_model(DRAFTER))
    with rig(model, files, AdaptationStore(tmp_path / "adaptations")) as learning:

        def failing(*_arguments: object) -> None:
            raise MemoryError("no memory left")

        assert learning.student is not None
        monkeypatch.setattr(learning.student._learner, "judge", failing)
        expected = learning.answer(SamplingParams()).token_ids
        assert learning.idle.wait(PATIENCE_S)
        assert learning.answer(SamplingParams()).token_ids == expected
        assert learning.idle.wait(PATIENCE_S)
        assert len(learning.lines) == 1
        assert "learns no more" in learning.lines[0]


def listening(heard: list[tuple[Floats, Floats]]) -> Callable[[Floats, Floats], Floats]:
    """Corrects nothing, and notes what it is given."""

    def correct(logits: Floats, hidden: Floats) -> Floats:
        heard.append((logits.copy(), hidden.copy()))
        return logits

    return correct


@pytest.mark.parametrize("spec", [SMALL, OTHER])
def test_hidden_states_come_with_the_logits(
    open_model: OpenModel, write_model: WriteModel, tmp_path: Path, spec: TinySpec
) -> None:
    """Scoring a text gives, at each place, what guessing there gives, trimmed or whole."""
    whole = write_model(spec)
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(whole, trimmed, np.arange(3, 203, dtype=np.int32), "a test")
    for files in (Form(whole), Form(whole, trimmed)):
        with contextlib.ExitStack() as cleanup:
            target = cleanup.enter_context(Context(open_model(TARGET), OPTIONS))
            bound = open_model_drafter(files, target, cleanup, of_any_size=True, adapts=True)
            tokens = corpus_tokens(open_model(spec), 30)
            model = bound.draft_model
            scored = [(z.copy(), h.copy()) for z, h in model.score(tokens, 20)]
            assert len(scored) == 10
            heard: list[tuple[Floats, Floats]] = []
            model.correct = listening(heard)
            model.truncate(0)
            model.read(tokens[:20])
            for token in tokens[20:]:
                model.read([token])
                model.guess()
            for (logits, hidden), (z, h) in zip(scored, heard, strict=True):
                np.testing.assert_allclose(logits, z, atol=2e-2)
                np.testing.assert_allclose(hidden, h, atol=2e-2)


@pytest.mark.parametrize(
    ("num_read", "adapts", "passes"),
    [
        (1, True, [(1, True)]),
        (48, True, [(48, True)]),
        (49, True, [(48, False), (1, True)]),
        (60, False, [(60, True)]),  # there are no hidden states anyway
    ],
)
def test_only_the_last_token_of_a_long_text_gets_a_hidden_state(
    open_model: OpenModel,
    write_model: WriteModel,
    monkeypatch: pytest.MonkeyPatch,
    num_read: int,
    adapts: bool,
    passes: list[tuple[int, bool]],
) -> None:
    """With hidden states llama.cpp computes the logits of all tokens of a pass."""
    seen: list[tuple[int, bool]] = []
    decode = Context.decode

    def noted(
        self: Context,
        rows: Sequence[int],
        position: int,
        *,
        sequence: int = 0,
        hidden_states: bool = True,
    ) -> None:
        seen.append((len(rows), hidden_states))
        decode(self, rows, position, sequence=sequence, hidden_states=hidden_states)

    with contextlib.ExitStack() as cleanup:
        target = cleanup.enter_context(Context(open_model(TARGET), OPTIONS))
        files = Form(write_model(DRAFTER))
        model = open_model_drafter(files, target, cleanup, adapts=adapts).draft_model
        tokens = corpus_tokens(open_model(DRAFTER), 60)
        model.read(tokens[:num_read])
        expected = model.guess()
        model.truncate(0)
        monkeypatch.setattr(Context, "decode", noted)
        model.read(tokens[:num_read])
        assert seen == passes
        assert model.guess() == expected


def test_a_correction_changes_what_is_guessed(
    open_model: OpenModel, write_model: WriteModel
) -> None:
    files = Form(write_model(DRAFTER))
    with contextlib.ExitStack() as cleanup:
        target = cleanup.enter_context(Context(open_model(TARGET), OPTIONS))
        bound = open_model_drafter(files, target, cleanup, of_any_size=True, adapts=True)
        bound.draft_model.read([5, 6, 7])
        guess, _ = bound.draft_model.guess()
        row = (guess + 1) % 300
        sure = Correction(
            np.array([row], dtype=np.int32),
            np.zeros((0, DRAFTER.width), dtype=np.float32),
            np.zeros((1, 0), dtype=np.float32),
            np.full(1, 50.0, dtype=np.float32),
        )
        bound.draft_model.correct = sure.apply
        corrected, probability = bound.draft_model.guess()
        assert corrected == row
        assert probability > 0.99
        bound.draft_model.correct = None
        assert bound.draft_model.guess()[0] == guess
