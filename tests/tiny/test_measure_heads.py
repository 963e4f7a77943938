"""The script behind the figures on trimmed heads, at a small size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import measure_heads
import numpy as np
import pytest
from measure_heads import HEADS, Answer, measure, prompts, read_answers
from rigs import SMALL, WriteModel

from edgespec.forms.counts import keep_tokens
from edgespec.forms.trimming import always_kept, count_shipped
from edgespec.forms.weighing import OpenDrafter, Sample, in_tokens, read_text, whole_head
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.trim import write_trimmed
from edgespec.llama.model import Model, ModelOptions
from edgespec.llama.tiny.corpus import CORPUS
from edgespec.machine.identity import this_machine
from edgespec.vocab.tokenizer import ByteTokenizer

NUM_ROWS = 300


def answers() -> dict[str, list[Answer]]:
    """Two users, four answers each."""
    parts = [CORPUS[start : start + 200] for start in range(0, 1600, 200)]
    return {
        name: [Answer(f"what is {name}?", text) for text in texts]
        for name, texts in (("one", parts[:4]), ("two", parts[4:]))
    }


def test_heads_are_judged_as_trimmed_files_are(write_model: WriteModel, tmp_path: Path) -> None:
    whole = write_model(SMALL)
    table = EmbeddingTable(whole)
    said = answers()
    with OpenDrafter(whole, table, ModelOptions(), 1) as drafter:
        tallies = measure(drafter, said, NUM_ROWS, 60.0)
    assert list(tallies) == ["one", "two", "all"]
    for tally in tallies.values():
        assert tally.num_tokens > 50
        assert tally.sayable[-1] == tally.num_tokens, "the whole head can say everything"
        for head in (0, 2):
            assert tally.sayable[head] < tally.sayable[head + 1] <= tally.num_tokens
        assert all(map(int.__le__, tally.right, tally.sayable))
    assert len(HEADS) == len(tallies["all"].right)
    assert tallies["all"].num_tokens == tallies["one"].num_tokens + tallies["two"].num_tokens
    with Model(whole, ModelOptions(vocabulary_only=True)) as model:
        tokenizer = ByteTokenizer(model.vocab)
        kept = keep_tokens(count_shipped(tokenizer), NUM_ROWS, always_kept(tokenizer))
        judged = [Sample(each.prompt, each.answer) for each in said["one"][2:]]
        texts = in_tokens(model, judged)
    trimmed = tmp_path / "trimmed.gguf"
    write_trimmed(whole, trimmed, kept, "a test")
    with OpenDrafter(trimmed, table, ModelOptions(), 1) as drafter:
        rows = whole_head(drafter)
        hits = sum(int(read_text(drafter, text, rows)[0].hits.sum()) for text in texts)
    assert abs(hits - tallies["one"].right[0]) <= 1  # but for a near tie
    expected = sum(int(np.isin(text.answer, kept).sum()) for text in texts)
    assert tallies["one"].sayable[0] == expected


def test_a_deadline_ends_the_readings(write_model: WriteModel) -> None:
    whole = write_model(SMALL)
    with OpenDrafter(whole, EmbeddingTable(whole), ModelOptions(), 1) as drafter:
        tallies = measure(drafter, answers(), NUM_ROWS, 0.0)
    assert tallies["all"].num_tokens == 0


def test_answers_are_recorded_and_read_back(
    write_model: WriteModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = dataclasses.replace(this_machine(), num_threads=1)
    monkeypatch.setattr(measure_heads, "this_machine", lambda: machine)
    monkeypatch.setattr(measure_heads, "_NUM_TOKENS", 6)
    asked = prompts()
    assert len(asked) == 160
    assert len({text for _, text in asked}) == 160
    assert [category for category, _ in asked[:5]] == [
        "german",
        "french",
        "chinese",
        "rust",
        "medicine",
    ]
    monkeypatch.setattr(measure_heads, "prompts", lambda: asked[:20])
    out = tmp_path / "answers.jsonl"
    for _ in range(2):  # the second run has nothing to do
        measure_heads.main(["answers", str(write_model(SMALL)), str(out)])
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["category"], line["prompt"]) for line in lines] == asked[:20]
    assert sum(map(len, read_answers(out).values())) == 20
    measure_heads.main(["heads", str(out), str(write_model(SMALL)), str(NUM_ROWS), "30"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:]] == [*read_answers(out), "all"]
