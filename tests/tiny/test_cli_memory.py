"""What commands learn from their answers, use, keep to themselves, and survive, on a tiny model."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cli_support import Cli, Ended
from tiny_models import TinySpec, write_tiny_model

from edgespec.drafters import context, database
from edgespec.estimates.acceptance import Acceptance
from edgespec.vocab.ngrams import NgramCache

PROMPT = "Please write a short list of things to do."
SAMPLING = ("--temperature", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0")
"""So that an answer does not repeat itself: only the database can know it."""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A home of its own: what is remembered here is said in these tests."""
    return Cli(tmp_path_factory.mktemp("memory"))


def answer(cli: Cli, prompt: str, *options: str) -> dict[str, Any]:
    return cli.answer("--max-tokens", "40", *SAMPLING, *options, prompt)


def stats(cli: Cli) -> dict[str, Any]:
    return cli.run("db", "stats", "--json").json()


def num_tokens(cli: Cli) -> int:
    return int(stats(cli)["num_tokens"])


def by_database(found: dict[str, Any]) -> dict[str, int]:
    counts = found["stats"]["by_drafter"].get("database", {"proposed": 0, "accepted": 0})
    assert isinstance(counts, dict)
    return counts


def test_an_answer_given_before_is_drafted_and_stays_the_same(cli: Cli) -> None:
    first = answer(cli, PROMPT)
    assert by_database(first)["accepted"] == 0
    assert num_tokens(cli) == 40
    again = answer(cli, PROMPT)
    plain = answer(cli, PROMPT, "--no-speculation")
    assert first["token_ids"] == again["token_ids"] == plain["token_ids"]
    assert by_database(again)["accepted"] > 20
    assert again["stats"]["target_passes"] < first["stats"]["target_passes"] / 2
    assert num_tokens(cli) == 120


def test_without_learning_it_is_used_but_nothing_is_kept(cli: Cli) -> None:
    question = "What is the mill for?"
    first = answer(cli, question)
    before = cli.run("db", "export").stdout
    again = answer(cli, question, "--no-learn")
    assert again["token_ids"] == first["token_ids"]
    assert by_database(again)["accepted"] > 0
    assert cli.run("db", "export").stdout == before


def test_incognito_nothing_is_used_and_nothing_is_kept(cli: Cli) -> None:
    question = "Where is the bridge?"
    first = answer(cli, question)
    before = cli.run("db", "export").stdout
    again = answer(cli, question, "--incognito")
    assert again["token_ids"] == first["token_ids"]
    assert set(again["stats"]["by_drafter"]) <= {"context"}
    assert "database" not in again["settings"]["drafter"]
    assert cli.run("db", "export").stdout == before


def test_without_drafting_the_answer_is_still_remembered(cli: Cli) -> None:
    question = "Who built the tower?"
    first = answer(cli, question, "--drafter", "none")
    assert by_database(answer(cli, question))["accepted"] > 0
    assert first["settings"]["drafter"] == "none"


def test_what_was_said_is_found_and_forgotten(cli: Cli) -> None:
    answer(cli, "Say hello.")  # a tier is kept once there is one, though nothing is in it
    before = stats(cli)
    answer(cli, "Tell me about zebrawood.", "--system", "Be brief.")
    [hit] = json.loads(cli.run("db", "search", "zebrawood", "--json").stdout)
    assert (hit["role"], hit["title"]) == ("user", "Tell me about zebrawood.")
    assert stats(cli)["num_messages"] == before["num_messages"] + 2
    ended = cli.run("db", "forget", "--conversation", hit["conversation"])
    assert ended.stderr == "forgot 1 conversation, 2 messages, 40 recorded tokens\n"
    after = stats(cli)
    assert after["tiers"] == before["tiers"]
    assert after["num_messages"] == before["num_messages"]


def test_plain_text_is_learned_without_a_conversation(cli: Cli) -> None:
    before = stats(cli)
    answer(cli, "once upon a time", "--raw")
    after = stats(cli)
    assert after["num_tokens"] == before["num_tokens"] + 40
    assert after["num_conversations"] == before["num_conversations"]


def test_an_interrupted_answer_is_kept_as_far_as_it_came(cli: Cli) -> None:
    before = num_tokens(cli)
    with cli.started("run", "--model", cli.slow, "--threads", "1", PROMPT) as running:
        running.wait_for_output()
        ended = running.stop(signal.SIGINT)
    assert ended.returncode == 130
    assert num_tokens(cli) > before


def test_the_n_grams_of_a_model_drafter_are_kept_for_its_pair(tmp_path: Path) -> None:
    cli = Cli(tmp_path)  # nothing else is known, so the model is really asked
    drafter = tmp_path / "stranger.gguf"
    write_tiny_model(drafter, TinySpec(vocabulary="spm", num_layers=1))
    command = ("run", *cli.on_quick, "--drafter", drafter, *SAMPLING, "--max-tokens", "60", PROMPT)

    def kept() -> list[bytes]:
        with contextlib.closing(sqlite3.connect(cli.home / "edgespec.db")) as connection:
            return [value for (value,) in connection.execute("SELECT value FROM ngram_caches")]

    for option in ("--no-learn", "--incognito"):
        assert cli.run(*command, option).returncode == 0
        assert kept() == []
    assert cli.run(*command).returncode == 0
    [once] = kept()
    assert NgramCache().restore(once)
    # The same again is drafted from the database: by itself this run would learn next to nothing.
    assert cli.run(*command).returncode == 0
    [twice] = kept()
    assert NgramCache().restore(twice)
    assert len(twice) >= len(once) > 100, "what was learned before was taken back"


