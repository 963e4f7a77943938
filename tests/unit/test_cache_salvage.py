"""A damaged database loses what was on the pages that were hit, and nothing behind them."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from salvage_support import NUM_CONVERSATIONS, Kept, filled, kept
from token_support import Recorded, count

from edgespec.cache.aside import mark_salvaged, set_aside, unsalvaged
from edgespec.cache.conversations import Conversations
from edgespec.cache.database import open_database
from edgespec.cache.facts import Facts
from edgespec.cache.forgetting import Forgetting
from edgespec.cache.mending import only_mender
from edgespec.cache.pairs import PREFIXES, table_of
from edgespec.cache.repair import repair
from edgespec.cache.salvage import salvage
from edgespec.cache.upkeep import problems
from edgespec.errors import BusyError
from edgespec.estimates.acceptance import Acceptance
from edgespec.estimates.counts import Calibration
from edgespec.vocab.ngrams import NgramCache

PAGE = 4096


def hit(path: Path, pages: Iterable[int]) -> None:
    """Overwrite whole pages."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\xa5" * PAGE)


def owners(path: Path) -> dict[int, str]:
    """The table or index of each page that belongs to one."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT pageno, name FROM dbstat"))


def recovered(path: Path) -> Kept:
    """What is there after the command that a user is told to run."""
    open_database(path).close()  # one that cannot be opened is set aside here
    repair(path)
    with open_database(path) as database:
        assert problems(database.connection) == []
    return kept(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "edgespec.db"
    filled(path)
    return path


def copied(original: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "edgespec.db"
    path.write_bytes(original.read_bytes())
    return path


SCHEMA = ("sqlite_schema", "_sqlite_migrations", "idx__sqlite_migrations_migration_set_name")


def lost_answers(before: Kept, after: Kept) -> set[object]:
    """Sequences of answers that are gone.

    Where a row is lost, one token of context cannot be told from none and is then the first of the
    sequence's own.
    """
    again = after.sequences | {(*row[:4], row[4][1:]) for row in after.sequences}
    return {row for row in before.sequences - again if row[1] == "model"}


COSTS: dict[str, str] = {
    "messages": "messages",
    "blocks": "sequences",
    "conversations": "small",  # titles: they are made anew
    "facts": "small",
    "calibrations": "small",
    "ngram_caches": "small",
}
"""What a page of a table may cost at most; a page of another, or of any index, costs nothing."""


def test_each_page_in_turn_costs_only_what_was_on_it(original: Path, tmp_path: Path) -> None:
    before = kept(original)
    names = owners(original)
    assert {"sequences", "blocks", "scopes", "vocabularies", "sqlite_schema"} <= set(names.values())
    index = [page for page, name in names.items() if name == "grams"]
    for page in sorted({*range(1, max(names) + 1)} - {*index[5:]}):
        path = copied(original, tmp_path / str(page))
        hit(path, [page])
        after = recovered(path)
        name = names.get(page, "nothing")
        for field in ("messages", "small", "sequences"):
            lost = getattr(before, field) - getattr(after, field)
            if (name, field) == ("sequences", "sequences"):  # imported text is imported again
                lost = lost_answers(before, after)
            assert not lost or COSTS.get(name) == field, (page, name, lost)
        assert after.messages <= before.messages
        assert len(before.messages - after.messages) < PAGE // 20
        if name != "sequences":
            assert before.num_tokens - after.num_tokens <= PAGE // 4


def test_a_flipped_byte_of_the_schema_costs_nothing(original: Path, tmp_path: Path) -> None:
    """Whatever it makes of the schema: not to be read, another table's, or without a column."""
    before = kept(original)
    pages = [page for page, name in owners(original).items() if name in SCHEMA] + [1, 1]
    stream = random.Random(9)
    noticed = 0
    for attempt in range(60):
        path = copied(original, tmp_path / str(attempt))
        content = bytearray(original.read_bytes())
        content[stream.choice(pages) * PAGE - 1 - stream.randrange(PAGE)] ^= 1 << stream.randrange(
            8
        )
        path.write_bytes(content)
        assert recovered(path) == before
        noticed += any(path.parent.glob("*.salvaged-*"))
    assert noticed > 5


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(b"model", b"mndel"), (b"\x04\x00\x09\x17", b"\x04\x00\x08\x17")],
    ids=["tier", "vocabulary"],
)
def test_a_damaged_row_on_which_much_depends_is_that_of_its_index(
    original: Path, tmp_path: Path, right: bytes, wrong: bytes
) -> None:
    before = kept(original)
    path = copied(original, tmp_path / "hit")
    start = (_page_of(original, "scopes") - 1) * PAGE
    content = path.read_bytes()
    page = content[start : start + PAGE]
    assert right in page
    path.write_bytes(content[:start] + page.replace(right, wrong) + content[start + PAGE :])
    assert recovered(path) == before


