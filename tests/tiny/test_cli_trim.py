"""`edgespec trim`, and drafters trimmed by themselves: same answers, one line for errors."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Cli, Ended, assert_refused
from rigs import file_size_limit
from tiny_models import TinySpec, write_tiny_model

from edgespec import errors
from edgespec.cache.database import open_database
from edgespec.cache.tokens.sequences import Recording, SequenceStore, VocabularyKey
from edgespec.gguf.trim import read_trim_info
from edgespec.llama.model import Model, ModelOptions
from edgespec.vocab.tokenizer import ByteTokenizer

USAGE = errors.UsageError.exit_code
MODEL_FILE = errors.ModelFileError.exit_code
CHECKSUM = errors.ChecksumError.exit_code
STORAGE = errors.StorageError.exit_code
UNKNOWN_MODEL = errors.UnknownModelError.exit_code

DRAFTER = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q4_1", repetitive=True)
LARGER = dataclasses.replace(DRAFTER, num_vocab=1024)
PROMPT = ("--incognito", "--max-tokens", "30", "Tell me a story.")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture
def drafter(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "small.gguf", DRAFTER)


@pytest.fixture
def home(tmp_path: Path, cli: Cli) -> Path:
    """A home of the test's own, in which the quick model was measured."""
    return cli.remembered_in(tmp_path / "home").data


def trim(cli: Cli, home: Path, *arguments: str | Path) -> Ended:
    return cli.run("trim", "--threads", "1", *arguments, home=home)


def answer(cli: Cli, home: Path, *options: str | Path) -> dict[str, Any]:
    return cli.run("run", *cli.on_quick, "--json", *options, *PROMPT, home=home).json()


def kept_by(path: Path) -> int:
    info = read_trim_info(path)
    assert info is not None
    return info.num_kept


def test_a_drafter_is_trimmed_and_its_path_printed(cli: Cli, home: Path, drafter: Path) -> None:
    ended = trim(cli, home, drafter, "--keep", "300", "--retype", "none")
    assert ended.returncode == 0, ended.stderr
    path = Path(ended.stdout.rstrip("\n"))
    assert path.parent == home / "cache" / "trimmed"
    assert kept_by(path) == 300
    assert "keeps 300 of 512 tokens" in ended.stderr
    assert "answers of qwen2.5-coder-1.5b" in ended.stderr


