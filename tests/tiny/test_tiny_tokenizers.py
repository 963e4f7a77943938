"""The tiny vocabularies in llama.cpp's own tokenizer: any text comes back, merges are merges."""

from __future__ import annotations

from collections.abc import Iterator

import llama_cpp as native
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_llama import RawModel
from tiny_models import TinySpec, VocabularyKind, build_vocabulary, write_tiny_model

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
