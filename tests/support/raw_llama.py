"""llama.cpp called directly, so that the tiny models vouch for the wrapper, not vice versa."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

PROMPT = "Please write a short list of things to do."
LOGGED: list[str] = []


def _log(level: int, text: bytes, user_data: object) -> None:
    LOGGED.append(text.decode("utf-8", "replace"))


_LOG_CALLBACK = native.llama_log_callback(_log)
"""Kept alive for as long as the library may call it."""


class RawModel:
    """A model and a context of one sequence, straight from llama.cpp, on one thread."""

    def __init__(self, path: Path, *, use_extra_bufts: bool = True, num_context: int = 256) -> None:
        LOGGED.clear()
        native.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
        native.llama_backend_init()
        model_params = native.llama_model_default_params()
        model_params.use_extra_bufts = use_extra_bufts
        self.model = native.llama_model_load_from_file(str(path).encode(), model_params)
        assert self.model, "".join(LOGGED[-5:])
        params = native.llama_context_default_params()
        params.n_ctx = params.n_batch = num_context
        params.n_threads = params.n_threads_batch = 1
        self.context = native.llama_init_from_model(self.model, params)
        assert self.context, "".join(LOGGED[-5:])
        self.vocab = native.llama_model_get_vocab(self.model)
        self.num_vocab: int = native.llama_vocab_n_tokens(self.vocab)
        self.num_cached = 0
        self.log = "".join(LOGGED)

    def close(self) -> None:
        native.llama_free(self.context)
        native.llama_model_free(self.model)

    def decode(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append `tokens` and return the last one's logits."""
        batch = native.llama_batch_init(len(tokens), 0, 1)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = self.num_cached + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index == len(tokens) - 1
        batch.n_tokens = len(tokens)
        status = native.llama_decode(self.context, batch)
        native.llama_batch_free(batch)
        assert status == 0
        self.num_cached += len(tokens)
        row = native.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.num_vocab,)).copy()

    def generate(
        self, num_tokens: int, choose: Callable[[NDArray[np.float32]], int]
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The tokens that `choose` picks after the prompt, and the last logits."""
        logits = self.decode(self.tokenize(PROMPT))
        tokens: list[int] = []
        for _ in range(num_tokens):
            assert np.isfinite(logits).all()
            tokens.append(choose(logits))
            logits = self.decode(tokens[-1:])
        return tokens, logits

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        data = text.encode()
        tokens = (native.llama_token * (len(data) + 2))()
        count = native.llama_tokenize(
            self.vocab, data, len(data), tokens, len(tokens), False, parse_special
        )
        assert count >= 0
        return list(tokens[:count])

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        array = (native.llama_token * len(tokens))(*tokens)
        text = ctypes.create_string_buffer(64 * len(tokens) + 1)
        count = native.llama_detokenize(
            self.vocab, array, len(tokens), text, len(text), False, False
        )
        assert count >= 0
        return text.raw[:count]
