"""A loaded GGUF model: its weights, metadata and vocabulary."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import Cancelled, ModelFileError
from edgespec.llama import library
from edgespec.llama.library import api
from edgespec.llama.rpc import Placement, place
from edgespec.llama.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How weights are loaded.

    `use_extra_buffers` allows repacked and AMX weight layouts (faster; unsound in some builds).
    Every layer is on the GPU, if the build has one.
    """

    use_extra_buffers: bool = True
    vocabulary_only: bool = False


class Model:
    """Weights and vocabulary of one GGUF file; close it, or use it as a context manager.

    Contexts made from a model keep it alive only as long as it is not closed.
    """

    def __init__(
        self,
        path: Path,
        options: ModelOptions = ModelOptions(),
        on_progress: Callable[[float], None] | None = None,
        workers: tuple[str, ...] = (),
    ) -> None:
        """Load `path`; `on_progress` gets the share loaded, 0 to 1.

        With `workers` their machines hold and compute the layers. Raises ModelFileError when
        llama.cpp cannot load the file (llama_model_load_from_file), and what `place` raises.
        KeyboardInterrupt or Cancelled raised by `on_progress` ends the load.
        """
        self.path = path
        self.options = options
        if not path.is_file():
            raise ModelFileError(
                f"there is no model file {path}", "check the path or pull the model"
            )
        self._placement = place(path, workers) if workers else None
        self._handle = _load(path, options, on_progress, self._placement)
        self.vocab = Vocabulary(api.llama_model_get_vocab(self._handle))

    @property
    def handle(self) -> object:
        """The `llama_model *`, for the other modules of this package."""
        if self._handle is None:
            raise ValueError(f"model {self.path.name} is closed")
        return self._handle

    @property
    def placement_key(self) -> str:
        """Names the workers that compute the layers and what each has; empty for this machine."""
        return self._placement.key if self._placement is not None else ""

    @property
    def description(self) -> str:
        """Architecture, size and quantization, as llama.cpp words them."""
        return _read_string(lambda buffer, size: api.llama_model_desc(self.handle, buffer, size))

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example "qwen2"."""
        return self.metadata("general.architecture") or "unknown"

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(api.llama_model_size(self.handle))

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return int(api.llama_model_n_params(self.handle))

    @property
    def num_embedding(self) -> int:
        """Width of the hidden state."""
        return int(api.llama_model_n_embd(self.handle))

    @property
    def num_context_train(self) -> int:
        """Longest context that the model was trained on, in tokens."""
        return int(api.llama_model_n_ctx_train(self.handle))

    @property
    def sliding_window(self) -> int:
        """Tokens that layers of local attention see, 0 where every layer sees all."""
        return int(api.llama_model_n_swa(self.handle))

    @property
    def can_roll_back(self) -> bool:
        """False for recurrent and hybrid models, whose state cannot forget single tokens."""
        return not (
            api.llama_model_is_recurrent(self.handle) or api.llama_model_is_hybrid(self.handle)
        )

    @property
    def can_generate(self) -> bool:
        """False for encoders, embedders and diffusion models, which cannot continue a text."""
        return (
            bool(api.llama_model_has_decoder(self.handle))
            and not api.llama_model_has_encoder(self.handle)
            and not api.llama_model_is_diffusion(self.handle)
        )

    @property
    def chat_template(self) -> str | None:
        """The model's own Jinja chat template, or None (llama_model_chat_template)."""
        text = api.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    def metadata(self, key: str) -> str | None:
        """One scalar of the GGUF's metadata as text, or None (llama_model_meta_val_str)."""
        return (
            _read_string(
                lambda buffer, size: api.llama_model_meta_val_str(
                    self.handle, key.encode(), buffer, size
                )
            )
            or None
        )

    def close(self) -> None:
        """Free the weights; contexts of this model must be closed before."""
        if self._handle is not None:
            api.llama_model_free(self._handle)
            self._handle = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _load(
    path: Path,
    options: ModelOptions,
    on_progress: Callable[[float], None] | None,
    placement: Placement | None,
) -> object:
    params = api.llama_model_default_params()
    params.use_extra_bufts = options.use_extra_buffers
    params.n_gpu_layers = -1
    params.vocab_only = options.vocabulary_only
    if placement is not None:
        params.devices = ctypes.cast(placement.devices, ctypes.c_void_p)
        params.tensor_split = placement.shares
    interrupts: list[BaseException] = []

    def report(share: float, _user_data: object) -> bool:
        try:
            if on_progress is not None:
                on_progress(share)
        except (KeyboardInterrupt, Cancelled) as interrupt:  # must not cross the C frames below
            interrupts.append(interrupt)
        return not interrupts

    params.progress_callback = api.llama_progress_callback(report)
    library.forget_errors()
    handle = api.llama_model_load_from_file(os.fsencode(path), params)
    if interrupts:
        if handle is not None:
            api.llama_model_free(handle)
        raise interrupts[0]
    if handle is None:
        reason = library.last_error().removeprefix("llama_model_load: ").removeprefix("error ")
        raise ModelFileError(
            f"llama.cpp cannot load {path}: {reason or 'no reason given'}",
            "use another GGUF file or a newer llama-cpp-python",
        )
    return handle


def _read_string(read: Callable[[ctypes.Array[ctypes.c_char], int], int]) -> str:
    """Call a C function that fills a buffer and returns the full length, or -1."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = int(read(buffer, size))
        if length < size:
            return buffer.value.decode("utf-8", "replace") if length >= 0 else ""
        size = length + 1
