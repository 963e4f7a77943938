"""Chats to files and back; other programs' exports; what is damaged adds nothing."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_support import count

from edgespec.cache.chats import chat_files
from edgespec.cache.chats.as_json import chat_of, chat_value
from edgespec.cache.chats.as_markdown import markdown_of
from edgespec.cache.chats.chat_files import chat_file, import_chats, read_chats
from edgespec.cache.chats.store import ChatStore
from edgespec.cache.database import open_in_memory
from edgespec.chats import Chat, ChatHead, ChatMessage, ChatSettings, path_to
from edgespec.errors import UsageError

TEXT = st.text().map(lambda text: text.encode(errors="replace").decode())
NAME = st.sampled_from(["target", "context", "model"])


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with open_in_memory() as database:
        yield database.connection


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """Any chat that a store can hold."""
    messages: list[ChatMessage] = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        text = draw(TEXT)
        messages.append(
            ChatMessage(
                id=number,
                parent=draw(st.sampled_from([None, *(each.id for each in messages)])),
                role=draw(st.sampled_from(["user", "assistant", "system"])),
                content=text,
                created=draw(st.floats(0, 1e10)),
                state=draw(st.sampled_from(["done", "cut"])),
                model=draw(st.none() | TEXT),
                sources=((len(text), draw(NAME)),) if text else (),
                figures=draw(st.dictionaries(NAME, st.floats(-1e9, 1e9) | st.integers(0, 9))),
            )
        )
    most = st.none() | st.integers(0, 1 << 40)
    settings = ChatSettings(
        *(draw(st.none() | TEXT), draw(st.none() | TEXT)),
        temperature=draw(st.none() | st.floats(0, 9)),
        seed=draw(most),
        max_tokens=draw(most),
    )
    head = ChatHead(
        *(draw(st.uuids()).hex, draw(TEXT), draw(st.floats(0, 1e10)), draw(st.floats(0, 1e10))),
        len(messages),
        draw(st.booleans()),
        draw(st.sampled_from(["chat", "run", "import"])),
    )
    return Chat(head, settings, tuple(messages), draw(st.integers(1, len(messages))))


@given(chats())
def test_a_chat_comes_back_from_its_file_and_from_a_store(
    tmp_path_factory: pytest.TempPathFactory, chat: Chat
) -> None:
    file = tmp_path_factory.mktemp("chats") / "chat.json"
    file.write_text(chat_file(chat), encoding="utf-8")
    assert list(read_chats(file)) == [chat]
    with open_in_memory() as database:
        assert import_chats(database.connection, file).num_new == 1
        store = ChatStore(database.connection)
        found = store.load(chat.head.id)
        assert found == chat
        assert import_chats(database.connection, file).num_known == 1
        assert store.load(chat.head.id) == chat
    assert markdown_of(chat).startswith("# ")


def test_markdown_has_what_is_shown_with_settings_times_and_figures() -> None:
    messages = (
        ChatMessage(1, None, "user", "Why?", 86400.0 * 365),
        ChatMessage(2, 1, "assistant", "another version", 86400.0 * 365),
        ChatMessage(
            *(3, 1, "assistant", "Because.\n\n- so", 86400.0 * 365, "cut", "qwen"),
            figures={"tokens": 12, "decode_ms": 210.5},
        ),
    )
    head = ChatHead("c", "Why?", 86400.0 * 365, 86400.0 * 365, 3)
    text = markdown_of(Chat(head, ChatSettings(system="Be brief.", temperature=0.7), messages, 3))
    assert text.startswith("# Why?\n\n- begun: 19")
    assert "- temperature: 0.7\n" in text and "## System\n\nBe brief.\n" in text
    assert "## Assistant\n\nBecause.\n\n- so\n" in text and "another version" not in text
    assert text.endswith(", qwen, cut, tokens 12, decode ms 210.5*\n")
    far = ChatHead("c", "", 1e11, 1e300, 0)
    assert markdown_of(Chat(far, ChatSettings(), (), None)).startswith("# Chat\n")


# -- other programs ---------------------------------------------------------------------------


def node(
    number: str, parent: str | None, children: list[str], role: str = "", **message: object
) -> dict[str, object]:
    """A node as ChatGPT's export has it."""
    around = {"id": number, "parent": parent, "children": children}
    if not role:
        return {**around, "message": None}
    content = {"content_type": "text", "parts": [message.pop("text", "")]}
    author = {"role": role, "name": message.pop("name", None), "metadata": {}}
    whole = {"id": number, "author": author, "content": content, "recipient": "all"}
    return {**around, "message": {**whole, **message}}


def slug(model: str) -> dict[str, str]:
    return {"model_slug": model}


