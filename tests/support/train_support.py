"""A pupil that needs no torch, lessons that can be learned, and LoRAs of random numbers."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_models.corpus import CORPUS

from edgespec.cache.database import open_database
from edgespec.cache.tokens.sequences import Recording, SequenceStore, VocabularyKey
from edgespec.gguf.file import GgufFile
from edgespec.learning.lessons import Answered, Course, Lesson, course_of
from edgespec.learning.lora import About, Lora, LowRank, write_lora
from edgespec.learning.training import Arrays, Judged
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.context import Context
from edgespec.llama.library import api
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.facts import file_fingerprint
from edgespec.vocab.tokenizer import ByteTokenizer

_LETTERS = 160

ABOUT = About("1" * 32, "2" * 32, "big", "small", "3" * 64, 40, 300, 900, 0.5, 0.6)


class BigramPupil:
    """Implements `Pupil`: a low-rank table of what follows each token, by gradient descent."""

    def __init__(self, num_tokens: int, rank: int = 4, rate: float = 0.5) -> None:
        random = np.random.default_rng(7)
        self._up = random.normal(size=(num_tokens, rank)).astype(np.float32) * 0.5
        self._down = random.normal(size=(rank, num_tokens)).astype(np.float32) * 0.5
        self._rate = rate
        self.num_studied = 0
        self.forget()

    def study(self, lesson: Lesson) -> float:
        before, wanted = _pairs(lesson)
        probs = self._probs(before)
        loss = -np.log(probs[np.arange(len(wanted)), wanted]).mean()
        probs[np.arange(len(wanted)), wanted] -= 1.0
        np.add.at(self._up_gradient, before, probs @ self._down.T / len(wanted))
        self._down_gradient += self._up[before].T @ probs / len(wanted)
        self.num_studied += 1
        return float(loss)

    def step(self) -> None:
        self._up = self._up - self._rate * self._up_gradient
        self._down = self._down - self._rate * self._down_gradient
        self.forget()

    def forget(self) -> None:
        self._up_gradient = np.zeros_like(self._up)
        self._down_gradient = np.zeros_like(self._down)

    def judge(self, lessons: Sequence[Lesson]) -> Judged:
        num_tokens, num_right, total = 0, 0, 0.0
        for lesson in lessons:
            before, wanted = _pairs(lesson)
            probs = self._probs(before)
            num_right += int((probs.argmax(axis=1) == wanted).sum())
            total -= float(np.log(probs[np.arange(len(wanted)), wanted]).sum())
            num_tokens += len(wanted)
        return Judged(num_tokens, num_right, total / num_tokens)

    def state(self) -> Arrays:
        return {"up": self._up.copy(), "down": self._down.copy()}

    def restore(self, arrays: Arrays) -> None:
        if arrays["up"].shape != self._up.shape:
            raise ValueError("up is of another form")
        self._up, self._down = arrays["up"].copy(), arrays["down"].copy()

    def adopt(self, lora: Lora) -> None:
        change = lora.changes["table.weight"]
        self.restore({"up": change.up, "down": change.down})

    def lora(self) -> Lora:
        return Lora(4.0, {"table.weight": LowRank(self._down.copy(), self._up.copy())})

    def _probs(self, before: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = self._up[before] @ self._down
        weights: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return weights


def ring_course(num_answers: int = 32, num_tokens: int = 12, noise: float = 0.1) -> Course:
    """Answers in which a token is followed by the next one, nearly always."""
    random = np.random.default_rng(3)
    answers = []
    for _ in range(num_answers):
        tokens = [int(random.integers(num_tokens))]
        for _ in range(40):
            strays = random.random() < noise
            tokens.append(
                int(random.integers(num_tokens)) if strays else (tokens[-1] + 1) % num_tokens
            )
        answers.append(Answered(tokens[:5], tokens[5:]))
    return course_of(answers)


def random_lora(
    shapes: Mapping[str, tuple[int, int]], rank: int = 4, size: float = 0.1, seed: int = 0
) -> Lora:
    """Changes of matrices of `shapes`, (columns out, columns in), by numbers of about `size`."""
    random = np.random.default_rng(seed)
    changes = {}
    for name, (num_out, num_in) in shapes.items():
        down = random.normal(size=(rank, num_in)) * (size / rank) ** 0.5
        up = random.normal(size=(num_out, rank)) * (size / rank) ** 0.5
        # As float16, in which files keep them.
        changes[name] = LowRank(*(x.astype(np.float16).astype(np.float32) for x in (down, up)))
    return Lora(float(rank), changes)


def put_training(store: TrainingStore, target: str, whole: Path, seed: int = 0) -> Path:
    """Put a LoRA of random numbers in place, as training does."""
    name = "blk.0.ffn_down.weight"
    shape = tuple(int(size) for size in reversed(GgufFile(whole).tensors[name].shape))
    lora = random_lora({name: (shape[0], shape[1])}, size=2.0, seed=seed)
    about = dataclasses.replace(ABOUT, target=target, drafter=file_fingerprint(whole))
    store.ensure()
    path = store.lora(about.target, about.drafter)
    write_lora(lora, about, GgufFile(whole).architecture, path)
    return path


@contextlib.contextmanager
def lora_beside(context: Context, lora: Path) -> Iterator[None]:
    """Have llama.cpp itself compute with a LoRA beside the matrices, as others do who get one."""
    handle = api.llama_adapter_lora_init(context.model.handle, os.fsencode(lora))
    assert handle, "llama.cpp refuses it"
    adapters = (ctypes.c_void_p * 1)(ctypes.cast(handle, ctypes.c_void_p).value)
    pointer = ctypes.cast(adapters, ctypes.POINTER(api.llama_adapter_lora_p_ctypes))
    scales = (ctypes.c_float * 1)(1.0)
    assert api.llama_set_adapters_lora(context._handle, pointer, 1, scales) == 0
    try:
        yield
    finally:
        assert api.llama_set_adapters_lora(context._handle, pointer, 0, scales) == 0
        api.llama_adapter_lora_free(handle)


def _pairs(lesson: Lesson) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokens = np.array(lesson.tokens)
    return tokens[lesson.first - 1 : -1], tokens[lesson.first :]


def record_answers(home: Path, model: Path, num_answers: int) -> None:
    """As if a target had read from the corpus, beginning anywhere, again and again."""
    text = CORPUS.split("Der Fluss")[0]
    with (
        Model(model, ModelOptions(vocabulary_only=True)) as target,
        open_database(home / "edgespec.db") as database,
    ):
        tokenizer = ByteTokenizer(target.vocab)
        key = VocabularyKey(tokenizer.fingerprint, target.vocab.num_tokens)
        store = SequenceStore(database.connection)
        for number in range(num_answers):
            start = number * 97 % (len(text) - 2 * _LETTERS)
            parts = text[start : start + 20], text[start + 20 : start + _LETTERS]
            context, answer = (tokenizer.encode(part.encode()).tokens for part in parts)
            store.record(store.scope(key, "model"), Recording(answer, context))
