"""The input embeddings and the head of a whole model, read row by row from its file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import quants
from numpy.typing import NDArray

from edgespec.errors import ModelFileError
from edgespec.gguf.file import EMBEDDINGS, HEAD, GgufFile

_SCALED = frozenset({"gemma3", "gemma4"})
"""Architectures that multiply the embeddings of ids, but not embeddings fed as such, by
sqrt(num_embedding): `ubatch.token ? sqrtf(n_embd) : 1` in llama.cpp's src/models/gemma3.cpp.
Gemma 1 and 2 scale both, so their rows are fed as they are."""

_NUM_CACHED = 8192
"""Rows kept dequantized: 20 MB at a width of 640."""


class EmbeddingTable:
    """Rows of `token_embd.weight` as llama.cpp would have looked them up; memory-mapped.

    A row is dequantized when it is first asked for, and the latest few thousand are kept.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the whole model; raises ModelFileError if it has no such table."""
        file = GgufFile(path)
        self._table = _Table(file, EMBEDDINGS, "embeddings")
        self.num_embedding, self.num_tokens = self._table.num_embedding, self._table.num_tokens
        scale = self.num_embedding**0.5 if file.architecture in _SCALED else 1.0
        self._scale = np.float32(scale)
        self._cached: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Embeddings of `tokens`, to be fed instead of the ids: (num_tokens, num_embedding).

        Raises ValueError for an id outside the vocabulary.
        """
        cached = self._cached
        missing = [token for token in dict.fromkeys(tokens) if token not in cached]
        if missing:
            if min(missing) < 0 or max(missing) >= self.num_tokens:
                raise ValueError(f"no token {missing} among {self.num_tokens}")
            new = dict(zip(missing, self._dequantized(missing), strict=True))
        else:
            new = {}
        result = np.empty((len(tokens), self.num_embedding), dtype=np.float32)
        for index, token in enumerate(tokens):
            if token in new:
                result[index] = new[token]
            else:
                result[index] = cached[token]
                cached.move_to_end(token)
        self._remember(new)
        return result

    def _remember(self, rows: dict[int, NDArray[np.float32]]) -> None:
        for token, row in rows.items():
            self._cached[token] = row.copy()  # a view would keep the whole of a long prompt alive
        while len(self._cached) > _NUM_CACHED:
            self._cached.popitem(last=False)

    def _dequantized(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self._table.rows(tokens) * self._scale


class HeadTable:
    """Rows of a whole model's head: times a final hidden state they give logits; memory-mapped."""

    def __init__(self, path: Path) -> None:
        """`path` is the whole model; raises ModelFileError if it has no such table."""
        file = GgufFile(path)
        self._table = _Table(file, HEAD if HEAD in file.tensors else EMBEDDINGS, "head")
        self.num_tokens = self._table.num_tokens

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Rows of `tokens`: (num_tokens, num_embedding)."""
        return self._table.rows(tokens)


class _Table:
    """One row for each token, dequantized when it is asked for."""

    def __init__(self, file: GgufFile, name: str, what: str) -> None:
        """Raises ModelFileError if there is no such table, or it is of a type nobody can read."""
        tensor = file.tensors.get(name)
        if tensor is None:
            raise ModelFileError(f"{file.path.name} has no tensor {name}")
        self.num_embedding, self.num_tokens = (int(size) for size in tensor.shape)
        self._data: NDArray[Any] = tensor.data
        self._type = tensor.tensor_type
        try:
            self.rows([0])
        except NotImplementedError as error:
            raise ModelFileError(
                f"{file.path.name} keeps its {what} as {self._type.name}, which cannot be read",
                "re-quantize it",
            ) from error

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        picked = self._data[np.asarray(tokens, dtype=np.int64)]
        rows: NDArray[np.float32] = quants.dequantize(picked, self._type).astype(np.float32)
        return rows
