"""`edgespec chat --list`, `--search`, `--export`, `--import`, `--continue`: no model is loaded."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from command_support import refusal, run_command

from edgespec.cache.chats.store import ChatStore
from edgespec.cli.chats import chat_id
from edgespec.cli.kept_answer import KeptAnswer
from edgespec.errors import StorageError, UsageError
from edgespec.paths import user_paths
from edgespec.runtime.history import open_history
from edgespec.types import (
    Completion,
    CompletionRequest,
    FinishReason,
    Message,
    SpeculationStats,
    Timings,
    figures_of,
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "edgespec.db"


@pytest.fixture
def chats(path: Path) -> list[str]:
    """Two chats, the first one pinned and spoken in last."""
    with open_history(path, print) as store:
        begun = [store.begin(None, None, question) for question in ("About rain", "Bread, please")]
        for each, answer in zip(begun, ("It is wet.", "Bake it."), strict=True):
            store.finish(each.answer, answer, "done", "qwen")
        store.another(begun[0].question)
        store.pin(begun[0].chat, True)
    return [each.chat for each in begun]


def test_a_list_shows_the_beginning_of_each_id(chats: list[str]) -> None:
    told = run_command("chat", "--list").stdout.splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(rf"{chats[0][:8]}\* {stamp}     3  About rain", told[0])
    assert re.fullmatch(rf"{chats[1][:8]}  {stamp}     2  Bread, please", told[1])
    listed = json.loads(run_command("chat", "--list", "--json").stdout)
    assert [(head["id"], head["is_pinned"]) for head in listed] == [
        (chats[0], True), (chats[1], False),
    ]  # fmt: skip


def test_without_chats_a_line_says_so(path: Path) -> None:
    assert run_command("chat", "--list").stderr == "there is no chat yet\n"
    assert run_command("chat", "--search", "x").stderr == "nothing found\n"
    assert "there is no chat yet" in refusal(UsageError, "chat", "--export", "last")
    assert "there is no chat yet" in refusal(UsageError, "chat", "--continue", "last")


def test_search_shows_hits_with_their_chats(chats: list[str]) -> None:
    told = run_command("chat", "--search", "bread ple").stdout
    assert told.startswith(f"{chats[1]}  20") and told.endswith("user: [Bread], [please]\n")
    (hit,) = json.loads(run_command("chat", "--search", "wet", "--json").stdout)
    assert (hit["conversation"], hit["snippet"]) == (chats[0], "It is [wet].")


def test_what_is_exported_is_imported_elsewhere(
    chats: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run_command("chat", "--export", chats[1][:6]).stdout
    assert shown.startswith("# Bread, please\n") and "Bake it." in shown
    assert run_command("chat", "--export", "last").stdout.startswith("# About rain\n")
    file = tmp_path / "rain.json"
    told = run_command("chat", "--export", chats[0], "--format", "json", "-o", file)
    assert (told.stdout, told.stderr) == ("", f"{file}: About rain, 3 messages\n")
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "other"))
    assert run_command("chat", "--import", file).stderr == (
        "rain.json: 1 chat added or continued, 0 known already\n"
    )
    assert "0 chats added or continued, 1 known" in run_command("chat", "--import", file).stderr
    with open_history(user_paths().database, print) as store:
        chat = store.load(chats[0])
    assert chat is not None and [each.parent for each in chat.messages] == [None, 1, 1]


def test_nonsense_is_told_in_one_line(chats: list[str], tmp_path: Path) -> None:
    def refused(*arguments: str | Path) -> str:
        return refusal(UsageError, "chat", *arguments)

    assert "exclude each other" in refused("--list", "--search", "x")
    assert "exclude each other" in refused("--continue", "last", "--export", "last")
    assert "no chat that begins with 'nobody'" in refused("--export", "nobody")
    assert "no chat that begins with ''" in refused("--continue", "")
    assert "cannot read" in refused("--import", tmp_path / "gone.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "broken.json cannot be imported" in refused("--import", broken)
    with pytest.raises(StorageError, match="cannot write"):
        run_command("chat", "--export", "last", "-o", tmp_path / "gone" / "x.md")


def test_an_id_may_be_cut_short_if_it_is_the_only_one(path: Path, chats: list[str]) -> None:
    assert chat_id("last") == chats[0] and chat_id(chats[1][:7]) == chats[1]
    with sqlite3.connect(path) as connection:
        for name in ("same1", "same2", "same"):
            connection.execute(
                "INSERT INTO conversations (id, title, created) VALUES (?, '', 0.0)", (name,)
            )
    connection.close()
    assert chat_id("same") == "same"
    with pytest.raises(UsageError, match="several chats begin with 'sam'"):
        chat_id("sam")


# -- what `edgespec run` keeps ----------------------------------------------------------------


def completion(reason: FinishReason) -> Completion:
    timings = Timings(1.0, 2.0, 3.0, 4, 5, 6)
    return Completion("It is wet.", (1, 2), reason, timings, SpeculationStats(7, 8))


def kept(path: Path) -> ChatStore:
    return open_history(path, print)


@pytest.mark.parametrize(
    ("ended", "state", "said"),
    [
        (completion("stop"), "done", "It is wet."),
        (completion("length"), "cut", "It is wet."),
        (None, "cut", ""),
    ],
)
def test_a_run_is_kept_as_a_chat_of_its_own_origin(
    path: Path, ended: Completion | None, state: str, said: str
) -> None:
    request = CompletionRequest((Message("system", "Be brief."), Message("user", "Rain?")))
    with KeptAnswer(request, keeps=True) as answer:
        answer.finish(ended, "qwen")
    with kept(path) as store:
        (head,) = store.recent()
        chat = store.load(head.id)
        assert store.questions() == [], "these are of chats"
    assert answer.request.conversation == head.id and chat is not None
    assert (head.title, head.origin, chat.settings.system) == ("Rain?", "run", "Be brief.")
    assert (chat.messages[1].content, chat.messages[1].state) == (said, state)
    assert chat.messages[1].figures == (figures_of(ended, request) if ended else {})


def test_the_figures_that_are_kept_have_the_names_of_the_metrics() -> None:
    figures = figures_of(completion("stop"), CompletionRequest("Rain", speculate=False))
    metrics = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    assert [name for name in figures if name not in metrics] == []
    assert figures["tokens_per_second"] == 2500.0 and figures["plain"] == 1.0


def test_nothing_is_kept_of_a_plain_prompt_or_where_nothing_is_to_be(path: Path) -> None:
    request = CompletionRequest((Message("user", "Rain?"),))
    for asked, keeps in ((request, False), (CompletionRequest("Rain"), True)):
        with KeptAnswer(asked, keeps) as answer:
            answer.finish(completion("stop"), "qwen")
        assert answer.request == asked and not path.exists()
