"""Search by words and their beginnings, in any script; whatever is typed is no syntax."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.cache.chats import rows, search
from edgespec.cache.chats.search import marked
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_in_memory


@pytest.fixture
def store() -> Iterator[ChatStore]:
    with ChatStore(open_in_memory().connection) as opened:
        yield opened


def say(store: ChatStore, question: str, answer: str = "") -> str:
    begun = store.begin(None, None, question)
    store.finish(begun.answer, answer, "done")
    return begun.chat


def found(store: ChatStore, text: str) -> list[str]:
    return [marked(hit.snippet) for hit in store.search(text)]


def test_every_word_must_be_in_a_hit_the_last_one_as_a_beginning(store: ChatStore) -> None:
    chat = say(store, "Will it rain in Berlin tomorrow?", "Rain is likely in Hamburg.")
    (hit,) = store.search("rain berlin")
    assert (hit.chat, hit.title, hit.role) == (chat, "Will it rain in Berlin tomorrow?", "user")
    assert marked(hit.snippet) == "Will it [rain] in [Berlin] tomorrow?"
    assert found(store, "rain ham") == ["[Rain] is likely in [Hamburg]."]
    assert found(store, "ham rain") == [], "only the last one"
    assert len(store.search("rain")) == 2 and len(store.search("rain", limit=1)) == 1
    assert found(store, "i") == [], "one letter is a word"
    assert store.search("snow") == store.search("   ") == store.search("++") == []


def test_case_and_accents_do_not_count(store: ChatStore) -> None:
    say(store, "Où est le café?", "in snake_case")
    assert found(store, "CAFE ou") == found(store, "OU CAFE") == ["[Où] est le [café]?"]
    assert found(store, "snake_case") == ["in [snake_case]"] == found(store, "snake_ca")


def test_titles_are_searched_as_well_and_come_first(store: ChatStore) -> None:
    renamed, other = say(store, "How much is due?"), say(store, "Taxes, please")
    store.rename(renamed, "Où sont les Taxes 2025")
    hits = store.search("tax")
    assert [(hit.chat, hit.role) for hit in hits] == [(renamed, "title"), (other, "user")]
    assert (hits[0].title, hits[0].snippet[0][0]) == ("Où sont les Taxes 2025",) * 2
    assert store.load(renamed).messages[0].id == hits[0].message  # type: ignore[union-attr]
    for text, num_found in {
        "ou taxes": 1,
        "OÙ 20": 1,
        "axes": 0,
        "ou due": 0,
        "2 taxes": 0,
    }.items():
        assert len(store.search(text)) == num_found, text
    store.rename(renamed, "税金の計算")
    assert [hit.chat for hit in store.search("計算")] == [renamed]
    assert len(store.search("a", limit=1)) == 0 and len(store.search("tax", limit=1)) == 1
    store.delete(renamed)
    assert store.search("計算") == []


def test_the_latest_comes_first(store: ChatStore) -> None:
    chats = [say(store, f"question {number}") for number in range(3)]
    assert [hit.chat for hit in store.search("question")] == chats[::-1]


@pytest.mark.parametrize(
    ("said", "text", "expected"),
    [
        ("今日の天気はどうですか", "天気は", ["今日の[天気は]どうですか"]),
        ("今日の天気はどうですか", "天気", ["今日の[天気]はどうですか"]),
        ("今日の天気はどうですか", "天気は どう", ["今日の[天気は]どうですか"]),
        ("今日の天気はどうですか", "天気は 雨", []),
        ("机器学习和 Python 入门", "机器学习 Python", ["[机器学习]和 [Python] 入门"]),
        ("机器学习和 Python 入门", "机器 Py", ["[机器]学习和 Python 入门"]),
        ("สวัสดีครับผม", "ดีครับ", ["สวัส[ดีครับ]ผม"]),
        ("한국어 문장은 띄어 쓴다", "문장", ["한국어 [문장은] 띄어 쓴다"]),
    ],
)
def test_scripts_without_spaces_are_searched_within(
    store: ChatStore, said: str, text: str, expected: list[str]
) -> None:
    say(store, said, "something else")
    assert found(store, text) == expected


def test_what_changes_or_goes_is_found_as_it_is(store: ChatStore) -> None:
    begun = store.begin(None, None, "q")
    store.partial(begun.answer, "first thoughts 最初の考え")
    assert found(store, "first") == found(store, "最初の") == [], "not while it is written"
    store.finish(begun.answer, "final words 最後の言葉", "cut")
    assert len(store.search("final")) == len(store.search("最後の")) == 1
    store.reopen(begun.answer)
    assert store.search("final") == store.search("最後の") == []
    store.finish(begun.answer, "the end", "done")
    assert found(store, "end") == ["the [end]"] and store.search("最後の") == []
    store.delete(begun.chat)
    assert store.search("end") == []


@given(st.text(), st.text())
def test_whatever_is_searched_for_is_no_syntax(said: str, text: str) -> None:
    with ChatStore(open_in_memory().connection) as store:
        say(store, said, text)
        assert all(any(is_hit for _, is_hit in hit.snippet) for hit in store.search(text))


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(search).failed == doctest.testmod(rows).failed == 0
