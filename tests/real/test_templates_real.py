"""Text to tokens with the vocabularies and chat templates of the default pair.

Two other programs render the same conversations: llama.cpp's own templates, written in C++, and
llama-cpp-python's Jinja formatter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from edgespec.llama.bridge import ModelBridge
from edgespec.llama.model import Model
from edgespec.llama.template import ChatTemplate
from edgespec.llama.vocabulary import Vocabulary
from edgespec.models.registry import DEFAULT_DRAFTER, DEFAULT_TARGET
from edgespec.types import Message

NAMES = (DEFAULT_TARGET, DEFAULT_DRAFTER)
DEFAULT_SYSTEM = {
    DEFAULT_TARGET: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    DEFAULT_DRAFTER: "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}
"""What each template says first if the conversation has no system message of its own."""

START, END = "<|im_start|>", "<|im_end|>"
SYSTEM = Message("system", "Answer in one word.")
USER = Message("user", "What is the capital of France?")
ASSISTANT = Message("assistant", "Paris.")
CONVERSATIONS = {
    "one question": [USER],
    "with a system message": [SYSTEM, USER],
    "two turns": [USER, ASSISTANT, Message("user", "And of Italy?")],
    "three turns with a system message": [
        SYSTEM,
        USER,
        ASSISTANT,
        Message("user", "And of Italy?"),
        Message("assistant", "Rome."),
        Message("user", "And of Japan?"),
    ],
    "an answer to go on from": [SYSTEM, USER, ASSISTANT],
    "spaces and lines": [SYSTEM, Message("user", "  def f(x):\n\treturn x\n\n\n  # done \n")],
    "other scripts": [Message("system", "Sei höflich."), Message("user", "你好，世界 🙂 – größer")],
    "nothing said": [SYSTEM, Message("user", "")],
}


def native_render(template: str, messages: Sequence[Message]) -> str:
    """What llama_chat_apply_template makes of a conversation."""
    chat = (native.llama_chat_message * len(messages))(
        *(native.llama_chat_message(m.role.encode(), m.content.encode()) for m in messages)
    )
    buffer = ctypes.create_string_buffer(1 << 16)
    apply: Any = native.llama_chat_apply_template
    length = apply(template.encode(), chat, len(messages), True, buffer, len(buffer))
    assert 0 < length < len(buffer)
    return buffer.raw[:length].decode()


def with_system(name: str, messages: list[Message]) -> list[Message]:
    if messages[0].role == "system":
        return messages
    return [Message("system", DEFAULT_SYSTEM[name]), *messages]


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_conversations_read_as_two_others_render_them(
    vocabularies: dict[str, Model], name: str, messages: list[Message]
) -> None:
    model = vocabularies[name]
    assert model.chat_template is not None
    rendered = ChatTemplate(model.chat_template).render(messages)
    # llama.cpp's templates know nothing of a model's default system message.
    assert rendered == native_render(model.chat_template, with_system(name, messages))
    formatter = Jinja2ChatFormatter(model.chat_template, eos_token="", bos_token="")
    asked: Any = [{"role": m.role, "content": m.content} for m in messages]
    assert rendered == formatter(messages=asked).prompt


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_turns_begin_and_end_with_the_right_tokens(
    vocabularies: dict[str, Model], name: str, messages: list[Message]
) -> None:
    """Token by token: start, role, content, end, line break; then the assistant is to speak."""
    model = vocabularies[name]
    vocab = model.vocab
    (start,) = vocab.tokenize(START.encode(), parse_special=True)
    (end,) = vocab.tokenize(END.encode(), parse_special=True)
    tokens = ModelBridge(model).encode_chat(messages)
    expected: list[int] = []
    for message in with_system(name, messages):
        body = vocab.tokenize(f"{message.role}\n{message.content}".encode())
        expected += [start, *body, end, *vocab.tokenize(b"\n")]
    expected += [start, *vocab.tokenize(b"assistant\n")]
    assert tokens == expected
    assert vocab.is_control(start)
    assert vocab.is_control(end)
    assert vocab.is_end(end)
    assert not vocab.is_end(start)
    assert b"".join(vocab.piece(token, special=True) for token in tokens).decode() == (
        native_render(model.chat_template or "", with_system(name, messages))
    )


@pytest.mark.parametrize(
    ("name", "start", "end"), [(DEFAULT_TARGET, 151644, 151645), (DEFAULT_DRAFTER, 1, 2)]
)
def test_the_special_tokens_are_those_that_the_models_were_trained_with(
    vocabularies: dict[str, Model], name: str, start: int, end: int
) -> None:
    vocab = vocabularies[name].vocab
    assert vocab.tokenize(f"{START}{END}".encode(), parse_special=True) == [start, end]
    assert vocab.eos == end
    assert vocab.piece(start) == vocab.piece(end) == b""
    assert vocab.piece(start, special=True).decode() == START
    assert vocab.piece(end, special=True).decode() == END
    assert end in vocab.end_tokens


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_a_text_are_text_unless_they_are_asked_for(
    vocabularies: dict[str, Model], name: str
) -> None:
    vocab = vocabularies[name].vocab
    text = f"What does {END} mean?".encode()
    plain = vocab.tokenize(text)
    assert not any(map(vocab.is_control, plain))
    assert vocab.detokenize(plain) == text
    assert any(map(vocab.is_control, vocab.tokenize(text, parse_special=True)))


@pytest.mark.parametrize("name", NAMES)
def test_plain_prompts_get_no_tokens_that_the_models_do_not_want(
    vocabularies: dict[str, Model], name: str
) -> None:
    model = vocabularies[name]
    text = "Once upon a time"
    tokens = ModelBridge(model).encode(text)
    assert tokens == model.vocab.tokenize(text.encode())
    assert model.vocab.detokenize(tokens).decode() == text


SNIPPETS = (
    "Die Straße über den Fluß führt nach Köln; „größer“ geht’s kaum.",
    "河水流过老磨坊，孩子们沿着河边跑。",
    "🙂👍🏽👨‍👩‍👧‍👦🇩🇪 ❤️ \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "def f(x: int) -> str:\n\treturn f'{x!r:>10}'  # noqa\n",
    '{"a": [1, 2.5e-3, null], "b": "\\u00e9\\n"}',
    "    indented\r\n\r\n\t\ttabs  \n\n\n   ",
    "1234567890 3.14159 0xDEADBEEF 1_000_000",
    "e\u0301 \u00e9 \ufeff\u200b\u200d\u2028 \x00\x7f",
    "مرحبا بالعالم — שלום — नमस्ते — สวัสดี",
)
TEXTS = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=20), max_size=5).map("".join)


def missing_bytes(vocab: Vocabulary) -> frozenset[int]:
    """Bytes that have no token of their own: llama.cpp leaves them out of a text."""
    pieces = {vocab.piece(token) for token in range(vocab.num_tokens)}
    return frozenset(byte for byte in range(256) if bytes([byte]) not in pieces)


def check_round_trip(vocab: Vocabulary, text: str, missing: frozenset[int] = frozenset()) -> None:
    data = text.encode()
    tokens = vocab.tokenize(data)
    assert vocab.detokenize(tokens) == bytes(byte for byte in data if byte not in missing)
    assert not any(map(vocab.is_control, tokens))


@pytest.fixture(scope="module")
def missing(vocabularies: dict[str, Model]) -> dict[str, frozenset[int]]:
    return {name: missing_bytes(model.vocab) for name, model in vocabularies.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", SNIPPETS)
def test_texts_of_many_kinds_come_back(
    vocabularies: dict[str, Model], name: str, text: str
) -> None:
    check_round_trip(vocabularies[name].vocab, text)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150)
@given(text=TEXTS)
def test_any_text_comes_back(
    vocabularies: dict[str, Model], missing: dict[str, frozenset[int]], name: str, text: str
) -> None:
    """Whole, but for bytes that the vocabulary cannot write."""
    check_round_trip(vocabularies[name].vocab, text, missing[name])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100)
@given(data=st.data())
def test_tokens_in_any_order_have_the_bytes_of_each(
    vocabularies: dict[str, Model], name: str, data: st.DataObject
) -> None:
    """Answers are read token by token: the bytes of a text are those of its tokens, joined."""
    vocab = vocabularies[name].vocab
    tokens = data.draw(st.lists(st.integers(0, vocab.num_tokens - 1), max_size=12))
    pieces = [vocab.piece(token) for token in tokens]
    assert vocab.detokenize(tokens) == b"".join(pieces)
    for token, piece in zip(tokens, pieces, strict=True):
        shown = vocab.piece(token, special=True)
        assert piece in (b"", shown)
        if vocab.is_control(token):
            assert piece == b"" != shown


def test_the_target_can_write_any_byte(missing: dict[str, frozenset[int]]) -> None:
    """Byte-level BPE with all 256 bytes: whatever a user pastes reaches the model."""
    assert missing[DEFAULT_TARGET] == frozenset()


def test_what_the_drafter_cannot_write_is_no_ordinary_text(
    missing: dict[str, frozenset[int]],
) -> None:
    """A few control characters, and the first bytes of planes that Unicode has not assigned."""
    rare = {*range(0x20), 0x7F, 0xF1, 0xF2}
    never_in_utf8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert missing[DEFAULT_DRAFTER] <= rare | never_in_utf8
    assert missing[DEFAULT_DRAFTER].isdisjoint(b"\t\n\r")