def test_a_number_that_is_too_large_for_sqlite_stops_nothing(
    original: Path, tmp_path: Path
) -> None:
    damaged = copied(original, tmp_path / "hit")
    with contextlib.closing(sqlite3.connect(damaged)) as connection:
        connection.execute("INSERT INTO blocks VALUES (?, 999999, x'01000000')", [(1 << 62) + 1])
        connection.commit()
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    salvage(damaged, path)
    assert kept(path) == kept(original)


def test_many_pages_at_once_cost_no_more_than_each(original: Path, tmp_path: Path) -> None:
    before = kept(original)
    names = owners(original)
    stream = random.Random(4)
    for attempt in range(12):
        path = copied(original, tmp_path / str(attempt))
        pages = stream.sample(range(1, max(names) + 1), 6)
        hit(path, pages)
        after = recovered(path)
        num_blocks = sum(names.get(page) == "blocks" for page in pages)
        hurt = {names.get(page) for page in pages}
        if hurt & {"sequences", "scopes", "vocabularies"}:
            continue  # those and their indexes together hold what nothing else does
        assert before.num_tokens - after.num_tokens <= num_blocks * PAGE // 4
        if "messages" not in hurt:
            assert after.messages == before.messages


def test_what_was_learned_from_a_conversation_is_still_forgotten_with_it(
    original: Path, tmp_path: Path
) -> None:
    """Also where only indexes told which conversation a sequence belongs to."""
    path = copied(original, tmp_path / "hit")
    hit(path, (page for page, name in owners(original).items() if name == "sequences"))
    after = recovered(path)
    before = kept(original)
    answers = {row for row in before.sequences if row[1] == "model"}
    assert len(after.sequences) == len(answers) and not lost_answers(before, after)
    with open_database(path) as database:
        forgetting = Forgetting(database.connection)
        for conversation in {row[2] for row in answers}:
            assert conversation is not None
            assert forgetting.conversation(conversation).num_tokens > 0
        assert count(database.connection, "blocks") == 0


def test_a_sequence_whose_conversation_is_misspelt_still_belongs_to_it(
    original: Path, tmp_path: Path
) -> None:
    before = kept(original)
    path = copied(original, tmp_path / "hit")
    start = (_page_of(original, "sequences") - 1) * PAGE
    page = path.read_bytes()[start : start + PAGE]
    conversation = max(before.sequences, key=lambda row: page.rfind((row[2] or "-").encode()))[2]
    assert conversation is not None
    place = start + page.rfind(conversation.encode())
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"x")
    assert recovered(path) == before


def test_where_conversations_are_lost_too_no_sequence_is_anothers(
    original: Path, tmp_path: Path
) -> None:
    path = copied(original, tmp_path / "hit")
    names = owners(original)
    hit(path, (page for page, name in names.items() if name in ("sequences", "conversations")))
    before, after = kept(original), recovered(path)
    owner = {row[4][-5:]: row[2] for row in before.sequences}
    answers = [row for row in after.sequences if row[1] == "model"]
    assert len(answers) == len([row for row in before.sequences if row[1] == "model"])
    for row in answers:
        assert row[2] in (None, owner[row[4][-5:]])


def test_what_was_forgotten_is_not_brought_back(original: Path, tmp_path: Path) -> None:
    path = copied(original, tmp_path / "hit")
    with open_database(path) as database:
        forgetting = Forgetting(database.connection)
        forgetting.everything()
        forgetting.purge(path)
    hit(path, [1])
    after = recovered(path)
    assert after.messages == frozenset() and after.sequences == frozenset()
    assert {row[0] for row in after.small} == {"fact"}


