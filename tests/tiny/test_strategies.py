"""A new strategy is one file: dropped into `drafters/`, it is found by its name and used."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import SMALL, WriteModel

from edgespec import drafters
from edgespec.cli.loading import with_drafter_path
from edgespec.drafters import strategies
from edgespec.paths import Paths
from edgespec.runtime.request import LOOK_UP_ONLY, NO_DRAFTER, LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, SamplingParams

TOY = '''
from edgespec.passes import Proposal
from edgespec.protocols import FREE


def build(parts):
    return Toy()


class Toy:
    """Guesses that the last token is said again."""

    name = "toy"

    def open(self, prompt, said=(), matcher=None):
        return Session((*prompt.tokens, *said)[-1])


class Session:
    quote = FREE
    bridge_ms = 0.0

    def __init__(self, last):
        self.last = last

    def propose(self, prefix=()):
        return iter([Proposal(prefix[-1] if prefix else self.last, 0.99)] * 3)

    def learn(self, kept):
        self.last = kept.tokens[-1]

    def close(self):
        pass
'''


def answer(paths: Paths, target: Path, drafter: str) -> tuple[Completion, str]:
    """A tiny model's answer with a drafter, and the drafters that are told."""
    asked = with_drafter_path(LoadRequest(drafter=drafter, num_threads=1))
    request = CompletionRequest("one two", SamplingParams(temperature=0.8, seed=3), max_tokens=24)
    with load(asked, target, paths, lambda _line: None) as running:
        *_, last = running.completer.answer(request)
        assert last.completion is not None
        return last.completion, running.completer.model.drafter


def test_a_strategy_is_a_file(
    tmp_path: Path, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = strategies()
    assert before == ["context", "database", "grammar", "model"]
    folder = tmp_path / "strategies"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(drafters, "__path__", [*drafters.__path__, str(folder)])
    assert strategies() == [*before, "toy"]

    paths, target = Paths(data=tmp_path, cache=tmp_path / "cache"), write_model(SMALL)
    plain, shown = answer(paths, target, NO_DRAFTER)
    assert shown == NO_DRAFTER
    without, shown = answer(paths, target, LOOK_UP_ONLY)
    assert "toy" not in without.stats.by_drafter
    drafted, shown = answer(paths, target, "toy")
    assert "toy" in shown.split("+")
    assert drafted.stats.by_drafter["toy"].proposed > 0
    assert drafted.token_ids == without.token_ids == plain.token_ids
