"""The tiny models' parts without llama.cpp: spec, vocabularies, weights and the file."""

from __future__ import annotations

import dataclasses
import doctest
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, TokenType
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.errors import StorageError
from edgespec.llama.tiny import (
    SELF_CHECK_SPECS,
    Quantization,
    TinySpec,
    VocabularyKind,
    build_vocabulary,
    write_tiny_model,
)
from edgespec.llama.tiny import vocabulary as vocabulary_module
from edgespec.llama.tiny.vocabulary import byte_letters, learn_merges
from edgespec.llama.tiny.weights import random_tensors

KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gpt5"}, "'gpt5' is none of llama"),
        ({"vocabulary": "wordpiece"}, "'wordpiece' is none of bpe, spm"),
        ({"quantization": "Q3"}, "'Q3' is none of F32"),
        ({"head_quantization": "Q3"}, "'Q3' is none of F32"),
        ({"num_layers": 0}, "at least 1"),
        ({"num_kv_heads": 0}, "at least 1"),
        ({"seed": -1}, "must not be negative"),
        ({"width": 96, "num_heads": 32}, "gives 32 heads no even size"),
        ({"num_kv_heads": 3}, "3 KV heads do not divide 4 heads"),
        ({"ffn_width": 128, "quantization": "Q4_K"}, "128 is not a multiple of Q4_K's 256"),
        ({"ffn_width": 40}, "40 is not a multiple of Q4_0's 32"),
        ({"width": 128, "head_quantization": "Q6_K"}, "width 128 is not a multiple of 256"),
        ({"architecture": "lfm2", "num_layers": 1}, "no attention before its second layer"),
        ({"architecture": "mamba", "repetitive": True}, "no feed-forward block"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinySpec(**changes)


def test_the_self_check_reaches_the_fast_kernels() -> None:
    """The conditions of llama.cpp's AMX and repacking code, as TinySpec's docstring gives them."""
    for spec in SELF_CHECK_SPECS:
        vocabulary = build_vocabulary(spec.vocabulary, spec.num_vocab)
        matrices = [tensor for tensor in random_tensors(spec, vocabulary) if tensor.is_matrix]
        assert len(matrices) == 1 + 7 * spec.num_layers
        for tensor in matrices:
            rows, columns = tensor.data.shape
            name = spec.embedding_quantization if tensor.is_head else spec.quantization
            assert rows % 32 == 0
            assert columns % (256 if name.endswith("_K") else 32) == 0
    assert {spec.quantization for spec in SELF_CHECK_SPECS} == {"Q4_0", "Q8_0", "Q4_K"}


def test_byte_letters_are_gpt2s() -> None:
    letters = byte_letters()
    assert len(set(letters)) == 256
    assert all(len(letter) == 1 and letter.isprintable() and letter != " " for letter in letters)
    assert [letters[byte] for byte in (0x00, 0x0A, 0x20, 0x41, 0x7F, 0xAD, 0xFF)] == list("ĀĊĠAġŃÿ")


def naive_merges(words: list[str], num_new: int) -> list[tuple[str, str]]:
    """The textbook algorithm on lists of parts, counted from scratch each time."""
    split = [list(word) for word in words]
    merges: list[tuple[str, str]] = []
    while len({left + right for left, right in merges}) < num_new:
        found = [pair for parts in split for pair in pairwise(parts)]
        ranked = sorted(set(found), key=lambda pair: (found.count(pair), pair))
        if not ranked or found.count(ranked[-1]) < 2:
            return merges
        left, right = ranked[-1]
        merges.append((left, right))
        for index, parts in enumerate(split):
            joined: list[str] = []
            rest = parts
            while rest:
                matches = rest[:2] == [left, right]
                joined.append(left + right if matches else rest[0])
                rest = rest[2:] if matches else rest[1:]
            split[index] = joined
    return merges


@given(st.lists(st.text("abc", min_size=1, max_size=8), max_size=12), st.integers(0, 10))
def test_merges_are_those_of_the_textbook_algorithm(words: list[str], num_new: int) -> None:
    assert learn_merges(words, num_new) == naive_merges(words, num_new)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_vocab", [384, 512, 1024])
def test_a_vocabulary_is_complete(kind: VocabularyKind, num_vocab: int) -> None:
    vocabulary = build_vocabulary(kind, num_vocab)
    assert len(vocabulary.texts) == len(vocabulary.types) == num_vocab
    assert len(set(vocabulary.texts)) == num_vocab
    single = {vocabulary.token_bytes(token) for token in range(num_vocab)}
    assert {bytes([byte]) for byte in range(256)} <= single
    assert vocabulary.types[vocabulary.eos] == TokenType.CONTROL
    assert vocabulary.types[vocabulary.bos] == TokenType.CONTROL
    assert b" the" in single


def test_bpe_merges_join_tokens_to_tokens() -> None:
    vocabulary = build_vocabulary("bpe", 512)
    assert len(vocabulary.merges) > 200
    assert not vocabulary.scores
    texts = set(vocabulary.texts)
    for merge in vocabulary.merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= texts


def test_spm_pieces_are_ranked_and_made_of_pieces() -> None:
    vocabulary = build_vocabulary("spm", 512)
    assert not vocabulary.merges
    scores = {
        text: score
        for text, score, kind in zip(
            vocabulary.texts, vocabulary.scores, vocabulary.types, strict=True
        )
        if kind == TokenType.NORMAL
    }
    assert len(set(scores.values())) == len(scores)
    letters = [text for text in scores if len(text) == 1]
    assert max(scores[letter] for letter in letters) < min(
        score for text, score in scores.items() if len(text) > 1
    )
    for text in scores:
        splits = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        assert not splits or any(left in scores and right in scores for left, right in splits)


def test_what_the_text_cannot_fill_is_unused() -> None:
    vocabulary = build_vocabulary("bpe", 4096)
    num_unused = sum(kind == TokenType.UNUSED for kind in vocabulary.types)
    assert num_unused > 1000
    assert vocabulary.token_bytes(4095) == vocabulary.texts[4095].encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_without_room_for_the_bytes_is_refused(kind: VocabularyKind) -> None:
    with pytest.raises(ValueError, match="a vocabulary of 200 is too small"):
        build_vocabulary(kind, 200)


def test_weights_depend_on_seed_and_name_alone() -> None:
    two, three = _weights(TinySpec()), _weights(TinySpec(num_layers=3))
    assert set(two) < set(three)
    for name, data in two.items():
        np.testing.assert_array_equal(data, three[name])
        assert data.dtype == np.float32
        assert np.isfinite(data).all()
    other = _weights(TinySpec(seed=1))
    assert not np.array_equal(other["blk.1.ffn_up.weight"], two["blk.1.ffn_up.weight"])


def test_rings_visit_every_text_token_once() -> None:
    for token, follower in (followers := _followers(TinySpec())).items():
        ring = [token]
        while (following := followers[ring[-1]]) != token:
            ring.append(following)
            assert len(ring) <= 16
        assert follower != token
    vocabulary = build_vocabulary("bpe", 512)
    assert set(followers) == set(followers.values())
    assert {vocabulary.types[token] for token in followers} == {TokenType.NORMAL}
    assert len(followers) > 300


@pytest.mark.parametrize("tied", [True, False])
def test_the_memory_turns_a_token_into_its_follower(tied: bool) -> None:
    """What llama.cpp computes, in numpy: one token through embedding, memory, norm and head."""
    spec = TinySpec(tied=tied, repetitive=True, quantization="F32")
    weights = _weights(spec)
    embeddings = weights["token_embd.weight"]
    head = weights.get("output.weight", embeddings)
    for token, follower in _followers(spec).items():
        stream = embeddings[token]
        normed = stream / np.sqrt(np.mean(stream**2))
        gate = weights["blk.0.ffn_gate.weight"] @ normed
        up = weights["blk.0.ffn_up.weight"] @ normed
        written = weights["blk.0.ffn_down.weight"] @ (gate / (1 + np.exp(-gate)) * up)
        logits = head @ ((stream + written) * weights["output_norm.weight"])
        assert logits.argmax() == follower
        assert 0.8 < np.sqrt(np.mean(written**2) / np.mean(embeddings[follower] ** 2)) < 1.5


def _weights(spec: TinySpec) -> dict[str, NDArray[np.float32]]:
    vocabulary = build_vocabulary(spec.vocabulary, spec.num_vocab)
    return {tensor.name: tensor.data for tensor in random_tensors(spec, vocabulary)}


def _followers(spec: TinySpec) -> dict[int, int]:
    """The rings, read off the memory: whose embedding is each key, whose head row each value."""
    weights = _weights(spec)
    embeddings = weights["token_embd.weight"]
    head = weights.get("output.weight", embeddings)
    keys = weights["blk.0.ffn_gate.weight"]
    values = weights["blk.0.ffn_down.weight"] * weights["output_norm.weight"][:, None]
    used = np.flatnonzero(keys.any(axis=1))
    tokens = _unit(embeddings) @ keys[used].T
    followers = _unit(head) @ values[:, used]
    return dict(zip(tokens.argmax(0).tolist(), followers.argmax(0).tolist(), strict=True))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def test_control_and_unused_tokens_are_quiet_and_broken_characters_rare() -> None:
    vocabulary = build_vocabulary("bpe", 1024)
    lengths = np.linalg.norm(_weights(TinySpec(num_vocab=1024))["token_embd.weight"], axis=1)
    loudest = lengths[vocabulary.texts.index("A")]
    assert lengths[vocabulary.eos] < 0.1 * loudest
    assert lengths[vocabulary.types.index(TokenType.UNUSED)] < 0.1 * loudest
    assert 0.4 * loudest < lengths[0xFF] < 0.7 * loudest


def test_several_writers_of_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    specs = [TinySpec(seed=seed % 2) for seed in range(6)]
    path = tmp_path / "model.gguf"
    whole = {
        _digest(write_tiny_model(tmp_path / f"{spec.seed}.gguf", spec)): spec for spec in specs
    }
    with ThreadPoolExecutor(3) as pool:
        for written in pool.map(lambda spec: write_tiny_model(path, spec), specs):
            assert _digest(written) in whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["0.gguf", "1.gguf", "model.gguf"]


def test_docstring_examples_hold() -> None:
    results = doctest.testmod(vocabulary_module)
    assert results.attempted >= 2
    assert results.failed == 0


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K"])
def test_the_file_holds_what_the_spec_says(tmp_path: Path, name: Quantization) -> None:
    spec = TinySpec(architecture="qwen3", quantization=name, head_quantization="Q8_0", tied=False)
    reader = GGUFReader(write_tiny_model(tmp_path / "model.gguf", spec))
    fields = reader.fields
    assert fields["general.architecture"].contents() == "qwen3"
    assert fields["qwen3.attention.head_count_kv"].contents() == 2
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 512
    assert "<|im_start|>" in fields["tokenizer.chat_template"].contents()
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == name
    assert types["blk.1.attn_q_norm.weight"] == "F32"


def test_the_same_spec_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "here.gguf", TinySpec(vocabulary="spm"))
    program = (
        "import sys; from pathlib import Path; from edgespec.llama.tiny import *;"
        "write_tiny_model(Path(sys.argv[1]), TinySpec(vocabulary='spm'))"
    )
    there = tmp_path / "there.gguf"
    subprocess.run([sys.executable, "-c", program, there], check=True)
    assert _digest(there) == _digest(path)
    other = write_tiny_model(tmp_path / "other.gguf", TinySpec(vocabulary="spm", seed=1))
    assert _digest(other) != _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    program = (
        "import resource, sys; from pathlib import Path; from edgespec.errors import StorageError\n"
        "from edgespec.llama.tiny import TinySpec, write_tiny_model\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    write_tiny_model(Path(sys.argv[1]), TinySpec())\n"
        "except StorageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert done.stdout.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.gguf"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*No such file"):
        write_tiny_model(tmp_path / "missing" / "model.gguf", TinySpec())


def test_specs_are_values() -> None:
    assert dataclasses.replace(TinySpec(), seed=3) == TinySpec(seed=3)
    assert hash(TinySpec()) == hash(TinySpec())
