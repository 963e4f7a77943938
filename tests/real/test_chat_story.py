"""The chat as people use it: in tmux, with the default models, from the first start to the second.

After each step the pane is held against a golden in `goldens/`, in which what the models, the
machine and the clock say is masked; `make goldens` writes them anew. At the end the database says
what was kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from goldens import Golden, golden_in
from masking import masked
from tmux_support import NEEDS_TMUX, Tmux, tmux_window

from edgespec.chats import Chat, ChatMessage, path_to, versions_of
from edgespec.models.registry import DEFAULT_DRAFTER
from edgespec.paths import Paths
from edgespec.runtime.history import open_history
from edgespec.types import TARGET

pytestmark = NEEDS_TMUX

FOLDER = Path(__file__).parent / "goldens"
SIZE = (150, 60)
CHAT = [
    *(sys.executable, "-m", "edgespec", "chat"),
    *("--temperature", "0", "--max-tokens", "12"),
    *("--drafter", DEFAULT_DRAFTER, "--no-trim"),
]
RIVERS = "Write a paragraph about each of three rivers of France."
MOUNTAINS = "Write a paragraph about each of two mountains besides."
LAKES = "Write a paragraph about each of two lakes besides."
CLASS = "Write a Python class for a bank account with ten methods, and explain each."
NOTES = "notes.md"
LIMIT = "the limit is 12 tokens"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, target_path: Path, drafter_path: Path) -> Paths:
    """A new home with the default pair in it, and nothing else."""
    folder = tmp_path_factory.mktemp("home")
    paths = Paths(data=folder, cache=folder / "cache")
    paths.ensure(paths.models)
    for model in (target_path, drafter_path):
        for file in (model, model.with_name(f"{model.name}.json")):
            if file.exists():
                (paths.models / file.name).symlink_to(file)
    return paths


@pytest.fixture
def tmux(home: Paths, tmp_path: Path) -> Iterator[Tmux]:
    """The chat, started in an empty folder."""
    env = {"EDGESPEC_HOME": str(home.data), "TERM": "xterm-256color"}
    with tmux_window(tmp_path, CHAT, SIZE, **env) as opened:
        yield opened


class Story:
    """Steps of the user, and what is seen after each."""

    def __init__(self, tmux: Tmux, golden: Golden) -> None:
        self.tmux = tmux
        self._golden = golden
        self._number = 0

    def see(self, name: str, *texts: str, panel: bool = False) -> None:
        """Hold the pane against the next golden once all of `texts` are shown."""
        self._number += 1
        pane = self.tmux.until_shown(*texts)
        self._golden(f"{self._number:02}-{name}", masked(pane, panel))

    def press(self, *keys: str) -> None:
        self.tmux.press(*keys)

    def send(self, text: str) -> None:
        self.tmux.type(text)
        self.tmux.press("Enter")

    def until_ready(self, num_answers: int, *texts: str) -> None:
        """Wait until so many answers are shown, none is under way, and all of `texts` are there."""

        def is_ready(pane: str) -> bool:
            labels = sum("tok/s" in row for row in pane.splitlines() if "●" not in row)
            ready = "● ready" in pane and labels == num_answers
            return ready and all(text in pane for text in texts)

        self.tmux.until(is_ready)

    def ask(self, text: str, num_answers: int) -> None:
        self.send(text)
        self.until_ready(num_answers)


def test_the_story(tmux: Tmux, home: Paths, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    (tmp_path / NOTES).write_text("Rivers wash salt out of rocks and carry it to the sea.\n")
    story = Story(tmux, golden_in(FOLDER, pytestconfig))
    chat_three_turns(story)
    stop_and_continue(story)
    answer_again(story)
    branch(story)
    search(story)
    attach(story)
    switch_the_drafter(story)
    look_at_sources_and_figures(story)
    export(story, tmp_path)
    quit_and_resume(story)
    check_what_was_kept(home)


def chat_three_turns(story: Story) -> None:
    story.see("start", "● ready", "/ commands")
    story.ask(RIVERS, 1)
    story.see("first-answer", LIMIT)
    story.ask(MOUNTAINS, 2)
    story.send("/set max_tokens 400")
    story.send(CLASS)


def stop_and_continue(story: Story) -> None:
    story.tmux.until(
        lambda pane: "● answering" in pane and len(pane.rpartition("▌")[2].split()) > 30
    )
    story.press("Escape")
    story.until_ready(3)
    story.see("stopped")
    story.send("/set max_tokens 12")
    story.tmux.until_shown("this holds from the next answer on")
    story.press("F5")
    story.until_ready(3, LIMIT)
    story.see("continued")


def answer_again(story: Story) -> None:
    story.press("C-r")
    story.until_ready(3, "2/2")
    story.see("answered-again")
    story.press("M-Left")
    story.see("version-before", "‹ 1/2 ›")
    story.press("M-Right")
    story.see("version-after", "‹ 2/2 ›")


def branch(story: Story) -> None:
    story.press("M-Up", "M-Up")
    story.see("editing", "Esc leaves the old one")
    story.press("C-u")
    story.ask(LAKES, 2)
    story.see("branch", "‹ 2/2 ›")


def search(story: Story) -> None:
    story.press("C-l")
    story.see("library", "Conversations", "messages")
    story.tmux.type("paragraph mountains")
    story.see("hits", "question · ")
    story.press("Enter")
    story.until_ready(3, MOUNTAINS)
    story.see("jumped-to-the-hit")


def attach(story: Story) -> None:
    story.tmux.type("Explain this in three sentences: @not")
    story.see("completion", "  notes.md")
    story.press("Tab")
    story.see("attached", "tokens]")
    story.press("Enter")
    story.until_ready(4)
    story.see("explained")


def switch_the_drafter(story: Story) -> None:
    story.send("/drafter context")
    story.tmux.until_shown("answers, drafter context", "● ready")
    story.send("/plain")
    story.until_ready(4, "the same bytes")
    story.see("without-speculation")


def look_at_sources_and_figures(story: Story) -> None:
    story.press("F3")
    story.see("sources", "■ the model")
    story.press("F3", "F2")
    story.see("panel", "● ready", "block efficiency", panel=True)
    story.press("F2")


def export(story: Story, folder: Path) -> None:
    story.send("/export talk.md")
    story.send("/export json talk.json")
    story.see("exported", "written to talk.md", "written to talk.json")
    assert MOUNTAINS in (folder / "talk.md").read_text()
    assert json.loads((folder / "talk.json").read_text())["edgespec"] == "chat"


def quit_and_resume(story: Story) -> None:
    story.press("C-q")
    assert story.tmux.until_ended() == 0
    story.tmux.open_again([*CHAT, "--continue", "last"])
    story.until_ready(4)
    story.see("resumed")
    story.press("C-q")
    assert story.tmux.until_ended() == 0


def check_what_was_kept(home: Paths) -> None:
    with open_history(home.database, print) as history:
        (head,) = history.recent()
        chat = history.load(head.id)
    assert chat is not None
    path = path_to(chat.messages, chat.tip)
    assert [each.content for each in path[:5:2]] == [RIVERS, MOUNTAINS, CLASS]
    assert NOTES in path[6].content
    assert len(path) == 8 and chat.tip == path[7].id
    assert {each.state for each in chat.messages if each.role == "assistant"} == {"cut"}
    check_branches(chat, path)
    drafted, plain = versions_of(chat.messages, path[7])
    assert plain.figures["plain"] and not drafted.figures.get("plain")
    assert plain.content == drafted.content
    assert sum(length for length, _ in plain.sources) == len(plain.content)
    assert {source for _, source in plain.sources} == {TARGET}


def check_branches(chat: Chat, path: list[ChatMessage]) -> None:
    """The edited question has its own answer; what followed the first one is there."""
    first, edited = versions_of(chat.messages, path[2])
    assert (first.id, edited.content) == (path[2].id, LAKES)
    assert [each.role for each in chat.messages if each.parent == edited.id] == ["assistant"]
    continued, again = versions_of(chat.messages, path[5])
    assert again.id == path[5].id
    assert continued.figures["tokens"] == again.figures["tokens"] == 12
    assert len(continued.content) > len(again.content)
