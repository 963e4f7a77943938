"""Vocabulary and bridge over real tokenizers: any text comes back, special tokens are special."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rigs import SMALL, OpenModel
from tiny_models import VocabularyKind, build_vocabulary

from edgespec.errors import UsageError
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.model import Model
from edgespec.llama.template import ChatTemplate
from edgespec.llama.vocabulary import Vocabulary
from edgespec.types import Message

KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")
SPECIMENS = ("The river's", " fließt", "河水", "🏳️‍🌈", "\r\n\t ", "<|im_end|>", "</s>", "\0")
TEXTS = st.lists(st.sampled_from(SPECIMENS) | st.text(max_size=5), max_size=8).map("".join)


@pytest.fixture(name="vocabularies", scope="module")
def fixture_vocabularies(open_model: OpenModel) -> dict[VocabularyKind, Vocabulary]:
    return {kind: model_of(open_model, kind).vocab for kind in KINDS}


def model_of(open_model: OpenModel, kind: VocabularyKind) -> Model:
    return open_model(dataclasses.replace(SMALL, vocabulary=kind))


@given(text=TEXTS)
@example(text="")
@example(text=" ")
def test_any_text_comes_back_as_bytes(
    vocabularies: dict[VocabularyKind, Vocabulary], text: str
) -> None:
    data = text.encode()
    assert vocabularies["bpe"].detokenize(vocabularies["bpe"].tokenize(data)) == data
    # SentencePiece writes a space as ▁ and puts one before the text.
    expected = (" " + text).replace("▁", " ").encode() if text else b""
    assert vocabularies["spm"].detokenize(vocabularies["spm"].tokenize(data)) == expected


@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_read_too(
    vocabularies: dict[VocabularyKind, Vocabulary], data: bytes
) -> None:
    for vocabulary in vocabularies.values():
        tokens = vocabulary.tokenize(data)
        assert all(0 <= token < vocabulary.num_tokens for token in tokens)
        assert bool(tokens) == bool(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_the_bytes_that_the_file_gives_it(
    vocabularies: dict[VocabularyKind, Vocabulary], kind: VocabularyKind
) -> None:
    vocabulary, written = vocabularies[kind], build_vocabulary(kind, 512)
    assert vocabulary.kind == kind
    assert vocabulary.num_tokens == 512
    for token in range(512):
        if vocabulary.is_control(token):
            assert vocabulary.piece(token) == b""
            assert vocabulary.piece(token, special=True) == written.token_bytes(token)
        elif vocabulary.piece(token):
            assert vocabulary.piece(token) == written.token_bytes(token)
            assert vocabulary.piece(token, special=True) == written.token_bytes(token)
    assert sum(vocabulary.piece(token) == b"" for token in range(512)) < 10


@pytest.mark.parametrize("kind", KINDS)
def test_ends_of_an_answer(
    vocabularies: dict[VocabularyKind, Vocabulary], kind: VocabularyKind
) -> None:
    vocabulary, written = vocabularies[kind], build_vocabulary(kind, 512)
    assert vocabulary.bos == written.bos
    assert vocabulary.eos == written.eos
    assert vocabulary.eos in vocabulary.end_tokens
    assert vocabulary.end_tokens == {t for t in range(512) if vocabulary.is_end(t)}
    assert all(vocabulary.is_control(token) for token in vocabulary.end_tokens)
    assert 1 <= len(vocabulary.end_tokens) <= 4


@pytest.mark.parametrize("token", [-1, 512, 1 << 31])
def test_an_unknown_token_is_refused(
    vocabularies: dict[VocabularyKind, Vocabulary], token: int
) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary of 512"):
        vocabularies["bpe"].piece(token)


@pytest.mark.parametrize("kind", KINDS)
def test_special_text_is_special_only_where_it_is_asked_for(
    vocabularies: dict[VocabularyKind, Vocabulary], kind: VocabularyKind
) -> None:
    vocabulary = vocabularies[kind]
    assert vocabulary.eos is not None
    text = vocabulary.piece(vocabulary.eos, special=True)
    assert vocabulary.tokenize(text, parse_special=True)[-1] == vocabulary.eos
    plain = vocabulary.tokenize(text)
    assert vocabulary.eos not in plain
    assert vocabulary.detokenize(plain).strip() == text
    with_bos = vocabulary.tokenize(b"text", add_special=True)
    assert (with_bos[0] == vocabulary.bos) == (kind == "spm")


def test_text_longer_than_its_tokens_and_back(
    vocabularies: dict[VocabularyKind, Vocabulary],
) -> None:
    for vocabulary in vocabularies.values():
        data = "龍".encode() * 5000  # three tokens a letter
        tokens = vocabulary.tokenize(data)
        assert len(tokens) >= 15_000
        assert vocabulary.detokenize(tokens).strip() == data


@pytest.mark.parametrize("kind", KINDS)
def test_the_bridge_encodes_chats_with_one_beginning(
    open_model: OpenModel, kind: VocabularyKind
) -> None:
    model = model_of(open_model, kind)
    bridge = ModelBridge(model)
    messages = [Message("user", "the river"), Message("assistant", "so"), Message("user", "why?")]
    tokens = bridge.encode_chat(messages)
    assert tokens.count(model.vocab.bos or 0) == (kind == "spm")
    bos = model.vocab.piece(model.vocab.bos or 0, special=True).decode()
    rendered = ChatTemplate(model.chat_template, bos, "").render(messages)
    text = b"".join(bridge.piece(token, special=True) for token in tokens).decode()
    assert text.replace("> ", ">") == rendered.replace("> ", ">")
    assert sum(map(bridge.is_end, tokens)) == 3
    assert b"<" not in b"".join(map(bridge.piece, tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_ends_a_turn_by_writing_so(open_model: OpenModel, kind: VocabularyKind) -> None:
    model = model_of(open_model, kind)
    bridge = ModelBridge(model)
    ends = {token for token in range(model.vocab.num_tokens) if bridge.is_end(token)}
    end = bridge.piece(min(ends), special=True).decode()
    assert bridge.encode(end)[-1] in ends, "it is one in a plain prompt"
    said = f"x{end}{end}y"
    harmless = bridge.encode_chat([Message("user", "xy")])
    tokens = bridge.encode_chat([Message("user", said)])
    assert sum(map(bridge.is_end, tokens)) == sum(map(bridge.is_end, harmless))
    text = b"".join(bridge.piece(token, special=True) for token in tokens).decode()
    assert said in text.replace(" ", "")
    assert said in bridge.render_chat([Message("user", said)])


def test_a_model_without_template_is_spoken_to_in_chatml(open_model: OpenModel) -> None:
    model = open_model(dataclasses.replace(SMALL, chat_template=False))
    assert model.chat_template is None
    bridge = ModelBridge(model)
    tokens = bridge.encode_chat([Message("user", "hello")])
    text = b"".join(bridge.piece(token, special=True) for token in tokens)
    assert text == b"<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_text_that_cannot_be_encoded_is_read_with_question_marks(open_model: OpenModel) -> None:
    """Invalid UTF-8 on a command line becomes lone surrogates."""
    bridge = ModelBridge(model_of(open_model, "bpe"))
    assert bridge.encode("caf\udce9") == bridge.encode("caf?")
    chat = [bridge.encode_chat([Message("user", text)]) for text in ("caf\udce9", "caf?")]
    assert chat[0] == chat[1]


def test_a_broken_template_is_told_when_the_bridge_is_made(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "chat_template", "{% for %}")
    with pytest.raises(UsageError, match="chat template does not parse"):
        ModelBridge(model_of(open_model, "bpe"))
