"""Drafts of tiny models are recorded, and what is measured on them is what a real run would do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import measure_calibration
import pytest
import record_drafts
from cli_support import remember
from rigs import SMALL

from edgespec.llama.tiny import TinySpec, write_tiny_model
from edgespec.machine.identity import this_machine

QUESTIONS = (
    ("letters", "Write a short letter to the landlord about the window."),
    ("letters", "Write a short list of things to do, twice, in the same words."),
    ("letters", "This one is not asked."),
    ("sums", "Add the numbers from one to seven."),
)


def test_what_is_recorded_can_be_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr(record_drafts, "MAX_TOKENS", 24)
    monkeypatch.setattr(measure_calibration, "NUM_ORDERS", 2)
    target, drafter = tmp_path / "target.gguf", tmp_path / "drafter.gguf"
    write_tiny_model(target, SMALL)
    write_tiny_model(drafter, TinySpec(vocabulary="spm", num_layers=1))
    remember(target, tmp_path, this_machine())
    suite = tmp_path / "suite.jsonl"
    lines = (
        {"question_id": str(number), "category": category, "turns": [text]}
        for number, (category, text) in enumerate(QUESTIONS)
    )
    suite.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    answers, guesses = tmp_path / "answers.npz", tmp_path / "guesses.npz"
    record_drafts.main(["answers", str(target), str(suite), str(answers), "letters=2", "sums=1"])
    said = record_drafts.load_answers(answers)
    assert [answer.question for answer in said] == [
        text for _, text in QUESTIONS if "not asked" not in text
    ]
    assert all(answer.prompt and answer.tokens for answer in said)
    record_drafts.main(["guesses", str(target), str(answers), str(drafter), "whole", str(guesses)])
    recorded = record_drafts.load_guesses(guesses)
    assert len(recorded) >= sum(len(answer.tokens) for answer in said) / 2
    assert all(0 < guess.second <= guess.probability <= 1 for guess in recorded.values())
    capsys.readouterr()
    measure_calibration.main([str(target), str(drafter), str(answers), str(guesses)])
    told = capsys.readouterr().out
    for name in ("context", "model"):
        for method in ("counts", "head"):
            assert re.search(rf"^{name}, {method}: \d+ guesses, Brier 0\.\d+", told, re.MULTILINE)
    rows = {
        line.split()[0]: [float(value) for value in line.split()[1:]]
        for line in told.splitlines()
        if line.startswith(("letters", "sums", "overall"))
    }
    assert set(rows) == {"letters", "sums", "overall"}
    _context, *others, hindsight = rows["overall"]
    assert hindsight >= max(others)
    assert len(re.findall(r"^regret of \w+: 0\.\d+$", told, re.MULTILINE)) == 5 * 4
