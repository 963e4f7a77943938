"""Whatever a user gets wrong: one line that says so, an empty stdout, an exit status of its own."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from pathlib import Path

import pytest
from cli_support import Cli, Ended, assert_refused
from gguf import GGUFWriter

from edgespec import errors

USAGE = errors.UsageError.exit_code
MODEL_FILE = errors.ModelFileError.exit_code
OVERFLOW = errors.ContextOverflowError.exit_code
GRAMMAR = errors.GrammarError.exit_code
STORAGE = errors.StorageError.exit_code
UNKNOWN_MODEL = errors.UnknownModelError.exit_code


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


def run(cli: Cli, *arguments: str | Path, stdin: bytes | None = None) -> Ended:
    """A short answer of the quick model, or the refusal to give it."""
    return cli.run("run", *cli.on_quick, "--max-tokens", "2", *arguments, stdin=stdin)


def run_file(cli: Cli, path: Path) -> Ended:
    return cli.run("run", "--model", path, "--max-tokens", "2", "hello")


def test_every_kind_of_error_has_an_exit_status_of_its_own() -> None:
    codes = [kind.exit_code for kind in errors.EdgeSpecError.__subclasses__()]
    codes += [errors.EdgeSpecError.exit_code, errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert max(codes) < 256


# Model files


def test_a_file_that_is_no_model_or_cut_off(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(cli.quick.read_bytes()[:-100])
    assert_refused(run_file(cli, path), MODEL_FILE, str(path), "truncated", "pull it again")
    path.write_bytes(random.Random(0).randbytes(4096))
    assert_refused(run_file(cli, path), MODEL_FILE, str(path), "not a GGUF file")


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_in_the_header(cli: Cli, tmp_path: Path, seed: int) -> None:
    """Some flips change a harmless name; none may crash, and those that matter are told."""
    chance = random.Random(seed)
    data = bytearray(cli.quick.read_bytes())
    for _ in range(8):
        data[chance.randrange(8, 600)] ^= 1 << chance.randrange(8)
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    ended = run_file(cli, path)
    if ended.returncode != 0:
        assert_refused(ended, MODEL_FILE, str(path))


def test_a_flipped_number_of_layers(cli: Cli, tmp_path: Path) -> None:
    data = cli.quick.read_bytes()
    key = b"llama.block_count"
    at = data.index(key) + len(key) + 4
    path = tmp_path / "layers.gguf"
    path.write_bytes(data[:at] + (7).to_bytes(4, "little") + data[at + 4 :])
    assert_refused(run_file(cli, path), MODEL_FILE, str(path), "llama.cpp cannot load")


def test_an_unknown_architecture(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "nonsense.gguf"
    writer = GGUFWriter(path, "nonsense")
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_refused(run_file(cli, path), MODEL_FILE, str(path), "architecture", "nonsense")


def test_a_file_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "gone.gguf"
    for command in (("run", "--model", path, "hello"), ("bench", "--model", path)):
        assert_refused(cli.run(*command), MODEL_FILE, str(path), "check the path")


def test_a_folder_for_a_model(cli: Cli, tmp_path: Path) -> None:
    assert_refused(run_file(cli, tmp_path), MODEL_FILE, str(tmp_path), "Is a directory")


def test_a_file_that_may_not_be_read(cli: Cli, tmp_path: Path) -> None:
    """A loop of links cannot be opened by anybody, the superuser included."""
    path = tmp_path / "loop.gguf"
    path.symlink_to(path)
    assert_refused(run_file(cli, path), MODEL_FILE, str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gwen2.5-coder-1.5b", ("gwen2.5-coder-1.5b", "did you mean qwen2.5-coder-1.5b")),
        ("no-such-thing", ("no-such-thing", "a path to a .gguf file")),
        ("hf:only-an-owner", ("hf:OWNER/REPO:FILE.gguf",)),
        ("", ("empty name",)),
    ],
)
def test_an_unknown_model_name(cli: Cli, name: str, words: tuple[str, ...]) -> None:
    assert_refused(cli.run("run", "--model", name, "hello"), UNKNOWN_MODEL, *words)


# Prompts


def test_a_prompt_longer_than_the_context(cli: Cli) -> None:
    ended = run(cli, "--context", "256", "word " * 2000)
    assert_refused(ended, OVERFLOW, "tokens", "holds 256", "--context")


@pytest.mark.parametrize(("arguments", "stdin"), [((), b""), (("",), b""), ((), b" \n\t\n")])
def test_an_empty_prompt(cli: Cli, arguments: tuple[str, ...], stdin: bytes) -> None:
    assert_refused(run(cli, *arguments, stdin=stdin), USAGE, "there is no prompt")


def test_input_that_is_not_utf8(cli: Cli) -> None:
    ended = run(cli, "Summarize", stdin="naïve".encode("latin-1"))
    assert_refused(ended, USAGE, "stdin is not UTF-8", "0xef", "offset 2")


def test_an_argument_that_is_not_utf8_is_read_all_the_same(cli: Cli) -> None:
    ended = run(cli, os.fsdecode(b"na\xefve"))
    assert ended.returncode == 0
    assert ended.stderr == ""


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--temperature", "-1"), ("temperature is -1.0", "0.0 to 100.0")),
        (("--seed", "-1"), ("seed is -1",)),
        (("--max-tokens", "0"), ("--max-tokens is 0",)),
        (("--context", "3"), ("context of 3 tokens is too small",)),
        (("--threads", "0"), ("0 threads",)),
        (("--raw", "--system", "Be brief."), ("--raw and --system",)),
    ],
)
def test_values_that_make_no_sense(
    cli: Cli, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_refused(run(cli, *options, "hello"), USAGE, *words)


def test_a_drafter_that_is_no_model(cli: Cli) -> None:
    """The rest of the line tells what can be given."""
    ended = run(cli, "--drafter", "oracle", "hello")
    assert_refused(ended, UNKNOWN_MODEL, "'oracle' is no drafter", "smollm2-135m", "or none")


def test_values_are_checked_before_the_model_is_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "not-read.gguf"
    path.write_bytes(b"")
    for command in ("run", "bench"):
        ended = cli.run(command, "--model", path, "--top-p", "2", stdin=b"hello")
        assert_refused(ended, USAGE, "top_p is 2.0")
        ended = cli.run(command, "--model", path, "--max-tokens", "0", stdin=b"hello")
        assert_refused(ended, USAGE, "--max-tokens is 0")
    ended = cli.run("serve", "--model", path, "--port", "0", "--temperature", "-1")
    assert ended.returncode == USAGE
    assert "temperature is -1.0" in ended.stderr.splitlines()[-1]  # it listened by then
    assert_refused(cli.run("chat", "--model", path, "--max-tokens", "0"), USAGE, "--max-tokens")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("nonsense",),
        ("run", "--nonsense", "hello"),
        ("run", "--seed", "seven", "hello"),
        ("run", "--temperature", "warm", "hello"),
        ("run", "hello", "world"),
        ("run", "--model"),
    ],
)
def test_what_the_command_line_does_not_know(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli.run(*arguments)
    assert ended.returncode == USAGE
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in ended.stderr


# Grammars


def test_a_grammar_that_does_not_parse(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_text('root ::= "a" | (')
    assert_refused(run(cli, "--grammar", path, "hello"), GRAMMAR, "open bracket")
    assert_refused(run(cli, "--lark", path, "hello"), GRAMMAR, "Lark grammar")
    assert_refused(run(cli, "--regex", "(", "hello"), GRAMMAR, "unclosed group")


@pytest.mark.parametrize("content", ["{", '{"type": "thing"}'])
def test_a_schema_that_is_none(cli: Cli, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert_refused(run(cli, "--json-schema", path, "hello"), GRAMMAR)


@pytest.mark.parametrize("option", ["--grammar", "--lark", "--json-schema"])
def test_a_grammar_file_that_cannot_be_read(cli: Cli, tmp_path: Path, option: str) -> None:
    missing = tmp_path / "missing"
    assert_refused(run(cli, option, missing, "hello"), USAGE, str(missing), "check the path")
    assert_refused(run(cli, option, tmp_path, "hello"), USAGE, "Is a directory")
    latin = tmp_path / "latin"
    latin.write_bytes(b'root ::= "\xe9"')
    assert_refused(run(cli, option, latin, "hello"), GRAMMAR, "not UTF-8")


def test_a_grammar_and_a_schema_at_once(cli: Cli, tmp_path: Path) -> None:
    ended = run(cli, "--grammar", tmp_path / "a", "--json-schema", tmp_path / "b", "hello")
    assert_refused(ended, USAGE, "exclude each other")


# The home


@pytest.fixture
def answer(cli: Cli) -> str:
    """What the quick model answers."""
    ended = run(cli, "hello")
    assert ended.returncode == 0
    return ended.stdout


def run_at(cli: Cli, home: Path) -> Ended:
    return cli.run("run", *cli.on_quick, "--max-tokens", "2", "hello", home=home)


def test_a_home_that_is_a_file_costs_the_memory_only(cli: Cli, tmp_path: Path, answer: str) -> None:
    home = tmp_path / "file"
    home.write_bytes(b"mine")
    ended = run_at(cli, home)
    assert (ended.returncode, ended.stdout) == (0, answer)
    assert ended.stderr.count("\n") == 1
    assert "nothing is remembered" in ended.stderr
    assert home.read_bytes() == b"mine"


def test_a_home_nobody_can_write_to_costs_the_memory_only(cli: Cli, answer: str) -> None:
    ended = run_at(cli, Path("/proc/edgespec"))
    assert (ended.returncode, ended.stdout) == (0, answer)
    assert ended.stderr.count("\n") == 1
    assert "nothing is remembered" in ended.stderr


def test_a_home_nobody_can_write_to_takes_no_models(cli: Cli) -> None:
    for command in (("run", "hello"), ("pull", "smollm2-135m")):
        ended = cli.run(*command, home=Path("/proc/edgespec"))
        assert_refused(ended, STORAGE, "/proc/edgespec", "EDGESPEC_HOME")


def test_a_garbage_database_is_replaced(cli: Cli, tmp_path: Path, answer: str) -> None:
    garbage = random.Random(2).randbytes(5000)
    (tmp_path / "edgespec.db").write_bytes(garbage)
    ended = run_at(cli, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, answer)
    assert ended.stderr.count("\n") == 1
    damaged = re.search(r"what can still be read of (\S+)", ended.stderr)
    assert damaged is not None
    assert (tmp_path / damaged[1]).read_bytes() == garbage
    again = run_at(cli, tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, answer, "")


def test_a_database_of_a_newer_version_is_left_alone(cli: Cli, tmp_path: Path, answer: str) -> None:
    assert cli.run("doctor", home=tmp_path).returncode == 0
    with sqlite3.connect(tmp_path / "edgespec.db") as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('edgespec', 'm999_unheard_of', '2031-01-01')"
        )
    connection.close()
    ended = run_at(cli, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, answer)
    assert ended.stderr.count("\n") == 1
    for words in ("newer EdgeSpec", "m999_unheard_of", "nothing is remembered"):
        assert words in ended.stderr
    assert_refused(cli.run("db", "stats", home=tmp_path), STORAGE, "m999_unheard_of")


def test_a_locked_database_never_fails_an_answer(cli: Cli, tmp_path: Path, answer: str) -> None:
    assert run_at(cli, tmp_path).returncode == 0
    connection = sqlite3.connect(tmp_path / "edgespec.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        ended = run_at(cli, tmp_path)
    finally:
        connection.close()
    assert (ended.returncode, ended.stdout) == (0, answer)
