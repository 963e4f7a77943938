"""What is asked to learn from: many kinds in their shares, always the same, nothing of a suite."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources

import pytest

from edgespec.learning.prompts import Asked, all_asked

SHARES = {
    "chat": 0.12,
    "explain": 0.12,
    "writing": 0.10,
    "code": 0.12,
    "snippets": 0.08,
    "mathematics": 0.08,
    "reasoning": 0.04,
    "extraction": 0.06,
    "summary": 0.06,
    "grounded": 0.06,
    "facts": 0.06,
    "translation": 0.06,
    "german": 0.015,
    "french": 0.015,
    "spanish": 0.015,
    "chinese": 0.017,
    "japanese": 0.015,
}
EAST_ASIAN = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def said(asked: Asked) -> list[str]:
    return [message.content for message in asked.messages] + list(asked.follow_ups)


def test_there_are_thousands_of_conversations_and_none_twice() -> None:
    asked = all_asked()

    assert len(asked) >= 3000
    assert len({found.messages for found in asked}) == len(asked)
    # What is asked of several systems may be the same, though rarely.
    assert len({found.messages[-1].content for found in asked}) > 0.99 * len(asked)
    assert [found.number for found in asked] == list(range(len(asked)))


def test_each_kind_has_its_share_in_all_and_is_in_any_two_hundred() -> None:
    kinds = [asked.kind for asked in all_asked()]

    counts = Counter(kinds)
    assert set(counts) == set(SHARES)
    for kind, share in SHARES.items():
        assert counts[kind] / len(kinds) == pytest.approx(share, abs=0.006), kind
    for first in range(len(kinds) - 199):
        assert set(kinds[first : first + 200]) == set(SHARES)


def test_asked_again_it_is_the_same() -> None:
    before = all_asked()
    all_asked.cache_clear()

    assert all_asked() == before


def test_conversations_go_on_in_a_third_and_begin_with_a_system_in_some() -> None:
    asked = all_asked()

    for found in asked:
        roles = [message.role for message in found.messages]
        assert roles in (["user"], ["system", "user"])
        assert len(found.follow_ups) <= 2
        assert all(text.strip() for text in said(found))
    assert 0.25 < sum(bool(found.follow_ups) for found in asked) / len(asked) < 0.4
    assert 0.05 < sum(len(found.messages) == 2 for found in asked) / len(asked) < 0.2


def test_no_placeholder_is_left_but_those_of_code() -> None:
    left = re.compile(r"\{(?:\d+-\d+(?:/\d+)?|[a-z_]+\d?(?:\.[a-z]+)?)\}")

    for found in all_asked():
        for text in said(found):
            assert not left.search(re.sub("```.*?```", "", text, flags=re.DOTALL)), text


def runs(text: str) -> Iterator[str]:
    """Ten words in a row, or a whole shorter sentence; twenty signs of Chinese or Japanese."""
    words = re.findall(r"\w+", text.lower())
    if len(words) >= 4:
        for first in range(max(1, len(words) - 9)):
            yield " ".join(words[first : first + 10])
    signs = "".join(EAST_ASIAN.findall(text))
    for first in range(len(signs) - 19):
        yield signs[first : first + 20]


def strings(value: object) -> Iterator[str]:
    """Every text in a line of a suite."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def test_nothing_is_asked_that_a_suite_measures_with() -> None:
    measured = {
        run
        for file in resources.files("edgespec.bench").joinpath("suites").iterdir()
        for line in file.read_text(encoding="utf-8").split("\n")
        if line.strip()
        for text in strings(json.loads(line))
        for run in runs(text)
    }

    assert len(measured) > 10_000
    for found in all_asked():
        for text in said(found):
            assert not measured.intersection(runs(text)), text