def test_imported_files_are_read_anew_only_if_something_is_lost(
    original: Path, tmp_path: Path
) -> None:
    for name, page in (("whole", 1), ("broken", _page_of(original, "blocks"))):
        path = copied(original, tmp_path / name)
        hit(path, [page])
        recovered(path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT path, sha256 FROM files ORDER BY path").fetchall()
        expected = "hash" if name == "whole" else ""
        assert rows == [("/notes/a.md", expected), ("/notes/b.md", expected)]


def test_a_lost_conversation_is_named_by_what_was_said(original: Path, tmp_path: Path) -> None:
    path = copied(original, tmp_path / "hit")
    pages = [page for page, name in owners(original).items() if name == "conversations"]
    hit(path, pages)
    recovered(path)
    with open_database(path) as database:
        titles = {known.title for known in Conversations(database.connection).all()}
    assert len(titles) == NUM_CONVERSATIONS
    assert all(title.startswith("question ") for title in titles)


def test_what_was_said_since_stays_and_comes_last(original: Path, tmp_path: Path) -> None:
    """A database that was set aside when it was opened is added to the one that was begun then."""
    path = copied(original, tmp_path / "hit")
    before = kept(original)
    hit(path, [1])
    with open_database(path) as database:
        assert "edgespec db check --repair" in database.notice
        recorded = Recorded(database)
        conversations = Conversations(database.connection)
        new = conversations.start("since then")
        conversations.add(new, "user", "hello")
        recorded.add([1, 2, 3], conversation=new)
        Facts(database).put("model", "m", {"rows": 8})
    (waiting,) = unsalvaged(path)
    (told,) = repair(path)
    assert told.startswith(f"saved {len(before.messages)} messages") and "(0 lost" in told
    assert unsalvaged(path) == [] and not waiting.exists()
    after = kept(path)
    assert after.messages == before.messages | {(new, "user", "hello")}
    assert before.sequences < after.sequences
    assert after.num_tokens == before.num_tokens + 3
    with open_database(path) as database:
        assert Facts(database).get("model", "m") == {"rows": 8}


def test_a_salvage_that_was_interrupted_goes_on(original: Path, tmp_path: Path) -> None:
    damaged = copied(original, tmp_path / "damaged")
    whole = kept(original)
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    first, second = salvage(damaged, path), salvage(damaged, path)
    assert first == second
    assert kept(path) == whole
    with open_database(path) as database:
        assert count(database.connection, "messages") == len(whole.messages)
        assert count(database.connection, "sequences") == first.num_sequences
        assert problems(database.connection) == []


def test_of_two_repairs_at_once_one_is_refused(original: Path, tmp_path: Path) -> None:
    path = copied(original, tmp_path / "hit")
    hit(path, [1])
    open_database(path).close()
    with only_mender(path), pytest.raises(BusyError, match="another command repairs"):
        repair(path)
    assert len(unsalvaged(path)) == 1
    (told,) = repair(path)
    assert "(0 lost" in told


def test_a_copy_that_a_killed_repair_left_is_deleted(original: Path, tmp_path: Path) -> None:
    path = copied(original, tmp_path / "home")
    left = path.with_name(f".{path.name}.damaged-20310101-000000.abc")
    left.mkdir()
    (left / "copy.db").write_bytes(path.read_bytes())
    assert repair(path) == []
    assert [file for file in path.parent.iterdir() if file.is_dir()] == []


def test_a_file_that_is_no_database_is_salvaged_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    open_database(path).close()
    for content in (b"", b"no database" * 1000, bytes(8192)):
        path.with_name("edgespec.db.damaged-20310101-000000").write_bytes(content)
        (told,) = repair(path)
        assert told.startswith("saved 0 messages and 0 recorded sequences (0 lost")


def test_names_say_whether_a_damaged_file_was_read(tmp_path: Path) -> None:
    path = tmp_path / "edgespec.db"
    path.write_bytes(b"x")
    path.with_name("edgespec.db-wal").write_bytes(b"log")
    aside = set_aside(path)
    assert unsalvaged(path) == [aside]
    marked = mark_salvaged(path, aside)
    assert unsalvaged(path) == [] and marked.read_bytes() == b"x"
    assert marked.with_name(marked.name + "-wal").read_bytes() == b"log"


def test_values_of_pairs_are_known_by_how_they_begin() -> None:
    assert table_of(NgramCache().export()) == "ngram_caches"
    assert (
        table_of(Acceptance(Calibration([0.5]), (1.0, 1.0, 0.0, 0.0, 0.0)).export())
        == "calibrations"
    )
    assert set(PREFIXES.values()) == {"ngram_caches", "calibrations"}


def _page_of(path: Path, name: str) -> int:
    """The last page of a table: a leaf."""
    return max(page for page, owner in owners(path).items() if owner == name)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 200), st.integers(1, 64))
def test_flipped_bytes_never_stop_a_salvage(
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    num_places: int,
    num_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    damaged, path = folder / "damaged.db", folder / "edgespec.db"
    content = bytearray(original.read_bytes())
    stream = random.Random(seed)
    for _ in range(num_places):
        start = stream.randrange(len(content))
        for place in range(start, min(start + num_bytes, len(content))):
            content[place] ^= stream.randrange(1, 256)
    damaged.write_bytes(content)
    open_database(path).close()
    salvage(damaged, path)
    with open_database(path) as database:
        assert problems(database.connection) == []
        for known in Conversations(database.connection).all():
            assert 0 <= known.created < 1 << 40
