"""The tiny vocabularies in llama.cpp's own tokenizer: any text comes back, merges are merges."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import jinja2
import llama_cpp as native
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_llama import RawModel

from edgespec.llama.tiny import TinySpec, VocabularyKind, build_vocabulary, write_tiny_model
from edgespec.llama.tiny.vocabulary import byte_letters

KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")
Tokenizers = dict[tuple[VocabularyKind, bool], RawModel]
SPECIMENS = (
    "The river's old mill, 2024!",
    "fließt über die Brücke",
    "河水很冷。龍",
    "🙂🏳️‍🌈",
    "\r\n\t  x\n\n",
)
TEXTS = st.text() | st.lists(st.sampled_from(SPECIMENS) | st.text(max_size=4)).map("".join)


@pytest.fixture(name="tokenizers", scope="module")
def fixture_tokenizers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tokenizers]:
    folder = tmp_path_factory.mktemp("tokenizers")
    specs = (
        TinySpec(vocabulary="bpe", space_prefix=False),
        TinySpec(vocabulary="spm", space_prefix=True),
        TinySpec(vocabulary="spm", space_prefix=False),
    )
    models = {
        (spec.vocabulary, spec.space_prefix): RawModel(write_tiny_model(folder / "m.gguf", spec))
        for spec in specs
    }
    yield models
    for model in models.values():
        model.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS)
@example(text="".join(SPECIMENS))
@example(text=" <|im_end|> <s> </s> <0x41> \x00 ▁")
def test_any_text_comes_back(tokenizers: Tokenizers, text: str) -> None:
    for (kind, space_prefix), model in tokenizers.items():
        # SentencePiece writes a space as ▁, so a ▁ of the text comes back as a space.
        expected = text.replace("▁", " ") if kind == "spm" else text
        tokens = model.tokenize(text)
        assert model.detokenize(tokens).decode() == expected
        vocabulary = build_vocabulary(kind, 512)
        prefix = " " if space_prefix and text else ""
        spelled = b"".join(vocabulary.token_bytes(token) for token in tokens)
        assert spelled.decode() == prefix + expected


def test_sentences_become_words(tokenizers: Tokenizers) -> None:
    for model in tokenizers.values():
        for text in ("The people of the town read the letter", "Die Kinder sind auch am Fluss"):
            assert len(model.tokenize(text)) < 0.7 * len(text)
        assert len(model.tokenize(" the")) <= 2


def merged(word: bytes) -> list[bytes]:
    """Byte-pair encoding by its definition: again and again the first merge of the list applies."""
    vocabulary = build_vocabulary("bpe", 512)
    letters = byte_letters()
    parts = [letters[byte] for byte in word]
    ranks = {merge: rank for rank, merge in enumerate(vocabulary.merges)}
    while candidates := [pair for pair in map(" ".join, pairwise(parts)) if pair in ranks]:
        left, right = min(candidates, key=ranks.__getitem__).split(" ")
        index = next(i for i, pair in enumerate(pairwise(parts)) if pair == (left, right))
        parts[index : index + 2] = [left + right]
    return [bytes(letters.index(letter) for letter in part) for part in parts]


@settings(max_examples=200, deadline=None)
@given(word=st.text("abcdehilnorstuwvü", min_size=1, max_size=12).map(" {}".format))
@example(word=" sentence")
def test_llama_cpp_merges_as_the_merges_say(tokenizers: Tokenizers, word: str) -> None:
    vocabulary = build_vocabulary("bpe", 512)
    tokens = tokenizers["bpe", False].tokenize(word)
    assert [vocabulary.token_bytes(token) for token in tokens] == merged(word.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_are_control_tokens(tokenizers: Tokenizers, kind: VocabularyKind) -> None:
    model = tokenizers[kind, kind == "spm"]
    ends = ("<|im_end|>", "<|endoftext|>") if kind == "bpe" else ("</s>", "<end_of_turn>")
    for name in ends:
        [token] = model.tokenize(name, parse_special=True)[-1:]
        assert native.llama_vocab_is_control(model.vocab, token)
        assert native.llama_vocab_is_eog(model.vocab, token)
        assert token not in model.tokenize(name)
    assert native.llama_vocab_eos(model.vocab) == build_vocabulary(kind, 512).eos
    assert native.llama_vocab_bos(model.vocab) == build_vocabulary(kind, 512).bos
    assert native.llama_vocab_get_add_bos(model.vocab) is (kind == "spm")


@pytest.mark.parametrize("kind", KINDS)
def test_the_chat_template_is_the_one_llama_cpp_knows(
    tokenizers: Tokenizers, kind: VocabularyKind
) -> None:
    model = tokenizers[kind, kind == "spm"]
    template = native.llama_model_chat_template(model.model, None)
    turns = [("user", "What is the time?"), ("assistant", "Late."), ("user", "How late?")]
    chat = (native.llama_chat_message * len(turns))(
        *(native.llama_chat_message(role.encode(), text.encode()) for role, text in turns)
    )
    text = ctypes.create_string_buffer(2000)
    count = native.llama_chat_apply_template(template, chat, len(turns), True, text, len(text))
    rendered = jinja2.Template(template.decode(), keep_trailing_newline=True).render(
        messages=[{"role": role, "content": content} for role, content in turns],
        add_generation_prompt=True,
        bos_token="",
    )
    assert rendered == text.raw[:count].decode()


def test_a_model_may_have_no_chat_template(tmp_path: Path) -> None:
    spec = TinySpec(chat_template=False)
    model = RawModel(write_tiny_model(tmp_path / "model.gguf", spec))
    assert native.llama_model_chat_template(model.model, None) is None
    model.close()