CHATGPT: dict[str, Any] = {
    "title": "Rain\nin Spain",
    "create_time": 1700000000.5,
    "update_time": 1700000900.0,
    "conversation_id": "0b5e",
    "current_node": "a1b",
    "mapping": {
        "root": node("root", None, ["sys"]),
        "sys": node("sys", "root", ["q1"], "system", text="", weight=0),
        "q1": node("q1", "sys", ["a1", "a1b"], "user", text="Does it rain?", create_time=1.7e9),
        "a1": node("a1", "q1", ["call"], "assistant", text="Let me look.", create_time=1.7e9 + 5),
        "call": node(
            *("call", "a1", ["tool"], "assistant"),
            recipient="python",
            content={"content_type": "code", "text": "rain()"},
        ),
        "tool": node(
            *("tool", "call", ["a2"], "tool"),
            name="python",
            content={"content_type": "execution_output", "text": "True"},
        ),
        "a2": node("a2", "tool", ["q2"], "assistant", text="It does.", metadata=slug("m")),
        "q2": node(
            *("q2", "a2", [], "user"),
            content={
                "content_type": "multimodal_text",
                "parts": [{"content_type": "image_asset_pointer"}, "And here?"],
            },
        ),
        "a1b": node("a1b", "q1", [], "assistant", text="Yes.", metadata=slug("n")),
    },
}  # fmt: skip

OPEN_WEBUI = {
    "id": "77",
    "title": "Bread",
    "created_at": 1700000000,
    "updated_at": 1700000100,
    "chat": {
        "title": "Bread",
        "history": {
            "currentId": "c",
            "messages": {
                "a": {
                    **{"id": "a", "parentId": None, "childrenIds": ["b", "c"], "role": "user"},
                    **{"content": "How to bake?", "timestamp": 1700000001},
                    "files": [{"type": "image", "url": "data:"}, {"type": "doc"}],
                },
                "b": {
                    **{"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant"},
                    **{"content": "Hot.", "timestamp": 1700000002000, "model": "llama3"},
                },
                "c": {
                    **{"id": "c", "parentId": "a", "childrenIds": [], "role": "assistant"},
                    **{"content": [{"type": "text", "text": "Slowly."}], "model": "qwen"},
                },
            },
        },
        "messages": [],
    },
}
IN_A_ROW = {
    "chat": {
        "title": "Old",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    }
}


def written(folder: Path, *items: object) -> Path:
    file = folder / "conversations.json"
    file.write_text(json.dumps(list(items)), encoding="utf-8")
    return file


def test_chatgpts_export_keeps_branches_times_and_models(tmp_path: Path) -> None:
    (chat,) = read_chats(written(tmp_path, CHATGPT))
    assert (chat.head.title, chat.head.origin, chat.settings.system) == (
        *("Rain in Spain", "import", None),
    )
    assert (chat.head.created, chat.head.updated) == (1700000000.5, 1700000900.0)
    shown = [(each.role, each.content, each.model) for each in path_to(chat.messages, chat.tip)]
    assert shown == [("user", "Does it rain?", None), ("assistant", "Yes.", "n")]
    (last,) = (each for each in chat.messages if each.content.endswith("And here?"))
    other = [(each.role, each.content) for each in path_to(chat.messages, last.id)]
    assert other == [
        ("user", "Does it rain?"),
        ("assistant", "Let me look.\n\n[call of python]\n\n[tool python]\n\nIt does."),
        ("user", "[image]\n\nAnd here?"),
    ]
    assert [each.created for each in path_to(chat.messages, last.id)] == [
        *(1.7e9, 1.7e9 + 5, 1700000000.5)
    ]


def test_open_webuis_export_keeps_branches_times_and_models(tmp_path: Path) -> None:
    chat, old = read_chats(written(tmp_path, OPEN_WEBUI, IN_A_ROW))
    assert [(each.content, each.parent, each.created, each.model) for each in chat.messages] == [
        ("How to bake?\n\n[image]\n\n[file]", None, 1700000001.0, None),
        ("Hot.", 1, 1700000002.0, "llama3"),
        ("Slowly.", 1, 1700000000.0, "qwen"),
    ]
    assert (chat.head.title, chat.tip, old.head.title, old.tip) == ("Bread", 3, "Old", 2)
    assert [(each.content, each.parent) for each in old.messages] == [("q", None), ("a", 1)]


def test_an_archive_is_read_and_a_second_time_nothing_is_added(
    tmp_path: Path, connection: sqlite3.Connection
) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("chat.html", "<html>")
        opened.writestr("conversations.json", json.dumps([CHATGPT, OPEN_WEBUI, IN_A_ROW]))
    assert import_chats(connection, archive) == chat_files.Imported(3, 0)
    num = count(connection, "messages")
    longer = json.loads(json.dumps(CHATGPT))
    longer["mapping"]["a1b"]["children"] = ["q3"]
    longer["mapping"]["q3"] = node("q3", "a1b", [], "user", text="Tomorrow, too?")
    longer["current_node"] = "q3"
    again = written(tmp_path, longer, OPEN_WEBUI, IN_A_ROW)
    assert import_chats(connection, again) == chat_files.Imported(1, 2)
    assert count(connection, "messages") == num + 1
    store = ChatStore(connection)
    (hit,) = store.search("tomorrow too")
    continued = store.load(hit.chat)
    assert continued is not None and continued.tip == hit.message
    assert [each.content for each in path_to(continued.messages, continued.tip)] == [
        *("Does it rain?", "Yes.", "Tomorrow, too?")
    ]


