"""The chat, or its host, killed in mid-answer over a tiny model: nothing that was said is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from chat_kills import Killed
from tiny_models import TinySpec, write_tiny_model


@pytest.mark.parametrize("what", ["app", "host"])
def test_what_was_said_before_a_kill_is_there_after_it(what: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", TinySpec(repetitive=True))
    arguments = ["--model", str(model), "--threads", "1"]
    killed = Killed(tmp_path / "home", arguments, random.Random(3))
    (killed.apps if what == "app" else killed.hosts)(3, longest_s=0.3)
    killed.check_database()
    assert killed.failures == []
    assert sum(killed.outcomes.values()) == 3
