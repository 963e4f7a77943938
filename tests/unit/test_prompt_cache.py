"""Conversations that a slot holds no more: kept on disk, found by what a prompt shares with them.

The pseudo-model says what its cells make it say, so a text that was restored wrongly would show.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeTarget, collect, joined, make_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import file_size_limit

from edgespec.engine.decoding import Limits
from edgespec.engine.engine import Engine
from edgespec.errors import Cancelled, StorageError
from edgespec.passes import Stretch
from edgespec.paths import Paths
from edgespec.pauses import NO_PAUSE
from edgespec.runtime import prompt_cache
from edgespec.runtime.prompt_cache import PromptCache
from edgespec.runtime.prompt_files import delete_prompts, make_room

KEY = "model|build|bf16"
TEXT = tuple(range(5)) * 40
STRETCHES = (Stretch(150, b"first" * 100), Stretch(50, b"second"))
Lines = list[str]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "cache")


def cache(
    paths: Paths,
    key: str = KEY,
    report: Callable[[str], None] = pytest.fail,
    *,
    learns: bool = True,
) -> PromptCache:
    return PromptCache(paths, key, report, learns=learns)


def write_all(prompts: PromptCache) -> None:
    while prompts.run(NO_PAUSE):
        pass


def kept(paths: Paths, *conversations: str) -> PromptCache:
    """A cache that holds TEXT of each conversation on disk."""
    prompts = cache(paths)
    for conversation in conversations:
        prompts.keep(conversation, TEXT, STRETCHES)
    write_all(prompts)
    return prompts


def files(paths: Paths) -> list[Path]:
    return sorted(paths.prompts.glob("*"))


@pytest.mark.parametrize("is_written", [False, True])
def test_the_longest_beginning_is_found_before_and_after_it_is_written(
    paths: Paths, is_written: bool
) -> None:
    prompts = cache(paths)
    prompts.keep("short", TEXT[:140], (Stretch(140, b"short"),))
    prompts.keep("long", TEXT, STRETCHES)
    if is_written:
        write_all(prompts)
        prompts = cache(paths)
    saved = prompts.find((*TEXT, 3), 0)
    assert saved is not None
    assert (saved.num_shared, saved.stretches) == (len(TEXT), STRETCHES)
    saved = prompts.find((*TEXT[:145], 9, 9), 0)
    assert saved is not None and saved.num_shared == 145
    assert saved.stretches[0] == STRETCHES[0]
    assert prompts.find(TEXT, len(TEXT) - prompt_cache.LEAST_TOKENS + 1) is None
    assert prompts.find((4, *TEXT), 0) is None


def test_only_stretches_that_are_shared_are_read(paths: Paths) -> None:
    saved = kept(paths, "a").find(TEXT[:150], 0)
    assert saved is not None and saved.stretches == STRETCHES[:1]


def test_another_model_or_build_finds_nothing_and_deletes_nothing(paths: Paths) -> None:
    kept(paths, "a")
    other = cache(paths, "model|build|f16")
    assert other.find(TEXT, 0) is None
    assert other.lacks("a", TEXT)
    assert cache(paths).find(TEXT, 0) is not None


def test_files_are_their_owner_s_and_tell_no_names(paths: Paths) -> None:
    kept(paths, "a secret")
    [path] = files(paths)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert b"secret" not in path.read_bytes() and "secret" not in path.name


def test_a_conversation_has_one_file_and_is_written_again_only_if_it_grew(paths: Paths) -> None:
    prompts = kept(paths, "a", "a")
    assert len(files(paths)) == 1
    assert not prompts.lacks("a", TEXT) and not prompts.lacks("a", TEXT[:180])
    assert prompts.lacks("a", (*TEXT, 1)) and prompts.lacks("b", TEXT)
    assert not prompts.lacks("b", TEXT[: prompt_cache.LEAST_TOKENS - 1])
    assert not cache(paths, learns=False).lacks("b", TEXT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int, is_cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    paths = Paths(folder, folder / "cache")
    kept(paths, "a")
    [path] = files(paths)
    data = bytearray(path.read_bytes())
    place %= len(data)
    if is_cut:
        del data[place:]
    else:
        data[place] ^= flip
    path.write_bytes(data)
    assert cache(paths).find(TEXT, 0) is None
    assert files(paths) == [], "it is of no use to anybody"


def test_a_foreign_file_of_the_name_is_deleted(paths: Paths) -> None:
    kept(paths, "a")
    [path] = files(paths)
    for content in (b"", b"GGUF" * 10, b"edgespec-prompt 1\n" + b"0" * 8 + b" " + b"[" * 99999):
        path.write_bytes(content)
        assert cache(paths).find(TEXT, 0) is None
        assert files(paths) == []


def test_deleting_a_conversation_leaves_nothing_of_it(paths: Paths) -> None:
    prompts = kept(paths, "a", "b")
    prompts.keep("a", (*TEXT, 1), STRETCHES)
    prompts.forget("a")
    write_all(prompts)
    assert len(files(paths)) == 1
    assert prompts.lacks("a", TEXT) and not prompts.lacks("b", TEXT)
    delete_prompts(paths.prompts)
    assert files(paths) == []


def test_a_conversation_that_is_deleted_while_it_is_written_does_not_come_back(
    paths: Paths,
) -> None:
    prompts = cache(paths)
    prompts.keep("a", TEXT, STRETCHES)

    class Deleting:
        is_done = False

        def __call__(self) -> None:
            if not self.is_done:
                self.is_done = True
                prompts.forget("a")

    prompts._write_next(Deleting())
    assert files(paths) == []


def test_writing_gives_way_to_an_answer_and_goes_on_later(paths: Paths) -> None:
    prompts = cache(paths)
    prompts.keep("a", TEXT, STRETCHES)

    def pause() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        prompts._write_next(pause)
    assert files(paths) == []
    write_all(prompts)
    assert len(files(paths)) == 1


def test_a_full_disk_is_told_once_and_ends_the_keeping(paths: Paths) -> None:
    lines: Lines = []
    prompts = cache(paths, report=lines.append)
    prompts.keep("a", TEXT, STRETCHES)
    with file_size_limit(100), pytest.raises(StorageError, match=r"cannot write to .*; free space"):
        prompts.run(NO_PAUSE)
    assert files(paths) == []
    assert not prompts.lacks("b", TEXT)
    prompts.close(lambda: None)
    assert lines == []
    prompts = cache(paths, report=lines.append)
    with file_size_limit(100):
        prompts.close(lambda: prompts.keep("a", TEXT, STRETCHES))
    assert len(lines) == 1 and "\n" not in lines[0]


def test_the_end_writes_what_slots_hold_within_its_time(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = cache(paths)
    prompts.close(lambda: prompts.keep("a", TEXT, STRETCHES))
    assert len(files(paths)) == 1
    monkeypatch.setattr(prompt_cache, "_CLOSING_S", -1.0)
    prompts.close(lambda: prompts.keep("b", TEXT, STRETCHES))
    assert len(files(paths)) == 1


def test_the_oldest_make_room(paths: Paths) -> None:
    paths.ensure(paths.prompts)
    now = time.time()
    for name, size, age_s in (("new", 40, 1), ("old", 40, 50), ("older", 40, 60), ("aged", 1, 999)):
        path = paths.prompts / f"{name}.kv"
        path.write_bytes(b"." * size)
        os.utime(path, (now - age_s, now - age_s))
    abandoned = paths.prompts / ".x.kv.abc.part"
    abandoned.write_bytes(b"")
    os.utime(abandoned, (0, 0))
    make_room(paths.prompts, num_bytes=20, most_bytes=100, most_age_s=100)
    assert [path.stem for path in files(paths)] == ["new", "old"]


def test_copies_in_memory_are_bounded(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "_MOST_WAITING", 600)
    prompts = cache(paths)
    prompts.keep("a", TEXT, STRETCHES)
    prompts.keep("b", TEXT[1:], STRETCHES)
    assert prompts.lacks("a", TEXT) and not prompts.lacks("b", TEXT[1:])


def test_what_nobody_named_is_told_by_its_text(paths: Paths) -> None:
    """A text that goes on takes the place of its beginning, another one does not."""
    prompts = cache(paths)
    other = (5, *TEXT)
    for text in (TEXT, other):
        prompts.keep("", text, (Stretch(len(text), b"cells"),))
    write_all(prompts)
    assert len(files(paths)) == 2
    assert not prompts.lacks("", TEXT) and not prompts.lacks("", TEXT[:180])
    assert prompts.lacks("", (*TEXT, 1)) and prompts.lacks("a", TEXT)
    longer = (*TEXT, 1, 2)
    prompts.keep("", longer, (Stretch(len(longer), b"more cells"),))
    write_all(prompts)
    assert len(files(paths)) == 2
    saved = prompts.find(longer, 0)
    assert saved is not None and saved.num_shared == len(longer)
    assert prompts.find(other, 0) is not None


def test_the_deletion_of_any_conversation_deletes_what_nobody_named(paths: Paths) -> None:
    """It may be of that one."""
    prompts = kept(paths, "a", "", "b")
    prompts.keep("", TEXT[::-1], (Stretch(len(TEXT), b"waits"),))
    prompts.forget("a")
    write_all(prompts)
    assert len(files(paths)) == 1
    assert not cache(paths).lacks("b", TEXT)


@pytest.mark.parametrize("is_written", [False, True])
def test_what_is_of_one_owner_is_found_for_this_one_alone(paths: Paths, is_written: bool) -> None:
    prompts = cache(paths)
    prompts.keep("", TEXT, STRETCHES, "a")
    if is_written:
        write_all(prompts)
        prompts = cache(paths)
    assert prompts.find(TEXT, 0, "a") is not None
    assert not prompts.lacks("", TEXT, "a")
    for owner in ("", "b"):
        assert prompts.find(TEXT, 0, owner) is None
        assert prompts.lacks("", TEXT, owner)


# -- slots ------------------------------------------------------------------------------------


def engine_with(prompts: PromptCache | None, num_slots: int = 1) -> tuple[FakeTarget, Engine]:
    target = FakeTarget(num_context=600, num_slots=num_slots)
    return target, make_engine(target, prompts=prompts)


def say(engine: Engine, prompt: tuple[int, ...], conversation: str | None) -> list[int]:
    return joined(collect(engine, prompt, limits=Limits(8, conversation=conversation)))


@pytest.mark.parametrize("num_slots", [1, 2])
def test_a_conversation_that_comes_back_is_read_no_more(paths: Paths, num_slots: int) -> None:
    prompts = cache(paths)
    target, engine = engine_with(prompts, num_slots)
    others = [tuple((token + shift) % 6 for token in TEXT) for shift in (1, 2, 3)]
    first = say(engine, TEXT, "a")
    for index, other in enumerate(others):
        say(engine, other, f"other {index}")
    write_all(prompts)
    assert len(files(paths)) == len(others) + 1 - num_slots
    read: list[int] = []
    target.on_pass = lambda tokens: read.append(len(tokens))
    again = (*TEXT, *first, 5)
    _, undisturbed = engine_with(None)
    say(undisturbed, TEXT, "a")
    assert say(engine, again, "a") == say(undisturbed, again, "a")
    assert read[0] == 2, "the last token that was said, and the new one"


def test_the_end_keeps_what_idle_slots_hold(paths: Paths) -> None:
    prompts = cache(paths)
    _, engine = engine_with(prompts)
    first = say(engine, TEXT, "a")
    prompts.close(engine.keep_prompts)
    saved = cache(paths).find((*TEXT, *first), 0)
    assert saved is not None and saved.num_shared == len(TEXT) + len(first) - 1


@pytest.mark.parametrize("what", ["not recorded", "deleted", "its own", "forgotten"])
def test_what_is_not_to_be_kept_is_not(paths: Paths, what: str) -> None:
    prompts = cache(paths)
    _, engine = engine_with(prompts)
    say(engine, TEXT, None if what == "not recorded" else "a")
    if what == "deleted":
        engine.disown("a")
    if what == "forgotten":
        engine.forget()
    say(engine, (5, 5, 5), "a" if what == "its own" else "b")
    prompts.close(engine.keep_prompts)
    assert files(paths) == []


def test_a_state_that_does_not_fit_is_read_again(paths: Paths) -> None:
    prompts = cache(paths)
    prompts.keep("a", TEXT * 4, (Stretch(800, bytes(TEXT * 4)),))
    target, engine = engine_with(prompts)
    read: list[int] = []
    target.on_pass = lambda tokens: read.append(len(tokens))
    say(engine, (*TEXT, 5), "a")
    assert read[0] == target.num_batch


def test_more_conversations_than_slots_are_each_read_once(paths: Paths) -> None:
    """Nobody named them: clients of the server do not."""
    prompts = cache(paths)
    target, engine = engine_with(prompts, num_slots=2)
    texts = [tuple((token + shift) % 6 for token in TEXT) for shift in range(5)]
    for turn in range(3):
        for place, text in enumerate(texts):
            read: list[int] = []
            target.on_pass = lambda tokens, read=read: read.append(len(tokens))  # type: ignore[misc]
            said = say(engine, text, "")
            assert (read[0] == target.num_batch) is (turn == 0), "only the first time"
            texts[place] = (*text, *said, place, 4)
            write_all(prompts)
    assert len(files(paths)) <= len(texts)
