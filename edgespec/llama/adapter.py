"""LoRA adapters: small changes of a model's matrices, applied beside them by a context."""

from __future__ import annotations

import os
from pathlib import Path

from edgespec.errors import ModelFileError
from edgespec.llama import library
from edgespec.llama.library import api
from edgespec.llama.model import Model


class LoraAdapter:
    """A GGUF file of low-rank changes, loaded for one model; close it before that.

    `Context.use_adapter` has a context compute with it. Each matrix that it changes costs four more
    operations a pass; where that is too much it can be merged
    (`learning/distillation/lora_merge.py`).
    """

    def __init__(self, model: Model, path: Path) -> None:
        """Raises ModelFileError if it is no adapter of this model (llama_adapter_lora_init)."""
        self.path = path
        self.model = model
        library.forget_errors()
        self._handle = api.llama_adapter_lora_init(model.handle, os.fsencode(path)) or None
        if self._handle is None:  # a null pointer is not None, but false
            reason = library.last_error().rpartition("lora adapter: ")[2] or "no reason given"
            raise ModelFileError(
                f"llama.cpp cannot use {path} with {model.path.name}: {reason}",
                "train it anew for this model",
            )

    @property
    def handle(self) -> object:
        """The `llama_adapter_lora *`, for contexts of the same model."""
        if self._handle is None:
            raise ValueError(f"adapter {self.path.name} is closed")
        return self._handle

    def close(self) -> None:
        """Free it; no context may use it any more. May be called twice."""
        if self._handle is not None:
            api.llama_adapter_lora_free(self._handle)
            self._handle = None

    def __enter__(self) -> LoraAdapter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
