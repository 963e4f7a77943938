"""Greedy answers of the target with its distribution at every token, eight turns side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from adaptation.prompts import TurnPrompt
from numpy.typing import NDArray

from edgespec.errors import NativeLibraryError
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.library import api
from edgespec.llama.model import Model
from edgespec.types import Message

NUM_TOKENS = 80
_NUM_SEQUENCES = 8
_MOST_PROMPT = 900
_CUT = 10.0
"""Tokens whose logit is so far below the best one are not recorded."""
_MOST_TOKENS = 256


@dataclass(slots=True)
class Answer:
    """One turn's answer; entry i of `ids` and `logprobs` is the distribution of token i."""

    tokens: list[int] = field(default_factory=list)
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    logprobs: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(slots=True)
class _Running:
    sequence: int
    num_cached: int
    answer: Answer
    last: int = 0


class AnswerRecorder:
    """Answers turns in batches and keeps each answer in a file of its own."""

    def __init__(self, model: Model, num_threads: int, folder: Path) -> None:
        self._model = model
        self._bridge = ModelBridge(model)
        self._folder = folder
        options = ContextOptions(
            num_context=_NUM_SEQUENCES * (_MOST_PROMPT + NUM_TOKENS),
            num_threads=num_threads,
            num_sequences=_NUM_SEQUENCES,
        )
        self._context = Context(model, options)
        self._batch = api.llama_batch_init(_NUM_SEQUENCES, 0, 1)

    def record(self, turns: Sequence[TurnPrompt], deadline: float) -> bool:
        """Answer what has no answer yet; False if `deadline` (monotonic) came before the end."""
        while True:
            ready = [
                index
                for index, turn in enumerate(turns)
                if not self._path(index).exists()
                and (turn.follows is None or self._path(turn.follows).exists())
            ]
            if not ready:
                return True
            if time.monotonic() > deadline:
                return False
            some = sorted(ready, key=lambda index: len(turns[index].text))[:_NUM_SEQUENCES]
            for index, answer in zip(some, self._answer(turns, some), strict=True):
                self._save(index, turns[index], answer)
            print(f"{len(ready) - len(some)} turns ready to be answered", flush=True)

    def messages(self, turns: Sequence[TurnPrompt], index: int) -> list[Message]:
        """The conversation up to a turn's question."""
        return messages(turns, index, self._folder)

    def _answer(self, turns: Sequence[TurnPrompt], some: Sequence[int]) -> list[Answer]:
        self._context.clear()
        all_running = []
        for sequence, index in enumerate(some):
            prompt = self._bridge.encode_chat(self.messages(turns, index))[-_MOST_PROMPT:]
            for start in range(0, len(prompt), self._context.options.num_batch):
                part = prompt[start : start + self._context.options.num_batch]
                self._context.decode(part, start, sequence=sequence)
            running = _Running(sequence, len(prompt), Answer())
            self._take(running, self._context.logits(0))
            all_running.append(running)
        while active := [running for running in all_running if self._goes_on(running)]:
            self._step(active)
        return [running.answer for running in all_running]

    def _goes_on(self, running: _Running) -> bool:
        is_short = len(running.answer.tokens) < NUM_TOKENS
        return is_short and not self._model.vocab.is_end(running.last)

    def _step(self, active: Sequence[_Running]) -> None:
        for row, running in enumerate(active):
            self._batch.token[row] = running.last
            self._batch.pos[row] = running.num_cached
            self._batch.n_seq_id[row] = 1
            self._batch.seq_id[row][0] = running.sequence
            self._batch.logits[row] = 1
        self._batch.n_tokens = len(active)
        if api.llama_decode(self._context.handle, self._batch) != 0:
            raise NativeLibraryError("llama_decode failed")
        for row, running in enumerate(active):
            running.num_cached += 1
            pointer = api.llama_get_logits_ith(self._context.handle, row)
            self._take(running, np.ctypeslib.as_array(pointer, (self._model.vocab.num_tokens,)))

    def _take(self, running: _Running, logits: NDArray[np.float32]) -> None:
        """Note the likeliest token and the distribution that it comes from."""
        best = int(np.argmax(logits))
        near = np.flatnonzero(logits > logits[best] - _CUT)
        near = near[np.argsort(-logits[near])][:_MOST_TOKENS]
        total = float(np.log(np.exp(logits - logits[best]).sum())) + float(logits[best])
        running.last = best
        running.answer.tokens.append(best)
        running.answer.ids.append(near.astype(np.int32))
        running.answer.logprobs.append((logits[near] - total).astype(np.float32))

    def _path(self, index: int) -> Path:
        return answer_path(self._folder, index)

    def _save(self, index: int, turn: TurnPrompt, answer: Answer) -> None:
        text = self._model.vocab.detokenize(
            [token for token in answer.tokens if not self._model.vocab.is_end(token)]
        )
        np.savez(
            self._path(index),
            kind=np.array(turn.kind),
            text=np.array(text.decode("utf-8", "ignore")),
            tokens=np.array(answer.tokens, dtype=np.int32),
            sizes=np.array([len(ids) for ids in answer.ids], dtype=np.int32),
            ids=np.concatenate(answer.ids),
            logprobs=np.concatenate(answer.logprobs),
        )


def answer_path(folder: Path, index: int) -> Path:
    """The file of one turn's answer."""
    return folder / f"answer-{index:03}.npz"


def load_answer(folder: Path, index: int) -> Answer:
    """Read one turn's answer."""
    with np.load(answer_path(folder, index)) as file:
        ends = np.cumsum(file["sizes"])[:-1]
        return Answer(
            file["tokens"].tolist(),
            np.split(file["ids"], ends),
            np.split(file["logprobs"], ends),
        )


def messages(turns: Sequence[TurnPrompt], index: int, folder: Path) -> list[Message]:
    """The conversation up to a turn's question, the answer before it included."""
    turn = turns[index]
    if turn.follows is None:
        return [Message("user", turn.text)]
    with np.load(answer_path(folder, turn.follows)) as file:
        said = str(file["text"])
    before = messages(turns, turn.follows, folder)
    return [*before, Message("assistant", said), Message("user", turn.text)]