def test_the_estimates_of_each_drafter_are_kept_for_its_target(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    fresh = {"context": context.new_calibration, "database": database.new_calibration}

    def kept() -> dict[str, Acceptance]:
        with contextlib.closing(sqlite3.connect(cli.home / "edgespec.db")) as connection:
            found = {}
            for drafter, value in connection.execute("SELECT drafter, value FROM calibrations"):
                found[drafter] = fresh[drafter]()
                assert found[drafter].restore(value)
            return found

    said = answer(cli, PROMPT, "--no-learn")
    assert kept() == {}
    assert answer(cli, PROMPT)["token_ids"] == said["token_ids"]
    once = {name: calibration.export() for name, calibration in kept().items()}
    assert set(once) == set(fresh)
    assert answer(cli, PROMPT)["token_ids"] == said["token_ids"]
    twice = {name: calibration.export() for name, calibration in kept().items()}
    assert twice != once, "it goes on learning"
    assert all(twice[name] != fresh[name]().export() for name in twice)
    with contextlib.closing(sqlite3.connect(cli.home / "edgespec.db")) as connection, connection:
        connection.execute("UPDATE calibrations SET value = substr(value, 1, 99)")
    assert answer(cli, PROMPT)["token_ids"] == said["token_ids"]
    assert set(kept()) == set(fresh), "a damaged value is replaced"


def test_a_benchmark_neither_uses_nor_changes_it(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"question_id": 1, "category": "c", "turns": [PROMPT]}))
    answer(cli, PROMPT)
    before = cli.run("db", "export").stdout
    out = tmp_path / "out.json"
    command = ("bench", *cli.on_quick, "--suite", suite, "--max-tokens", "16", "--json", out)
    assert cli.run(*command).returncode == 0
    assert json.loads(out.read_text())["target"]["drafter"] == "context+grammar"
    assert cli.run("db", "export").stdout == before


def chat(url: str, messages: list[dict[str, str]]) -> str:
    body = json.dumps({"messages": messages, "max_tokens": 12, "temperature": 0}).encode()
    request = urllib.request.Request(
        f"{url}/chat/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        value = json.load(response)
    said = value["choices"][0]["message"]["content"]
    assert isinstance(said, str)
    return said


def test_the_turns_of_a_served_conversation_are_one_conversation(cli: Cli) -> None:
    before = stats(cli)
    with cli.started("serve", *cli.on_quick, "--port", "0") as running:
        running.wait_for("(Ctrl-C stops it)", "stderr")
        url = running.said("stderr").split("http://", 1)[1].split()[0].rstrip(".,")
        messages = [{"role": "user", "content": "Speak of quicksilver."}]
        for question in ("And then?", "And after that?"):
            said = chat(f"http://{url}", messages)
            messages += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": question},
            ]
        chat(f"http://{url}", messages)
        running.stop(signal.SIGINT)
    after = stats(cli)
    assert after["num_conversations"] == before["num_conversations"] + 1
    assert after["num_messages"] == before["num_messages"] + 6
    assert after["num_tokens"] == before["num_tokens"] + 36


def test_text_is_imported_into_a_tier_of_its_own_once(cli: Cli, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "harbour.txt").write_text("The harbour lies to the north of the mill.\n" * 20)
    (notes / "picture.bin").write_bytes(bytes(range(256)))
    imported = cli.run("db", "import", notes, "--model", cli.quick)
    assert imported.returncode == 0, imported.stderr
    assert "1 file imported" in imported.stderr and "1 not text" in imported.stderr
    assert "1 unchanged" in cli.run("db", "import", notes, "--model", cli.quick).stderr
    found = stats(cli)
    assert found["num_files"] == 1
    model, statistics = found["tiers"]
    assert (model["tier"], statistics["tier"]) == ("model", "statistics")
    assert model["vocabulary"] == statistics["vocabulary"]
    assert statistics["num_tokens"] > 100


# -- a database that does not work --------------------------------------------------------------


def assert_answered(ended: Ended, expected: dict[str, Any], *words: str) -> None:
    """The same answer, and one line about what is wrong."""
    assert ended.json()["token_ids"] == expected["token_ids"]
    assert ended.stderr.count("\n") == 1, ended.stderr
    for word in words:
        assert word in ended.stderr


def ask_again(cli: Cli) -> Ended:
    return cli.run("run", *cli.on_quick, "--json", "--max-tokens", "40", *SAMPLING, PROMPT)


def test_a_lock_held_while_the_answer_is_written_costs_only_that_answer(cli: Cli) -> None:
    expected = answer(cli, PROMPT)
    before = num_tokens(cli)
    with contextlib.closing(
        sqlite3.connect(cli.home / "edgespec.db", isolation_level=None)
    ) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        assert_answered(ask_again(cli), expected, "not remembered", "database is locked")
    assert num_tokens(cli) == before
    assert ask_again(cli).stderr == ""


def test_a_damaged_index_costs_speed_and_one_line(cli: Cli) -> None:
    expected = answer(cli, PROMPT)
    path = cli.home / "edgespec.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        query = "SELECT pageno FROM dbstat WHERE name = 'grams'"
        pages = [page for (page,) in connection.execute(query)]
    good = path.read_bytes()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 4096)
    assert_answered(ask_again(cli), expected, "damaged", "edgespec db check")
    assert cli.run("db", "check").returncode != 0
    assert "of the damaged file, which is kept" in cli.run("db", "check", "--repair").stderr
    assert cli.run("db", "check").stderr == "the database is sound\n"
    assert by_database(ask_again(cli).json())["accepted"] > 0
    path.write_bytes(good)
