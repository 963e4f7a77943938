"""Words with counts: cut and joined, in the tokens of any vocabulary, shipped and from files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from counting.answers import asked_by_target, prompts, read_lines, topics
from counting.samples import held_out
from hypothesis import example, given
from hypothesis import strategies as st
from toy_vocabularies import TOYS

from edgespec.errors import UsageError
from edgespec.forms import words as words_module
from edgespec.forms.weighing import samples
from edgespec.forms.words import WordCounts, read_counts, shipped_words, split_words
from edgespec.vocab.tokenizer import ByteTokenizer

TOKENIZERS = {name: ByteTokenizer(make()) for name, make in TOYS.items()}
TEXTS = (
    "The cat isn't here; the other one (black) is.\n\n1. Go there.\n2. In 1989, the wall fell.",
    "def f(self, x_1):\n    return [self.g(x) for x in range(10)]\n\n\nprint('done')\r\n",
    "Größe ist 3,5 m². 你好，世界！ Привет 🙂🙂\tThe end",
)

each_vocabulary = pytest.mark.parametrize("name", TOKENIZERS)


@given(st.text(max_size=40))
@example(TEXTS[0])
@example(TEXTS[1])
@example(TEXTS[2])
@example("a_b __c__ ²₂ \u2028x\r\n\r\n  \v")
def test_words_joined_are_the_text(text: str) -> None:
    words = split_words(text)
    assert "".join(words) == text
    assert all(words)


def test_text_is_cut_where_tokens_end() -> None:
    assert split_words("I've  two\n\n    cats.\nOK") == [
        "I",
        "'ve",
        "  two",
        "\n\n    cats",
        ".\n",
        "OK",
    ]
    assert split_words("f(x_1) += 25;") == ["f", "(x", "_", "1", ")", " +=", " 2", "5", ";"]


@each_vocabulary
def test_tokens_of_the_words_are_those_of_the_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    counts = WordCounts.of(TEXTS, "a test").in_tokens(tokenizer)
    expected = Counter(token for text in TEXTS for token in tokenizer.encode(text.encode()).tokens)
    found = {int(token): int(counts.counts[token]) for token in np.flatnonzero(counts.counts)}
    different = sum(abs(expected[token] - found.get(token, 0)) for token in {*expected, *found})
    assert different <= 0.1 * sum(expected.values()), "joins across words are rare"
    assert counts.fingerprint == tokenizer.fingerprint
    assert counts.origin == "a test"
    assert counts.counts.shape == (tokenizer.vocab.num_tokens,)


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 1 << 40), max_size=5), st.text())
def test_what_is_written_is_read(counts: dict[str, int], origin: str) -> None:
    table = WordCounts(counts, origin)
    data = table.to_bytes()
    assert WordCounts.from_bytes(data) == table
    backwards = dict(reversed(counts.items()))
    assert WordCounts(backwards, origin).to_bytes() == data


def test_a_table_is_shipped_and_small() -> None:
    words = shipped_words()
    assert sum(words.counts.values()) > 100_000
    ranked = sorted(words.counts, key=lambda word: -words.counts[word])
    assert {" the", ".", ",", " and"} <= set(ranked[:10])
    assert any("的" in word for word in ranked)
    assert " für" in words.counts
    assert " def" in words.counts or "def" in words.counts
    assert "answers of qwen2.5-coder-1.5b" in words.origin
    folder = Path(words_module.__file__).parent / "data"
    assert (folder / words_module.WORDS_FILE).stat().st_size < 60_000
    assert shipped_words() is words


def test_counts_come_from_text_of_the_user(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["bpe"]
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfthe the dog")
    counts = read_counts(path, tokenizer)
    assert counts.origin == "notes.txt"
    expected = Counter(tokenizer.encode(b"the the dog").tokens)
    assert {int(token): counts.counts[token] for token in np.flatnonzero(counts.counts)} == expected


def test_counts_come_from_a_saved_table(tmp_path: Path) -> None:
    path = tmp_path / "my.counts"
    written = WordCounts.of(TEXTS, "mine").in_tokens(TOKENIZERS["bpe"])
    written.save(path)
    read = read_counts(path, TOKENIZERS["bpe"])
    np.testing.assert_array_equal(read.counts > 0, written.counts > 0)
    assert read.origin == "mine"
    with pytest.raises(UsageError, match=r"counts \(mine\) are of another vocabulary") as refused:
        read_counts(path, TOKENIZERS["spm"])
    assert "\n" not in str(refused.value)


def test_what_is_neither_text_nor_table_is_refused(tmp_path: Path) -> None:
    for name, data, problem in (
        ("binary", b"GGUF\xff\xfe\x00", "neither a table of counts nor text"),
        ("empty", b"", "is empty"),
        ("absent", None, r"cannot read counts from .*No such file"),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UsageError, match=problem) as refused:
            read_counts(path, TOKENIZERS["bpe"])
        assert str(path) in str(refused.value)
    with pytest.raises(UsageError, match="cannot read counts"):
        read_counts(tmp_path, TOKENIZERS["bpe"])


def test_prompts_are_our_own_and_all_different() -> None:
    texts = [text for _, text in prompts()]
    assert len(texts) == len(set(texts)) > 100
    assert all(texts)
    assert len(set(topics())) == len(list(topics())) > 100
    kept_back = held_out()
    assert len(kept_back) == 16
    assert {text for _, text in kept_back} < set(texts)
    assert len({category for category, _ in kept_back}) > 5


def test_the_target_asks_further(tmp_path: Path) -> None:
    lines = [
        {"category": "questions", "prompt": "?", "answer": "1. How do I sew a button?\n2) No\n3. "},
        {"category": "chat", "prompt": "?", "answer": "1. This is no question to be asked."},
    ]
    file = tmp_path / "answers.jsonl"
    assert read_lines(file) == []
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(asked_by_target(read_lines(file))) == [("asked", "How do I sew a button?")]


def test_samples_answer_what_was_kept_back() -> None:
    answered = [prompt for prompt, _ in samples()]
    assert answered == [text for _, text in held_out()]
    assert all(len(answer) > 20 for _, answer in samples())
    assert len({category for category, _ in held_out()[:4]}) == 4
