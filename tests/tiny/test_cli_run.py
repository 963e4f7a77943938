"""`edgespec run` as people and scripts use it: the answer on stdout, the same however drafted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMMAND, PATIENCE_S, Cli, Ended
from tiny_models import TinySpec, write_tiny_model

PROMPT = "Please write a short list of things to do."


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture(scope="module")
def forty(cli: Cli) -> dict[str, Any]:
    """An answer of forty tokens."""
    return cli.answer("--max-tokens", "40", PROMPT)


def assert_quiet(ended: Ended) -> None:
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_the_answer_is_all_there_is_on_stdout(cli: Cli, forty: dict[str, Any]) -> None:
    ended = cli.run("run", *cli.on_quick, "--max-tokens", "40", PROMPT)
    assert_quiet(ended)
    assert ended.stdout == forty["text"] + "\n"


def test_json_has_the_promised_fields(cli: Cli, forty: dict[str, Any]) -> None:
    assert set(forty) == {
        "text",
        "token_ids",
        "finish_reason",
        "timings",
        "stats",
        "settings",
        "exactness",
    }
    assert isinstance(forty["text"], str)
    assert forty["text"]
    assert all(type(token) is int for token in forty["token_ids"])
    assert forty["finish_reason"] == "length"
    assert forty["exactness"] in ("identical", "near-ties")
    times = forty["timings"]
    promised = ("prompt_ms", "decode_ms", "time_to_first_token_ms", "decode_tokens_per_second")
    assert all(type(times[name]) is float and times[name] > 0 for name in promised)
    assert times["prompt_ms"] <= times["time_to_first_token_ms"]
    seconds = times["decode_ms"] / 1e3
    assert times["decode_tokens_per_second"] == pytest.approx(39 / seconds, rel=1e-3)
    assert forty["settings"]["model"] == str(cli.quick)
    assert forty["settings"]["max_tokens"] == 40
    assert forty["settings"]["speculation"] is True


def test_the_counts_agree_with_each_other(forty: dict[str, Any]) -> None:
    stats = forty["stats"]
    passes, proposed, accepted = stats["target_passes"], stats["proposed"], stats["accepted"]
    assert len(forty["token_ids"]) == 40
    assert accepted <= proposed  # whether a draft pays on a busy machine is not known here
    # A pass emits what it accepts and one token of the target's own.
    assert passes + accepted == 40
    assert stats["acceptance_rate"] == pytest.approx(accepted / max(proposed, 1), abs=1e-4)
    assert stats["block_efficiency"] == pytest.approx(40 / passes, abs=1e-4)
    counts = stats["by_drafter"]
    assert set(counts) <= {"context", "database", "grammar"}
    for name, total in (("proposed", proposed), ("accepted", accepted)):
        assert sum(count[name] for count in counts.values()) == total


def test_without_a_drafter_nothing_is_proposed(cli: Cli, forty: dict[str, Any]) -> None:
    for option in (["--no-speculation"], ["--drafter", "none"]):
        answer = cli.answer("--max-tokens", "12", *option, PROMPT)
        assert answer["token_ids"] == forty["token_ids"][:12]
        assert answer["stats"] == {
            "target_passes": 12,
            "proposed": 0,
            "accepted": 0,
            "acceptance_rate": 0.0,
            "block_efficiency": 1.0,
            "by_drafter": {},
        }


GRAMMAR = 'root ::= word (", " word){15}\nword ::= "yes" | "no" | "perhaps"\n'
SCHEMA = {
    "type": "object",
    "properties": {
        "done": {"type": "boolean"},
        "sizes": {
            "type": "array",
            "items": {"enum": ["small", "large"]},
            "minItems": 6,
            "maxItems": 6,
        },
    },
    "required": ["done", "sizes"],
}


def settings_to_compare(folder: Path) -> dict[str, list[str]]:
    grammar, schema = folder / "answer.gbnf", folder / "answer.json"
    grammar.write_text(GRAMMAR)
    schema.write_text(json.dumps(SCHEMA))
    warm = ["--temperature", "0.8", "--seed", "7"]
    return {
        "greedy": [],
        "penalties": [*warm, "--repeat-penalty", "1.2", "--frequency-penalty", "0.3"],
        "greedy penalties": ["--presence-penalty", "0.5", "--dry-multiplier", "0.8"],
        "samplers": [*warm, "--top-k", "20", "--typical-p", "0.9", "--min-p", "0"],
        "grammar": ["--grammar", str(grammar)],
        "schema": [*warm, "--json-schema", str(schema)],
    }


@pytest.mark.parametrize("name", ["greedy", "penalties", "greedy penalties", "samplers", "schema"])
def test_speculation_changes_nothing(cli: Cli, tmp_path: Path, name: str) -> None:
    options = ["--max-tokens", "96", *settings_to_compare(tmp_path)[name], PROMPT]
    drafted = cli.answer(*options)
    plain = cli.answer("--no-speculation", *options)
    assert drafted["stats"]["proposed"] > 0
    assert plain["stats"]["proposed"] == 0
    for field in ("token_ids", "text", "finish_reason"):
        assert drafted[field] == plain[field]


def test_answers_repeat_with_their_seed_and_differ_with_another(cli: Cli) -> None:
    def draw(seed: str) -> list[int]:
        options = ("--temperature", "2", "--top-k", "0", "--min-p", "0", "--top-p", "1")
        answer = cli.answer("--max-tokens", "24", *options, "--seed", seed, PROMPT)
        return list(answer["token_ids"])

    assert draw("3") == draw("3") != draw("4")


def test_a_grammar_and_a_schema_shape_the_answer(cli: Cli, tmp_path: Path) -> None:
    options = settings_to_compare(tmp_path)
    words = cli.answer(*options["grammar"], PROMPT)["text"].split(", ")
    assert len(words) == 16
    assert set(words) <= {"yes", "no", "perhaps"}
    answer = cli.answer(*options["schema"], PROMPT)
    assert answer["finish_reason"] == "stop"
    value = json.loads(answer["text"])
    assert len(value["sizes"]) == 6
    assert set(value["sizes"]) <= {"small", "large"}
    assert isinstance(value["done"], bool)


def test_a_stop_string_ends_the_answer_before_it(cli: Cli, forty: dict[str, Any]) -> None:
    whole = forty["text"]
    stop = whole[len(whole) // 2 :][:4]
    never = cli.answer("--max-tokens", "40", "--stop", "~never~", "--stop", "", PROMPT)
    assert never["text"] == whole
    answer = cli.answer("--max-tokens", "40", "--stop", stop, PROMPT)
    assert answer["text"] == whole[: whole.index(stop)]
    assert answer["finish_reason"] == "stop"
    assert answer["token_ids"] == forty["token_ids"][: len(answer["token_ids"])]
    plain = cli.answer("--max-tokens", "40", "--stop", stop, "--no-speculation", PROMPT)
    assert plain["token_ids"] == answer["token_ids"]


def test_what_is_piped_in_follows_the_prompt(cli: Cli) -> None:
    piped = cli.answer("--max-tokens", "8", "Summarize this.", stdin="Größe: 三\n".encode())
    written = cli.answer("--max-tokens", "8", "Summarize this.\n\nGröße: 三\n")
    assert piped["token_ids"] == written["token_ids"]
    assert piped["timings"]["prompt_tokens"] == written["timings"]["prompt_tokens"]
    alone = cli.answer("--max-tokens", "8", stdin=b"Summarize this.")
    blank = cli.answer("--max-tokens", "8", "Summarize this.", stdin=b" \n\n")
    assert alone["token_ids"] == blank["token_ids"], "blank input adds nothing"


def num_prompt_tokens(answer: dict[str, Any]) -> int:
    return int(answer["timings"]["prompt_tokens"])


def test_a_system_message_and_the_raw_prompt_are_what_the_model_reads(cli: Cli) -> None:
    usual = cli.answer("--max-tokens", "4", "Hello")
    system = cli.answer("--max-tokens", "4", "--system", "Be brief.", "Hello")
    raw = cli.answer("--max-tokens", "4", "--raw", "Hello")
    assert num_prompt_tokens(raw) < num_prompt_tokens(usual) < num_prompt_tokens(system)
    # The template of the tiny models is ChatML, so it can be written by hand.
    by_hand = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    written = cli.answer("--max-tokens", "4", "--raw", by_hand)
    assert num_prompt_tokens(written) == num_prompt_tokens(system)
    assert written["token_ids"] == system["token_ids"]


def test_one_token_is_an_answer(cli: Cli, forty: dict[str, Any]) -> None:
    answer = cli.answer("--max-tokens", "1", PROMPT)
    assert answer["token_ids"] == forty["token_ids"][:1]
    assert answer["finish_reason"] == "length"
    assert answer["timings"]["decode_tokens_per_second"] == 0.0
    assert answer["stats"]["target_passes"] == 1


def test_without_a_limit_the_answer_may_fill_the_context(cli: Cli) -> None:
    answer = cli.answer("--context", "128", PROMPT)
    assert answer["settings"]["max_tokens"] is None
    room = answer["settings"]["context"] - num_prompt_tokens(answer)
    if answer["finish_reason"] == "length":
        assert len(answer["token_ids"]) == room
    else:
        assert len(answer["token_ids"]) <= room


def test_a_model_without_attention_to_roll_back_decodes_plainly(cli: Cli, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "mamba.gguf", TinySpec(architecture="mamba"))
    ended = cli.run("run", "--model", path, "--threads", "1", "--json", "--max-tokens", "8", PROMPT)
    answer = ended.json()
    assert answer["settings"]["drafter"] == "none"
    assert answer["stats"]["proposed"] == 0
    assert len(answer["token_ids"]) <= 8


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_output_is_utf8_whatever_the_locale(
    cli: Cli, tmp_path: Path, locale: dict[str, str]
) -> None:
    grammar = tmp_path / "wide.gbnf"
    grammar.write_text('root ::= "grün, 三, 🙂"\n', encoding="utf-8")
    options = (*cli.on_quick, "--grammar", grammar)
    ended = cli.run("run", *options, PROMPT, environment=locale)
    assert_quiet(ended)
    assert ended.stdout == "grün, 三, 🙂\n"
    assert (
        cli.run("run", *options, "--json", PROMPT, environment=locale).json()["text"]
        == "grün, 三, 🙂"
    )


def test_a_path_that_is_not_utf8_still_gives_json(cli: Cli, tmp_path: Path) -> None:
    odd = tmp_path / "m\udcff.gguf"
    odd.write_bytes(cli.quick.read_bytes())
    answer = cli.run("run", "--model", odd, "--json", "--max-tokens", "2", PROMPT).json()
    assert answer["settings"]["model"] == str(odd)


def piped(cli: Cli, reader: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status and stderr of a `run` whose output goes to `reader`, and what that printed."""
    words = " ".join(["run", *map(str, cli.on_quick), *arguments])
    script = f"{{ {COMMAND} {words} hello; echo $? >&3; }} | {reader}"
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&2; {{ {script}; }} 2>&1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=cli.environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    return int(done.stderr), done.stdout.decode(), done.stderr.decode()


def test_a_reader_that_leaves_early_is_no_error_to_tell(cli: Cli) -> None:
    status, printed, _ = piped(cli, "head -c 1", "--max-tokens", "1500")
    assert len(printed.encode("utf-8", "surrogateescape")) == 1
    assert status == 1


def test_a_reader_that_never_reads(cli: Cli) -> None:
    status, printed, _ = piped(cli, "true", "--json", "--max-tokens", "8")
    assert printed == ""
    assert status in (0, 1)  # the object may fit into the pipe before the reader has left


def short(cli: Cli) -> tuple[str | Path, ...]:
    return ("run", *cli.on_quick, "--max-tokens", "8", "hello")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_full_disk_under_the_output(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli.redirected(">/dev/full", *short(cli), *arguments)
    assert ended.returncode == 9
    assert ended.stderr.splitlines() == [
        "edgespec: cannot write the output: No space left on device; free space there"
    ]


def test_closed_streams(cli: Cli) -> None:
    usual = cli.redirected("", *short(cli))
    assert usual.returncode == 0
    assert usual.stdout
    for redirection in ("<&-", "2>&-"):
        assert cli.redirected(redirection, *short(cli)) == usual
    assert cli.redirected(">&-", *short(cli)) == Ended(0, "", "")
