"""From what a user types to a model, and back."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import UnknownModelError
from edgespec.models.registry import (
    DEFAULT_DRAFTER,
    DEFAULT_TARGET,
    KNOWN_MODELS,
    HubFile,
)
from edgespec.models.resolve import LocalFile, download_stem, locate, resolve, stored_path
from edgespec.paths import Paths

LETTERS = string.ascii_letters + string.digits
NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,12}[A-Za-z0-9_])?", fullmatch=True)
FILE_PARTS = st.text(LETTERS + " ._-:@+é語", min_size=1, max_size=12).filter(
    lambda part: part not in {".", ".."}
)
HUB_FILES = st.builds(
    lambda owner, repo, folders, stem: HubFile(
        f"{owner}/{repo}", "/".join([*folders, f"{stem}.gguf"])
    ),
    NAMES,
    NAMES,
    st.lists(FILE_PARTS, max_size=2),
    FILE_PARTS,
)
PATHS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=10),
    min_size=1,
    max_size=4,
).map(lambda parts: Path(*parts))


def paths_below(folder: Path) -> Paths:
    return Paths(data=folder, cache=folder / "cache")


@given(HUB_FILES)
def test_a_hub_reference_survives_the_round_trip(file: HubFile) -> None:
    assert resolve(str(file)) == file


@given(PATHS, st.booleans())
def test_a_local_reference_survives_the_round_trip(path: Path, absolute: bool) -> None:
    reference = LocalFile(Path("/") / path if absolute else path)
    assert resolve(str(reference)) == reference


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_a_known_name_is_its_model(name: str) -> None:
    model = KNOWN_MODELS[name]
    assert resolve(name) is model
    assert str(model) == name


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_an_unknown_model(text: str) -> None:
    try:
        reference = resolve(text)
    except UnknownModelError as error:
        assert "\n" not in str(error)
        assert error.remedy
    else:
        assert resolve(str(reference)) == reference


@given(HUB_FILES, HUB_FILES)
def test_downloads_of_two_files_never_meet(one: HubFile, other: HubFile) -> None:
    assert (download_stem(one) == download_stem(other)) == (one == other)
    assert "/" not in download_stem(one)


@given(HUB_FILES)
def test_a_hub_file_is_stored_inside_the_folder(file: HubFile) -> None:
    folder = Path("/somewhere/models")
    path = stored_path(file, folder)
    assert os.path.normpath(path) == str(path)
    assert path.is_relative_to(folder / "hf")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("smollm2", "smollm2-135m"),
        ("SMOLLM2-135M", "smollm2-135m"),
        ("qwen2.5-coder-1.5", "qwen2.5-coder-1.5b"),
        ("gemma3-270m", "gemma-3-270m"),
    ],
)
def test_a_typing_error_is_answered_with_the_closest_name(typed: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"did you mean .*{meant}"):
        resolve(typed)


def test_a_word_like_nothing_known_is_answered_with_the_choices() -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve("zzzz")
    for name in KNOWN_MODELS:
        assert name in str(caught.value)
    assert caught.value.exit_code == 10


@pytest.mark.parametrize(
    "ref",
    [
        "hf:",
        "hf:acme",
        "hf:acme/tiny",
        "hf:acme/tiny:",
        "hf:acme/tiny:model.bin",
        "hf:acme:tiny.gguf",
        "hf:a/b/c:tiny.gguf",
        "hf:acme/tiny:../tiny.gguf",
        "hf:acme/tiny:/etc/tiny.gguf",
        "hf:acme/tiny:sub//tiny.gguf",
        "hf:acme/tiny:./tiny.gguf",
        "hf:acme/tiny:sub\\tiny.gguf",
        "hf:../tiny:tiny.gguf",
        "hf:acme/..:tiny.gguf",
        "hf:acme/tiny:ti\nny.gguf",
        "hf:acme/tiny:ti\0ny.gguf",
    ],
)
def test_a_malformed_hub_reference_is_refused(ref: str) -> None:
    with pytest.raises(UnknownModelError, match=r"write hf:OWNER/REPO:FILE\.gguf"):
        resolve(ref)


def test_a_hub_reference_without_its_prefix_is_recognized() -> None:
    with pytest.raises(UnknownModelError, match=r"for the Hub write hf:acme/tiny:tiny\.gguf"):
        resolve("acme/tiny:tiny.gguf")


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/models/x.gguf") == LocalFile(tmp_path / "models" / "x.gguf")
    with pytest.raises(UnknownModelError, match="names no home folder"):
        resolve("~nobody-of-this-name/x.gguf")


def test_a_bare_word_is_a_file_only_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError):
        resolve("weights")
    (tmp_path / "weights").write_bytes(b"GGUF")
    assert resolve("weights") == LocalFile(Path("weights"))


def test_a_known_name_wins_over_a_file_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_DRAFTER).write_bytes(b"GGUF")
    assert resolve(DEFAULT_DRAFTER) is KNOWN_MODELS[DEFAULT_DRAFTER]
    assert resolve(f"./{DEFAULT_DRAFTER}") == LocalFile(Path(DEFAULT_DRAFTER))


def test_locate_finds_what_is_on_disk_and_nothing_else(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    file = HubFile("acme/tiny", "sub/tiny.gguf")
    outside = tmp_path / "own.gguf"
    for ref in (DEFAULT_TARGET, str(file), str(outside)):
        assert locate(ref, paths) is None
    for path in (paths.models / f"{DEFAULT_TARGET}.gguf", stored_path(file, paths.models), outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")
    assert locate(DEFAULT_TARGET, paths) == paths.models / f"{DEFAULT_TARGET}.gguf"
    assert locate(str(file), paths) == paths.models / "hf" / "acme" / "tiny" / "sub" / "tiny.gguf"
    assert locate(str(outside), paths) == outside
    assert locate(DEFAULT_DRAFTER, paths) is None


def test_the_registry_is_complete_and_consistent() -> None:
    assert set(KNOWN_MODELS) == {
        "qwen2.5-coder-1.5b",
        "qwen2.5-coder-0.5b",
        "smollm2-135m",
        "gemma-3-270m",
    }
    assert "target" in KNOWN_MODELS[DEFAULT_TARGET].roles
    assert "drafter" in KNOWN_MODELS[DEFAULT_DRAFTER].roles
    for model in KNOWN_MODELS.values():
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.packages is not None
        assert len(set(model.packages.names)) == len(model.packages.names)
        assert resolve(str(model.hub)) == model.hub
        assert model.licence_url.startswith("https://")
    assert len({model.sha256 for model in KNOWN_MODELS.values()}) == len(KNOWN_MODELS)
    with_terms = [name for name, model in KNOWN_MODELS.items() if model.terms]
    assert with_terms == ["gemma-3-270m"]
