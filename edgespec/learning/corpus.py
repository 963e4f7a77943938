"""What a target said to prompts of our own, and what it knew at each token: drafters learn from it.

    FOLDER/<the target file's fingerprint>/00000.answers    some answers a file, sealed
                                           00001.answers

For each token that was said a file holds the likeliest tokens with their log-probabilities and, if
asked for, the final hidden state that they were read off, as eight-bit numbers with a scale. A file
that cannot be read is left out: its answers are asked for anew.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import StorageError
from edgespec.files.sealed import read_about, read_sealed, write_sealed
from edgespec.paths import ensure_folder
from edgespec.reports import Report, human_bytes
from edgespec.types import Message

NUM_TOP = 16
"""Tokens of each distribution that are kept."""

NO_TOKEN = -1
"""Stands where fewer tokens than NUM_TOP are likely at all."""

_MAGIC = b"edgespec corpus 1\n"
_END = ".answers"
_MOST_BYTES = 1 << 30
_REMEDY = "`edgespec learn corpus` asks for its answers anew"
_NEAR = 20.0
"""Tokens further below the likeliest, in nats, add nothing to a sum of probabilities."""
_LARGEST = 127


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """The likeliest tokens at n places, the likeliest first; all of shape (n, NUM_TOP)."""

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Final hidden states of n places: values (n, width) of -127 to 127, times scales (n,).

    A scale of 0 means that the state is not known.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float16]

    def as_floats(self) -> NDArray[np.float32]:
        """The states, (n, width)."""
        return self.values.astype(np.float32) * self.scales[:, None].astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One answer: place `i` of `top` and `states` is what the target knew before token `i`.

    `key` and `turn` name the prompt (`edgespec.learning.prompts`); `messages` are what was asked,
    `text` is what was answered.
    """

    key: str
    turn: int
    kind: str
    temperature: float
    messages: tuple[Message, ...]
    text: str
    tokens: NDArray[np.int32]
    top: Top
    states: States | None

    @property
    def place(self) -> tuple[str, int]:
        """Names the prompt."""
        return self.key, self.turn


class Corpus:
    """The answers of one target's file."""

    def __init__(self, folder: Path, target: str, name: str = "") -> None:
        """`folder` is that of all corpora; `target` the fingerprint of the target's file.

        Its `name` is for people, of what is appended.
        """
        self.folder = folder / target[:16]
        self._target = target
        self._name = name

    def known(self, report: Report) -> dict[tuple[str, int], int]:
        """The number of tokens of each answer that is kept, by its place.

        What cannot be read is deleted, with one line. Raises StorageError where that cannot be.
        """
        found: dict[tuple[str, int], int] = {}
        for path in self._files():
            try:
                found |= {(key, turn): count for key, turn, count in self._about(path)}
            except StorageError as error:
                report(str(error))
                _delete(path)
        return found

    def append(self, answers: Sequence[Said]) -> None:
        """Keep answers, all or none; raises StorageError."""
        ensure_folder(self.folder)
        last = max((int(path.stem) for path in self._files()), default=-1)
        about = {
            "target": self._target,
            "name": self._name,
            "answers": [(*each.place, len(each.tokens)) for each in answers],
        }
        path = self.folder / f"{last + 1:05d}{_END}"
        write_sealed(path, _MAGIC, about, _arrays(answers))

    def read(self, report: Report) -> Iterator[Said]:
        """All answers, a file at a time; what cannot be read is left out with one line."""
        for path in self._files():
            try:
                about, arrays = read_sealed(path, _MAGIC, _MOST_BYTES, _REMEDY)
                answers = list(_answers(about["answers"], arrays))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                report(f"{path} is damaged ({error}): {_REMEDY}")
            except StorageError as error:
                report(str(error))
            else:
                yield from answers

    @property
    def num_bytes(self) -> int:
        """What it takes on disk."""
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> list[Path]:
        return _files(self.folder)

    def _about(self, path: Path) -> list[tuple[str, int, int]]:
        """Places and lengths of a file's answers; raises StorageError."""
        about = read_about(path, _MAGIC, _REMEDY)
        if about.get("target") != self._target:
            raise StorageError(f"{path} is of another target file", _REMEDY)
        try:
            return [(str(key), int(turn), int(count)) for key, turn, count in about["answers"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error})", _REMEDY) from error


@dataclass(frozen=True, slots=True)
class CorpusSize:
    """How much one target answered; `name` is its file's."""

    name: str
    num_answers: int
    num_tokens: int
    num_bytes: int

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.name} answered {self.num_answers:,} prompts: {self.num_tokens:,} tokens,"
            f" {human_bytes(self.num_bytes)}"
        )


