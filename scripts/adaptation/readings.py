"""What a drafter says at every token of the target's answers, teacher-forced, kept in files.

A drafter reads each conversation in its own template and the answer in its own tokens. Kept of each
token of the answer: hidden state and logits before it, and where it stands in the target's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adaptation.answers import load_answer, messages
from adaptation.prompts import TurnPrompt
from numpy.typing import NDArray

from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.trim import read_trim_info
from edgespec.llama.bridge import ModelBridge
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.vocab.tokenizer import ByteTokenizer

_BATCH = 128
_NUM_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class DrafterText:
    """An answer in drafter tokens; `starts[i]` is the target token that begins where token i does.

    -1 where none does.
    """

    tokens: tuple[int, ...]
    starts: tuple[int, ...]


class DrafterRecorder:
    """Reads answers with one drafter, trimmed or whole."""

    def __init__(self, running: Path, whole: Path, target: Model, num_threads: int) -> None:
        info = read_trim_info(running)
        self._model = Model(running, ModelOptions())
        self._spoken = Model(whole, ModelOptions(vocabulary_only=True))
        self.kept = np.arange(self._spoken.vocab.num_tokens) if info is None else info.kept
        self._table = EmbeddingTable(whole)
        self._target = ByteTokenizer(target.vocab)
        self._vocab = ByteTokenizer(self._spoken.vocab)
        self._bridge = ModelBridge(self._spoken)
        self._context = Context(
            self._model,
            ContextOptions(_NUM_CONTEXT, num_threads, _BATCH, hidden_states=True),
        )

    def record(self, turns: Sequence[TurnPrompt], index: int, folder: Path, name: str) -> None:
        """Read one turn's answer and keep what was found."""
        path = reading_path(folder, name, index)
        if path.exists():
            return
        text = self._text(load_answer(folder, index).tokens)
        prompt = self._bridge.encode_chat(messages(turns, index, folder))
        hidden, logits = self._read(prompt[-(_NUM_CONTEXT - 256) :], text.tokens)
        np.savez(path, tokens=text.tokens, starts=text.starts, hidden=hidden, logits=logits)

    def direct_rows(self) -> NDArray[np.int32]:
        """For each row of the head the target's token of the same bytes, -1 where there is none."""
        by_piece = {self._target.piece(t): t for t in reversed(range(len(self._target.table)))}
        by_piece.pop(b"", None)
        rows = [by_piece.get(self._vocab.piece(int(token)), -1) for token in self.kept]
        return np.array(rows, dtype=np.int32)

    def _text(self, tokens: Sequence[int]) -> DrafterText:
        ends = np.cumsum([len(self._target.piece(token)) for token in tokens]).tolist()
        starts = {start: place for place, start in reversed(list(enumerate([0, *ends[:-1]])))}
        encoded = self._vocab.encode(b"".join(map(self._target.piece, tokens)))
        said = list(encoded.tokens)
        places = [starts.get(start, -1) for start in [0, *encoded.ends[:-1]]][: len(said)]
        end = self._target.specials.counterpart(tokens[-1], self._vocab.specials)
        if end is not None:
            said.append(end)
            places.append(len(tokens) - 1)
        return DrafterText(tuple(said), tuple(places))

    def _read(
        self, prompt: Sequence[int], tokens: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        self._context.clear()
        all_tokens = [*prompt, *tokens[:-1]]
        hidden, logits = [], []
        for start in range(0, len(all_tokens), _BATCH):
            part = all_tokens[start : start + _BATCH]
            num_outputs = min(len(part), max(start + len(part) - len(prompt) + 1, 0))
            self._context.decode(self._table.rows(part), start, num_outputs=max(num_outputs, 1))
            for row in range(num_outputs):
                hidden.append(self._context.hidden_state(row).copy())
                logits.append(self._context.logits(row).astype(np.float16))
        return np.stack(hidden), np.stack(logits)


def reading_path(folder: Path, name: str, index: int) -> Path:
    """The file of what a drafter said of one turn's answer."""
    return folder / f"{name}-{index:03}.npz"
