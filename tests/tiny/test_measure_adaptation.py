"""The measurement of adaptation, on tiny models: recorded once, replayed in any order."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import measure_adaptation as script
import numpy as np
import pytest
from adaptation.answers import NUM_TOKENS, load_answer, messages
from adaptation.prompts import TurnPrompt, turn_prompts
from adaptation.replay import HALVES, Planner, Recorded, replay
from rigs import SMALL, OpenModel, WriteModel

from edgespec.gguf.trim import write_trimmed
from edgespec.learning.online.learner import Learner
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions

DRAFTER = dataclasses.replace(SMALL, architecture="qwen2", num_vocab=384)
QUESTIONS = [
    {"question_id": 1, "category": "math", "turns": ["one and two", "and three"]},
    {"question_id": 2, "category": "coding", "turns": ["the tokenizer"]},
    {"question_id": 3, "category": "qa", "turns": ["in the morning"]},
    {"question_id": 4, "category": "translation", "turns": ["the river"]},
    {"question_id": 5, "category": "rag", "turns": ["too long"]},
]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "suite.jsonl"
    path.write_text("\n".join(map(json.dumps, QUESTIONS)))
    counted = [("code", "a list of words"), ("chat", "left out")]
    monkeypatch.setattr("adaptation.prompts.counted_prompts", lambda: iter(counted))
    return path


@pytest.fixture
def recorded(
    suite: Path, write_model: WriteModel, open_model: OpenModel, tmp_path: Path
) -> Recorded:
    """Everything recorded, with a trimmed drafter."""
    folder, target, whole = tmp_path, write_model(SMALL), write_model(DRAFTER)
    script.record_answers(folder, target, [suite])
    running = folder / "running.gguf"
    write_trimmed(whole, running, np.arange(0, 384, 2, dtype=np.int32), "a test")
    script.record_readings(folder, target, whole, running)
    kinds = [turn.kind for turn in turn_prompts([suite])]
    return Recorded(folder, whole.stem, kinds)


def test_turns_come_from_the_suites(suite: Path) -> None:
    turns = turn_prompts([suite])
    assert turns[:3] == [
        TurnPrompt("math", "one and two"),
        TurnPrompt("math", "and three", 0),
        TurnPrompt("coding", "the tokenizer"),
    ]
    assert [turn.kind for turn in turns[3:]] == ["general", "translation", "coding"]


def test_answers_are_the_targets_own(
    recorded: Recorded, suite: Path, open_model: OpenModel, tmp_path: Path
) -> None:
    model, turns = open_model(SMALL), turn_prompts([suite])
    asked = messages(turns, 1, tmp_path)
    assert [message.role for message in asked] == ["user", "assistant", "user"]
    answer = load_answer(tmp_path, 3)
    assert 1 <= len(answer.tokens) <= NUM_TOKENS
    prompt = ModelBridge(model).encode_chat(messages(turns, 3, tmp_path))
    with Context(model, ContextOptions(512, 1)) as context:
        context.decode(prompt, 0)
        logits = context.logits(0)
        assert answer.tokens[0] == int(logits.argmax())
        logprobs = logits - np.log(np.exp(logits).sum())
        np.testing.assert_allclose(answer.logprobs[0], logprobs[answer.ids[0]], atol=0.05)
    for token, ids, told in zip(answer.tokens, answer.ids, answer.logprobs, strict=True):
        assert token == ids[0]
        assert (np.diff(told) <= 0).all()


def test_a_replay_guesses_before_it_learns(recorded: Recorded) -> None:
    learner = Learner(recorded.num_rows, recorded.num_embedding)
    planners = Planner({1: 10.0, 9: 11.0}, 0.1), Planner({1: 10.0, 9: 11.0}, 0.1)
    order = recorded.order(0)
    results = list(replay(recorded, order, learner, planners))
    assert [result.kind for result in results] == [recorded.kinds[index] for index in order]
    first = results[0]
    turn = recorded.turn(order[0])
    guessed = turn.logits.argmax(axis=1)
    right = np.array([place.row for place in turn.places]) == guessed
    assert first.num_first == int(turn.begins.sum())
    assert first.alone == first.served == int(right[turn.begins].sum())
    for result, index in zip(results, order, strict=True):
        for speed in (result.alone_speed, result.served_speed):
            assert len(recorded.turn(index).places) <= speed.num_tokens
            assert 1 <= speed.num_passes <= speed.num_tokens
            assert speed.plain_ms == pytest.approx(10.0 * speed.num_tokens)


def test_orders_are_of_the_same_turns_with_a_change_in_the_middle(recorded: Recorded) -> None:
    for number, (first, second) in enumerate(HALVES):
        order = recorded.order(number)
        assert sorted(order) == list(range(len(recorded.kinds)))
        kinds = [recorded.kinds[index] for index in order]
        change = sum(kind in first for kind in kinds)
        assert set(kinds[:change]) <= set(first)
        assert set(kinds[change:]) <= set(second)


def test_sure_guesses_are_drafted_and_unsure_ones_are_not() -> None:
    free = Planner({1: 10.0, 9: 10.1}, 0.0)
    hits, sure = np.ones(400, dtype=np.bool_), np.full(400, 0.99, dtype=np.float32)
    speed = free.play(hits, sure)
    assert speed.num_tokens >= 400
    assert speed.plain_ms / speed.drafted_ms > 5
    dear = Planner({1: 10.0, 9: 200.0}, 10.0)
    slow = dear.play(~hits, np.full(400, 0.05, dtype=np.float32))
    assert (slow.num_tokens, slow.num_passes) == (400, 400)
    assert slow.plain_ms == pytest.approx(slow.drafted_ms)


def test_what_is_printed(
    recorded: Recorded, suite: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = recorded._name
    script.measure(tmp_path, name, {"order": "1", "rank": "2", "num_steps": "1", "kl": "0.5"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name} order=1 rank=2 num_steps=1 kl=0.5"
    assert any(line.startswith("worst 50 turns") for line in lines)
    assert {line.split()[0] for line in lines[-4:]} == {"math", "coding", "general", "translation"}
    first = next(line for line in lines if line.startswith("  1-6"))
    alone, served = map(float, first.split()[1:3])
    turns = [recorded.turn(index) for index in range(len(recorded.kinds))]
    right = [
        turn.logits.argmax(axis=1)[turn.begins]
        == np.array([place.row for place in turn.places])[turn.begins]
        for turn in turns
    ]
    assert alone == pytest.approx(np.concatenate(right).mean(), abs=6e-4)
    assert 0 <= served <= 1


def test_recording_again_changes_nothing(
    recorded: Recorded, suite: Path, write_model: WriteModel, tmp_path: Path
) -> None:
    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("answer*.npz")}

    before = times()
    assert len(before) == len(recorded.kinds)
    script.record_answers(tmp_path, write_model(SMALL), [suite])
    assert times() == before


def test_the_curve_is_drawn_from_what_was_replayed(
    recorded: Recorded,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "WINDOW", 2)
    name, out = recorded._name, tmp_path / "curve.svg"
    with pytest.raises(SystemExit, match="nothing was replayed"):
        script.draw_curve(tmp_path, name, out)
    script.measure(tmp_path, name, {"order": "0"})
    replayed = capsys.readouterr().out.splitlines()
    script.draw_curve(tmp_path, name, out)
    assert capsys.readouterr().out.splitlines()[1:] == replayed[1:]
    picture = ElementTree.fromstring(out.read_text())
    drawn = [tag.get("points") for tag in picture.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len((points or "").split()) for points in drawn] == [3, 3]