def corpus_sizes(folder: Path) -> list[CorpusSize]:
    """Of each target's corpus in the folder of all; files that cannot be read count as bytes."""
    sizes = []
    for each in sorted(folder.glob("*/")):
        size = CorpusSize(each.name, 0, 0, 0)
        for path in _files(each):
            name, counts = size.name, []
            with contextlib.suppress(StorageError, KeyError, TypeError, ValueError):
                about = read_about(path, _MAGIC, _REMEDY)
                name, counts = str(about["name"]), [int(each[2]) for each in about["answers"]]
            size = CorpusSize(
                name,
                size.num_answers + len(counts),
                size.num_tokens + sum(counts),
                size.num_bytes + path.stat().st_size,
            )
        if size.num_bytes:
            sizes.append(size)
    return sizes


def delete_corpora(folder: Path) -> None:
    """Forget what all targets answered; raises StorageError."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _undeleted(folder, error) from error


def top_of(logits: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    """The NUM_TOP likeliest tokens of one distribution, the likeliest first, and log-probabilities.

    `logits` (num_vocab,); of equal ones the lower token comes first.
    """
    most = logits.max()
    near = np.flatnonzero(logits > most - _NEAR)
    values = logits[near]
    total = np.log(np.exp(values - most, dtype=np.float32).sum())
    if len(near) > NUM_TOP:  # a whole sort of them would take ten times as long
        likely = values >= np.partition(values, -NUM_TOP)[-NUM_TOP]
        near, values = near[likely], values[likely]
    order = np.argsort(-values, kind="stable")[:NUM_TOP]
    tokens = np.full(NUM_TOP, NO_TOKEN, np.int32)
    logprobs = np.full(NUM_TOP, -np.inf, np.float16)
    tokens[: len(order)] = near[order]
    logprobs[: len(order)] = values[order] - most - total
    return tokens, logprobs


def packed(state: NDArray[np.float32]) -> tuple[NDArray[np.int8], np.float16]:
    """A hidden state (width,) in eight bits, and what a step of them is worth."""
    scale = np.float16(np.abs(state).max() / _LARGEST)
    if not scale > 0:
        return np.zeros(len(state), np.int8), np.float16(0)
    steps = np.rint(state / np.float32(scale)).clip(-_LARGEST, _LARGEST)
    return steps.astype(np.int8), scale


def _arrays(answers: Sequence[Said]) -> dict[str, NDArray[Any]]:
    """Answers as arrays of all their tokens; what was asked and said as one text."""
    told = [
        {
            "kind": each.kind,
            "temperature": each.temperature,
            "messages": [(message.role, message.content) for message in each.messages],
            "text": each.text,
        }
        for each in answers
    ]
    arrays: dict[str, NDArray[Any]] = {
        "told": np.frombuffer(json.dumps(told).encode(), np.uint8),
        "tokens": np.concatenate([each.tokens for each in answers]),
        "top": np.concatenate([each.top.tokens for each in answers]),
        "logprobs": np.concatenate([each.top.logprobs for each in answers]),
    }
    states = [each.states for each in answers if each.states is not None]
    if len(states) == len(answers):
        arrays["states"] = np.concatenate([each.values for each in states])
        arrays["scales"] = np.concatenate([each.scales for each in states])
    return arrays


def _answers(places: Sequence[Any], arrays: dict[str, NDArray[Any]]) -> Iterator[Said]:
    """What `_arrays` made arrays of; `places` are keys, turns and numbers of tokens."""
    told = json.loads(arrays["told"].tobytes())
    ends = list(itertools.accumulate(int(count) for _key, _turn, count in places))
    if len(told) != len(places) or ends[-1:] != [len(arrays["tokens"])]:
        raise ValueError("its answers are not of the length that is told")
    for (key, turn, count), end, about in zip(places, ends, told, strict=True):
        part = slice(end - count, end)
        states = None
        if "states" in arrays:
            states = States(arrays["states"][part], arrays["scales"][part])
        yield Said(
            str(key),
            int(turn),
            str(about["kind"]),
            float(about["temperature"]),
            tuple(Message(role, content) for role, content in about["messages"]),
            str(about["text"]),
            arrays["tokens"][part],
            Top(arrays["top"][part], arrays["logprobs"][part]),
            states,
        )


def _files(folder: Path) -> list[Path]:
    """Those of one corpus, first to last."""
    return sorted(path for path in folder.glob(f"*{_END}") if path.stem.isdecimal())


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _undeleted(path, error) from error


def _undeleted(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot delete {path}: {error.strerror or error}", "delete it by hand")
