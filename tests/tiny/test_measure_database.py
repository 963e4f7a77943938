"""The script behind the figures of the token database, at a small size."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import measure_database
import pytest

from edgespec.llama.tiny import TinySpec, write_tiny_model
from edgespec.llama.tiny.corpus import CORPUS

FIGURES = (
    "open, first look-up, close, warm",
    "open, first look-up, close, cold",
    "look-up, seen before, warm",
    "draft, seen before",
    "look-up, new text, warm",
    "draft, new text",
    "look-up, seen before, cold",
    "look-up, new text, cold",
    "record 500 tokens",
    "checkpoint after it",
)


def test_it_fills_a_database_and_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_database, "NUM_TIMED", 12)
    monkeypatch.setattr(measure_database, "NUM_COLD", 3)
    model = tmp_path / "model.gguf"
    write_tiny_model(model, TinySpec(num_layers=1))
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(30):
        words = CORPUS.split()
        shifted = words[number * 7 % len(words) :] + words
        (texts / f"text{number}.txt").write_text(" ".join(shifted * 3), encoding="utf-8")
    path = tmp_path / "measured.db"
    arguments = [str(model), str(texts), str(path), "20000"]
    measure_database.main(arguments)
    told = capsys.readouterr().out
    assert re.search(r"^20000 tokens, \d+\.\d bytes a token$", told, re.MULTILINE)
    for figure in FIGURES:
        assert re.search(rf"^{figure}.* p50 +\d+\.\d+  p99 +\d+\.\d+", told, re.MULTILINE), told
    with closing(sqlite3.connect(path)) as connection:
        [(recorded,)] = connection.execute("SELECT sum(num_tokens) FROM sequences")
    assert recorded > 20000, "the timed recordings are real"
    measure_database.main(arguments)
    assert "filled" not in capsys.readouterr().out, "a database that is there is used as it is"
