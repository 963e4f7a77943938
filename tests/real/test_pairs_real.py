"""Pairs of the real models, drafting at every chance: the same bytes, whatever drafts for whom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from measure_pairs import PROMPTS, Bench, check_pair

from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.machine.facts import MODEL, model_key
from edgespec.runtime.running import Running

NUM_TOKENS = 12
GERMAN, CHINESE, EMOJI, JSON = PROMPTS[1], PROMPTS[2], PROMPTS[4], PROMPTS[7]


@pytest.fixture(scope="module")
def facts(real: Running) -> Iterator[Facts]:
    """What was measured of the default target is not measured again."""
    with open_in_memory() as database:
        store = Facts(database)
        store.put(MODEL, model_key(real.model, real.machine), real.facts.to_json())
        yield store


@pytest.mark.parametrize(
    ("target", "drafter", "prompts"),
    [
        ("target_path", "drafter_path", (CHINESE, JSON)),
        ("drafter_path", "drafter_path", (GERMAN, EMOJI)),
        ("drafter_path", "target_path", (GERMAN,)),
    ],
    ids=["a stranger", "the target itself", "one ten times as large"],
)
def test_drafts_change_no_byte(
    request: pytest.FixtureRequest,
    facts: Facts,
    target: str,
    drafter: str,
    prompts: tuple[str, ...],
) -> None:
    paths: list[Path] = [request.getfixturevalue(name) for name in (target, drafter)]
    with contextlib.ExitStack() as cleanup:
        bench = Bench(paths[0], facts, cleanup)
        result = check_pair(bench, paths[1], prompts, NUM_TOKENS)
    assert result.proposed["model"] > 0
    if result.exactness == "identical":
        assert result.differing == []
        if target == drafter:
            assert result.accepted["model"] > 0