def test_json_tells_everything(cli: Cli, home: Path, drafter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    ended = trim(cli, home, drafter, "--keep", "300", "--retype", "Q8_0", "--out", out, "--json")
    found = ended.json()
    assert found == {
        "path": str(out),
        "parent": str(drafter),
        "num_kept": 300,
        "num_tokens": 512,
        "type_name": "q8_0",
        "coverage": found["coverage"],
        "origin": found["origin"],
        "num_bytes": out.stat().st_size,
        "parent_bytes": drafter.stat().st_size,
        "tried": [],
    }
    assert 0 < found["coverage"] <= 1
    assert kept_by(out) == 300


def test_what_is_open_is_measured(cli: Cli, home: Path, drafter: Path) -> None:
    found = trim(cli, home, drafter, "--json").json()
    assert found["num_kept"] == 512
    assert found["type_name"] in ("shipped", "q8_0", "q4_m", "q4_0")
    shown = trim(cli, home, drafter)
    assert shown.returncode == 0
    if found["tried"]:  # else the machine was too busy
        assert found["tried"][0]["type_name"] == "shipped"
    if "MS A TOKEN" in shown.stderr:
        assert "shipped" in shown.stderr


def test_answers_stay_the_same_however_it_is_trimmed(cli: Cli, home: Path, drafter: Path) -> None:
    plain = answer(cli, home, "--no-speculation")
    for option in ("--trim", "--no-trim"):
        drafted = answer(cli, home, "--drafter", drafter, option)
        assert drafted["token_ids"] == plain["token_ids"]
        assert drafted["settings"]["drafter"] == "context+grammar+small"
    assert trim(cli, home, drafter, "--keep", "280", "--retype", "q4_0").returncode == 0
    drafted = answer(cli, home, "--drafter", drafter)
    assert drafted["token_ids"] == plain["token_ids"]
    assert kept_by(next((home / "cache" / "trimmed").glob("*.gguf"))) == 280


def test_no_trim_makes_nothing(cli: Cli, home: Path, drafter: Path) -> None:
    answer(cli, home, "--drafter", drafter, "--no-trim")
    assert not (home / "cache" / "trimmed").exists()


def test_a_trimmed_file_drafts_beside_its_parent(
    cli: Cli, home: Path, drafter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere" / "mine.gguf"
    out.parent.mkdir()
    assert trim(cli, home, drafter, "--keep", "300", "--out", out).returncode == 0
    run = ("run", *cli.on_quick, "--drafter", out, *PROMPT)
    ended = cli.run(*run, home=home)
    assert_refused(ended, MODEL_FILE, "mine.gguf was trimmed from small.gguf", "not here")
    (home / "models").mkdir()
    stored = home / "models" / drafter.name
    shutil.copyfile(drafter, stored)
    plain = answer(cli, home, "--no-speculation")
    drafted = answer(cli, home, "--drafter", out)
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["settings"]["drafter"] == "context+grammar+small"
    assert answer(cli, home, "--drafter", out, "--no-trim")["token_ids"] == plain["token_ids"]
    write_tiny_model(stored, dataclasses.replace(DRAFTER, seed=5))
    ended = cli.run(*run, home=home)
    assert_refused(ended, CHECKSUM, str(stored), "changed since mine.gguf", "trim it again")


def test_counts_come_from_a_file(cli: Cli, home: Path, drafter: Path, tmp_path: Path) -> None:
    text, table, out = tmp_path / "text.txt", tmp_path / "a.counts", tmp_path / "out.gguf"
    text.write_text("zebra zebra quokka " * 50)
    common = (drafter, "--keep", "290", "--retype", "none", "--out", out, "--json")
    found = trim(cli, home, *common, "--counts", text, "--save-counts", table).json()
    assert found["origin"] == "text.txt"
    assert found["coverage"] == 1.0
    kept = read_trim_info(out)
    out.unlink()
    again = trim(cli, home, *common, "--counts", table).json()
    assert again["origin"] == "text.txt"
    found_again = read_trim_info(out)
    assert kept is not None
    assert found_again is not None
    np.testing.assert_array_equal(found_again.kept, kept.kept)


def test_counts_come_from_what_the_target_said(
    cli: Cli, home: Path, drafter: Path, tmp_path: Path
) -> None:
    with Model(cli.quick, ModelOptions(vocabulary_only=True)) as model:
        tokenizer = ByteTokenizer(model.vocab)
        pieces = [tokenizer.piece(token) for token in range(300, 500)]
        words = [piece for piece in pieces if piece.isalpha() and piece.isascii()][-60:]
        said = tokenizer.encode(b"\n".join(words)).tokens
        vocabulary = VocabularyKey(tokenizer.fingerprint, model.vocab.num_tokens)
    with open_database(home / "edgespec.db") as database:
        store = SequenceStore(database.connection)
        store.record(store.scope(vocabulary, "model"), Recording(said * 1000))
    out = tmp_path / "out.gguf"
    keep = ("--keep", "330", "--retype", "none", "--out", out, "--json")
    found = trim(cli, home, drafter, "--for", cli.quick, *keep).json()
    counted = re.search(r"([\d,]+) tokens that quick said here", found["origin"])
    assert counted is not None
    # Other tests had it say some more.
    assert 1000 * len(said) <= int(counted[1].replace(",", "")) < 1000 * len(said) + 10_000
    info = read_trim_info(out)
    assert info is not None
    # Both tiny models have the same vocabulary, so what was said is kept.
    assert set(said) <= set(info.kept.tolist())


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--keep", "513"), USAGE, ("cannot keep 513 tokens", "the vocabulary has 512")),
        (("--keep", "9"), USAGE, ("cannot keep 9 tokens", "single bytes")),
        (("--keep", "0"), USAGE, ("--keep is '0'", "give a number")),
        (("--keep", "many"), USAGE, ("--keep is 'many'", "or auto")),
        (("--keep", "-3"), USAGE, ("--keep is '-3'",)),
        (("--retype", "q3_x"), USAGE, ("no type 'q3_x'", "q4_0")),
        (("--threads", "0"), USAGE, ("0 threads",)),
        (("--counts", "/nowhere/x"), USAGE, ("cannot read counts", "/nowhere/x")),
        (("--out", "/nowhere/x.gguf"), STORAGE, ("no folder /nowhere",)),
        (("--save-counts", "/nowhere/x"), STORAGE, ("no folder /nowhere",)),
        (("--for", "nobody"), UNKNOWN_MODEL, ("nobody",)),
    ],
)
def test_nonsense_is_refused(
    cli: Cli, home: Path, drafter: Path, options: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    # The later --threads counts.
    assert_refused(trim(cli, home, drafter, "--retype", "none", *options), code, *words)


def test_counts_of_another_vocabulary_are_refused(
    cli: Cli, home: Path, drafter: Path, tmp_path: Path
) -> None:
    larger = write_tiny_model(tmp_path / "larger.gguf", LARGER)
    table, out = tmp_path / "larger.counts", tmp_path / "out.gguf"
    made = trim(cli, home, larger, "--keep", "600", "--save-counts", table, "--out", out)
    assert made.returncode == 0, made.stderr
    ended = trim(cli, home, drafter, "--keep", "300", "--counts", table)
    assert_refused(ended, USAGE, "another vocabulary of 1,024 tokens", "drafter's has 512")
    table.write_bytes(table.read_bytes()[:-9])
    ended = trim(cli, home, larger, "--keep", "600", "--counts", table)
    assert_refused(ended, STORAGE, "is cut off or damaged", "make it again")


def test_what_cannot_be_trimmed_is_refused(cli: Cli, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"no model at all, whatever its name says" * 9)
    assert_refused(trim(cli, home, path), MODEL_FILE, str(path))
    assert_refused(trim(cli, home, tmp_path / "absent.gguf"), MODEL_FILE, "absent.gguf")
    for architecture in ("mamba", "lfm2"):
        spec = TinySpec(architecture=architecture, width=64, ffn_width=128)
        write_tiny_model(path, spec)
        assert_refused(trim(cli, home, path), MODEL_FILE, "is recurrent", "cannot serve")


def test_a_trimmed_file_is_not_trimmed_again(
    cli: Cli, home: Path, drafter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    arguments = ("--keep", "300", "--retype", "none", "--out", out)
    assert trim(cli, home, drafter, *arguments).returncode == 0
    assert_refused(trim(cli, home, out), MODEL_FILE, "trimmed already")
    assert trim(cli, home, drafter, *arguments).returncode == 0, "it may be replaced"
    before = drafter.read_bytes()
    ended = trim(cli, home, drafter, "--keep", "300", "--out", drafter)
    assert_refused(ended, USAGE, "small.gguf exists and is no trimmed model")
    assert drafter.read_bytes() == before


def test_a_full_disk_is_told_and_leaves_nothing(cli: Cli, home: Path, tmp_path: Path) -> None:
    spec = TinySpec(num_layers=4, ffn_width=1024, quantization="F16")
    large, out = write_tiny_model(tmp_path / "large.gguf", spec), tmp_path / "out.gguf"
    with file_size_limit(3_000_000):
        ended = trim(cli, home, large, "--keep", "300", "--retype", "none", "--out", out)
    assert ended.returncode == STORAGE
    assert "not enough space" in ended.stderr.splitlines()[-1]
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_an_answer_does_not_wait_for_a_trimmed_drafter(cli: Cli, home: Path, drafter: Path) -> None:
    plain = answer(cli, home, "--no-speculation")
    proposed = 0
    for _ in range(3):  # a drafter that takes long on a busy machine is not asked each time
        ended = cli.run("run", *cli.on_quick, "--json", "--drafter", drafter, *PROMPT, home=home)
        assert ended.json()["token_ids"] == plain["token_ids"]
        assert ended.stderr == ""
        proposed += ended.json()["stats"]["by_drafter"].get("small", {"proposed": 0})["proposed"]
    assert proposed > 0


def test_help_names_every_option(cli: Cli) -> None:
    text = cli.run("trim", "--help").stdout
    for option in ("--for", "--keep", "--counts", "--retype", "--out", "--save-counts", "--json"):
        assert option in text
    assert "--trim / --no-trim" in cli.run("run", "--help").stdout
    assert "trim" in cli.run("--help").stdout
