"""Models that cannot draft, or hardly: one clear line, and the answer is the target's anyhow."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import QUICK, Cli, Ended, assert_refused
from tiny_models import TinySpec, write_tiny_model, writer
from tiny_models.spec import Architecture, VocabularyKind
from tiny_models.vocabulary import Vocabulary, build_vocabulary

from edgespec import errors
from edgespec.errors import NativeLibraryError
from edgespec.llama.context import Context
from edgespec.planning.budget import Account
from edgespec.runtime.fit import DRAFTER_BATCH
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, Message, SamplingParams

USAGE = errors.UsageError.exit_code
MODEL_FILE = errors.ModelFileError.exit_code
UNKNOWN_MODEL = errors.UnknownModelError.exit_code

SMALL = TinySpec(num_layers=1, width=64, ffn_width=128, quantization="Q8_0", repetitive=True)
RECURRENT: tuple[Architecture, ...] = ("mamba", "lfm2")
PROMPT = ("--incognito", "--max-tokens", "24", "Tell me a story.")
NORMAL = 1


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli.of(tmp_path_factory)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[TinySpec], Path]:
    return lambda spec: write_tiny_model(tmp_path / "drafter.gguf", spec)


def run(cli: Cli, drafter: Path, *options: str, model: Path | None = None) -> Ended:
    on = ("--model", model, "--threads", "1") if model else cli.on_quick
    return cli.run("run", *on, "--drafter", drafter, "--no-trim", *options, *PROMPT)


def assert_drafts_the_same(cli: Cli, drafter: Path, model: Path | None = None) -> None:
    """Both answers are equal, and nothing is said of it."""
    on = ("--model", model, "--threads", "1") if model else cli.on_quick
    plain = cli.run("run", *on, "--no-speculation", "--json", *PROMPT).json()
    ended = run(cli, drafter, "--json", model=model)
    drafted = ended.json()
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["settings"]["drafter"] == f"context+grammar+{drafter.stem}"
    assert ended.stderr == ""


# Size


@pytest.mark.parametrize("trim", ["--trim", "--no-trim"])
def test_a_drafter_larger_than_the_target(
    cli: Cli, write: Callable[[TinySpec], Path], trim: str
) -> None:
    ended = run(cli, write(dataclasses.replace(QUICK, num_layers=4)), trim)
    assert_refused(ended, USAGE, "drafter.gguf is as large as quick.gguf, or larger", "smaller")


@pytest.mark.parametrize("trim", ["--trim", "--no-trim"])
def test_the_target_as_its_own_drafter(cli: Cli, tmp_path: Path, trim: str) -> None:
    ended = run(cli, cli.quick, trim)
    assert_refused(ended, USAGE, "quick.gguf is as large as quick.gguf", "a smaller drafter, or")
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(cli.quick, copy)
    assert_refused(run(cli, copy, trim), USAGE, "copy.gguf is as large as quick.gguf")


# Architecture


@pytest.mark.parametrize("trim", ["--trim", "--no-trim"])
@pytest.mark.parametrize("architecture", RECURRENT)
def test_a_recurrent_drafter(
    cli: Cli, write: Callable[[TinySpec], Path], architecture: Architecture, trim: str
) -> None:
    spec = TinySpec(architecture=architecture, width=64, ffn_width=128)
    ended = run(cli, write(spec), trim)
    assert_refused(ended, MODEL_FILE, f"({architecture}) is recurrent", "cannot serve as drafter")


@pytest.mark.parametrize("architecture", RECURRENT)
def test_a_recurrent_target_answers_undrafted(
    cli: Cli, tmp_path: Path, write: Callable[[TinySpec], Path], architecture: Architecture
) -> None:
    target = write_tiny_model(tmp_path / "target.gguf", TinySpec(architecture=architecture))
    plain = cli.run("run", "--model", target, "--threads", "1", "--drafter", "none", *PROMPT)
    assert (plain.returncode, plain.stderr) == (0, "")
    ended = run(cli, write(SMALL), model=target)
    assert (ended.returncode, ended.stdout) == (0, plain.stdout)
    assert ended.stderr == f"target ({architecture}) cannot forget tokens: it answers undrafted\n"


# Templates and vocabularies


def test_without_a_chat_template_of_its_own(cli: Cli, write: Callable[[TinySpec], Path]) -> None:
    bare = write(dataclasses.replace(SMALL, chat_template=False))
    assert_drafts_the_same(cli, bare)


def test_a_target_without_a_chat_template(
    cli: Cli, tmp_path: Path, write: Callable[[TinySpec], Path]
) -> None:
    spec = dataclasses.replace(QUICK, chat_template=False)
    target = write_tiny_model(tmp_path / "target.gguf", spec)
    assert_drafts_the_same(cli, write(SMALL), model=target)


def test_a_chat_template_that_does_not_parse(
    cli: Cli, write: Callable[[TinySpec], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(kind: VocabularyKind, num_vocab: int) -> Vocabulary:
        broken = "{% for message in %}"
        return dataclasses.replace(build_vocabulary(kind, num_vocab), chat_template=broken)

    monkeypatch.setattr(writer, "build_vocabulary", build)
    ended = run(cli, write(SMALL))
    assert_refused(ended, USAGE, "drafter.gguf: the model's chat template does not parse")


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[str], list[int]], None]) -> None:
    """Let models be written with other texts for their last ordinary tokens."""

    def build(kind: VocabularyKind, num_vocab: int) -> Vocabulary:
        vocabulary = build_vocabulary(kind, num_vocab)
        texts = list(vocabulary.texts)
        change(texts, [index for index, it in enumerate(vocabulary.types) if it == NORMAL][-20:])
        return dataclasses.replace(vocabulary, texts=tuple(texts))

    monkeypatch.setattr(writer, "build_vocabulary", build)


def empty(texts: list[str], which: list[int]) -> None:
    for index in which[::2]:
        texts[index] = ""


def repeat(texts: list[str], which: list[int]) -> None:
    texts[which[-1]] = texts[which[0]]


KINDS: tuple[VocabularyKind, ...] = ("bpe", "spm")


@pytest.mark.parametrize("kind", KINDS)
def test_empty_pieces_in_a_vocabulary(
    cli: Cli,
    tmp_path: Path,
    write: Callable[[TinySpec], Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: VocabularyKind,
) -> None:
    whole = write_tiny_model(tmp_path / "whole.gguf", SMALL)
    spoil(monkeypatch, empty)
    assert_drafts_the_same(cli, write(dataclasses.replace(SMALL, vocabulary=kind)))
    spec = dataclasses.replace(QUICK, vocabulary=kind)
    target = write_tiny_model(tmp_path / "target.gguf", spec)
    assert_drafts_the_same(cli, whole, model=target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_that_is_there_twice(
    cli: Cli,
    write: Callable[[TinySpec], Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: VocabularyKind,
) -> None:
    """llama.cpp aborts the process over it, so it must not get to see it."""
    spoil(monkeypatch, repeat)
    path = write(dataclasses.replace(SMALL, vocabulary=kind))
    words = (str(path), "twice in its vocabulary", "use another file")
    assert_refused(run(cli, path), MODEL_FILE, *words)
    assert_refused(cli.run("run", "--model", path, *PROMPT), MODEL_FILE, *words)
    assert_refused(cli.run("trim", "--threads", "1", path), MODEL_FILE, *words)


# Files


def test_a_drafter_that_is_cut_off(cli: Cli, write: Callable[[TinySpec], Path]) -> None:
    path = write(SMALL)
    path.write_bytes(path.read_bytes()[:-5000])
    for trim in ("--trim", "--no-trim"):
        assert_refused(run(cli, path, trim), MODEL_FILE, str(path), "truncated", "pull it again")


def test_a_drafter_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "gone.gguf"
    assert_refused(run(cli, path), MODEL_FILE, f"no file {path}", "check the path")


def test_the_chat_knows_drafters_by_name_too(cli: Cli) -> None:
    """What it was not given to load it cannot miss: a wrong name shows that it looks."""
    ended = cli.run("chat", *cli.on_quick, "--drafter", "oracle")
    assert_refused(ended, UNKNOWN_MODEL, "'oracle' is no drafter", "smollm2-135m")


# Failures while it drafts


def test_a_drafter_that_fails_within_an_answer(
    cli: Cli, tmp_path: Path, write: Callable[[TinySpec], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every command loads goes on with the same bytes, and one line tells of it."""
    paths = cli.remembered_in(tmp_path / "home")
    options = LoadRequest(
        drafter="drafter",
        drafter_path=write(SMALL),
        num_threads=1,
        trim=False,
        remember=False,  # else the first answer would draft the others
        learn=False,
    )
    lines: list[str] = []
    with load(options, cli.quick, paths, lines.append) as loaded:
        prompt = (Message("user", "Tell me a story."),)
        warm = SamplingParams(temperature=0.8, top_k=40, seed=11)
        request = CompletionRequest(prompt, warm, max_tokens=40)

        def ask(speculate: bool) -> Completion:
            *_, last = loaded.completer.answer(dataclasses.replace(request, speculate=speculate))
            assert last.completion is not None
            return last.completion

        plain = ask(speculate=False)
        decode, calls = Context.decode, itertools.count()

        def failing(context: Context, *args: object, **more: object) -> None:
            if context.options.num_batch == DRAFTER_BATCH and next(calls) > 0:
                raise NativeLibraryError("llama.cpp cannot compute", "run `edgespec doctor`")
            decode(context, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Context, "decode", failing)
        monkeypatch.setattr(Account, "allows", lambda *_quote: True)  # however busy the machine
        told = len(lines)
        answers = [ask(speculate=True), ask(speculate=True)]
    assert next(calls) == 2, "it failed once and was not asked again"
    assert all(answer.token_ids == plain.token_ids for answer in answers)
    assert all(answer.text == plain.text for answer in answers)
    (line,) = lines[told:]
    assert line.startswith("the drafter drafter failed and is left out from here on: llama.cpp")


def test_a_drafter_without_memory_for_its_context(
    cli: Cli, tmp_path: Path, write: Callable[[TinySpec], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named or not: the conversation goes on without it."""
    paths = cli.remembered_in(tmp_path / "home")
    options = LoadRequest(drafter="drafter", drafter_path=write(SMALL), num_threads=1, trim=False)
    opened = Context.__init__

    def refusing(context: Context, *args: object, **more: object) -> None:
        if more.get("beside") is not None:
            raise NativeLibraryError("llama.cpp cannot open a context", "ask for a smaller one")
        opened(context, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "__init__", refusing)
    lines: list[str] = []
    with load(options, cli.quick, paths, lines.append) as loaded:
        *_, last = loaded.completer.answer(CompletionRequest("Tell me.", max_tokens=8))
        assert last.completion is not None
        assert "drafter" not in loaded.completer.model.drafter
    assert lines[-1].startswith("drafter does not draft: llama.cpp cannot open a context")