def test_what_is_long_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, *[CHATGPT] * 3, OPEN_WEBUI)
    whole = list(read_chats(file))
    for num_letters in (1, 7, 100):
        monkeypatch.setattr(chat_files, "_AT_ONCE", num_letters)
        assert list(read_chats(file)) == whole


# -- what is damaged --------------------------------------------------------------------------


def test_circles_and_lost_parents_lose_no_message(tmp_path: Path) -> None:
    nodes = {
        "a": node("a", "b", ["b"], "user", text="a"),
        "b": node("b", "a", ["a"], "assistant", text="b"),
        "c": node("c", "gone", [], "user", text="c"),
    }
    (chat,) = read_chats(written(tmp_path, {"mapping": nodes}))
    assert {each.content for each in chat.messages} == {"a", "b", "c"}
    assert (chat.head.title, chat.head.created) == ("c", 0.0)


OURS = json.loads(chat_file(Chat(ChatHead("c", "t", 1.0, 1.0, 0), ChatSettings(), (), None)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[", "Expecting value"),
        ("[]]", "something after its end"),
        ("{} {}", "no chat of EdgeSpec, ChatGPT or Open WebUI"),
        ("[1]", "chat 1: it is no chat"),
        ("nonsense", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"edgespec": "export", "version": 2}', "edgespec db import"),
        ('{"edgespec": "chat", "version": 2}', "newer EdgeSpec"),
        ('{"edgespec": "chat", "version": 1}', "messages is missing"),
        (json.dumps([OPEN_WEBUI, {"mapping": 3}]), "chat 2: its mapping is no object"),
        (json.dumps([OPEN_WEBUI])[:-1] + ",]", "a comma ends the list"),
        (json.dumps([OPEN_WEBUI])[:-1] + " {}]", "without a comma"),
        (json.dumps([OPEN_WEBUI])[:-20], "after chat|Expecting"),
        (json.dumps({**OURS, "messages": [{"role": "user"}]}), "message 1 has no text"),
        (json.dumps({**OURS, "messages": [["user", "t", -1]]}), "message 1: -1 is no time"),
        (json.dumps({**OURS, "messages": [["user", 7, 1]]}), "message 1: 7 is no text"),
        (json.dumps({**OURS, "messages": ["user"]}), "message 1: it is no object"),
        (json.dumps({**OURS, "messages": {}}), "its messages are no list"),
        (json.dumps({**OURS, "tip": 4}), "no message 4 to be the tip"),
        (
            json.dumps(
                {**OURS, "messages": [{"role": "u", "text": "", "created": 1, "parent": 0}]}
            ),
            "its parent 0 does not come before it",
        ),
        (
            json.dumps([{"mapping": {"a": node("a", None, [], "king", text="x")}}]),
            "message 'a' is of 'king'",
        ),
        ('{"chat": {"messages": 3}}', "its messages are no list"),
    ],
)
def test_what_is_no_chat_is_told_with_its_place_and_adds_nothing(
    tmp_path: Path, connection: sqlite3.Connection, text: str, words: str
) -> None:
    file = tmp_path / "some.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as error:
        import_chats(connection, file)
    assert str(error.value).startswith("some.json cannot be imported: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert count(connection, "conversations") == count(connection, "messages") == 0


def test_broken_text_and_archives_are_told(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("conversations.json", json.dumps([CHATGPT] * 50))
    whole = archive.read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as opened:
        opened.writestr("notes.txt", "")
    for content, words in (
        (b'["caf\xe9"]', "decode byte 0xe9"),
        (whole[:200], "archive is damaged"),
        (whole[:60] + bytes(100) + whole[160:], "archive is damaged"),
        ((tmp_path / "other.zip").read_bytes(), "holds no conversations.json"),
    ):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            list(read_chats(file))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("conversations.json", "[" + " " * 3_000_000 + "]")
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr(chat_files, "MOST_BYTES", 2 << 20)
    with pytest.raises(UsageError, match="larger than 2 MiB"):
        list(read_chats(bomb))
    monkeypatch.setattr(chat_files, "MOST_ITEM_LETTERS", 1 << 20)
    long = tmp_path / "long.json"
    long.write_text('["' + "x" * (3 << 19))
    with pytest.raises(UsageError, match="longer than 1 million letters"):
        list(read_chats(long))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["mapping", "message", "author", "role", "content", "parts", "parent",
                         "children", "chat", "history", "messages", "title", "create_time",
                         "files", "id", "currentId", "parentId", "timestamp", "edgespec"]),
        inner | st.sampled_from(["user", "assistant", "text", "a", "chat"]), max_size=5),
    max_leaves=30,
))  # fmt: skip
def test_nothing_that_is_json_is_an_unexpected_error(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    file = tmp_path_factory.mktemp("chats") / "some.json"
    file.write_text(json.dumps(value))
    try:
        for chat in read_chats(file):
            assert chat_of(chat_value(chat)).messages == chat.messages
    except UsageError:
        pass
