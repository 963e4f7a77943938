"""The tiny models that tests run: vocabularies without gaps, the same bytes for the same spec."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from gguf import TokenType
from tiny_models import TinySpec, VocabularyKind, build_vocabulary, write_tiny_model
from tiny_models import vocabulary as vocabulary_module


@pytest.mark.parametrize("kind", ["bpe", "spm"])
@pytest.mark.parametrize("num_vocab", [384, 512, 1024])
def test_a_vocabulary_is_complete(kind: VocabularyKind, num_vocab: int) -> None:
    vocabulary = build_vocabulary(kind, num_vocab)
    assert len(vocabulary.texts) == len(vocabulary.types) == len(set(vocabulary.texts)) == num_vocab
    single = {vocabulary.token_bytes(token) for token in range(num_vocab)}
    assert {bytes([byte]) for byte in range(256)} | {b" the"} <= single
    assert vocabulary.types[vocabulary.eos] == TokenType.CONTROL
    assert vocabulary.types[vocabulary.bos] == TokenType.CONTROL


def test_docstring_examples_hold() -> None:
    results = doctest.testmod(vocabulary_module)
    assert results.attempted >= 2
    assert results.failed == 0


def test_the_same_spec_gives_the_same_bytes(tmp_path: Path) -> None:
    specs = [TinySpec(vocabulary="spm"), TinySpec(vocabulary="spm"), TinySpec(seed=1)]
    first, same, other = (
        write_tiny_model(tmp_path / f"{number}.gguf", spec).read_bytes()
        for number, spec in enumerate(specs)
    )
    assert first == same != other
