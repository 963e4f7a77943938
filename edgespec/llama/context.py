"""A context: a model's KV cache and the passes over it, one batch at a time.

Row i of the last pass is its i-th token that asked for outputs. Logits and hidden states are numpy
views into llama.cpp's own buffer: no copy, valid until the next pass.

Stopping at once: ggml asks an abort callback between graph nodes. A Python callback would take the
interpreter lock a thousand times a pass, so the callback is C's own `strlen` over a two-byte flag:
"" is false, "\\x01" is true, and setting a byte from any thread aborts the pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.llama import library
from edgespec.llama.adapter import LoraAdapter
from edgespec.llama.library import api
from edgespec.llama.model import Model
from edgespec.llama.threads import ThreadPool

KVType = Literal["f32", "f16", "bf16", "q8_0"]

_GGML_TYPES: dict[KVType, int] = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}  # enum ggml_type
_FLASH_ATTENTION_OFF, _FLASH_ATTENTION_ON = 0, 1  # enum llama_flash_attn_type
_DECODE_NO_SLOT, _DECODE_ABORTED = 1, 2  # return values of llama_decode


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Size and arithmetic of a context.

    `num_batch` is the most tokens of one pass; llama.cpp computes them together, so it also bounds
    how long a pass can be (and, with it, the memory for activations).
    """

    num_context: int
    num_threads: int
    num_batch: int = 512
    num_sequences: int = 1
    type_k: KVType = "f16"
    type_v: KVType = "f16"
    flash_attention: bool = True
    hidden_states: bool = False


class Context:
    """KV cache and compute buffers over a model; close it before the model."""

    def __init__(
        self, model: Model, options: ContextOptions, beside: Context | None = None
    ) -> None:
        """Allocate a context; raises NativeLibraryError when llama.cpp refuses or memory is out.

        It shares the threads of `beside`, so they must take turns, and aborting that one aborts
        both.
        """
        self.model = model
        self.options = options
        own_flag = ctypes.create_string_buffer(2)
        self._abort_flag: ctypes.Array[ctypes.c_char] = (
            own_flag if beside is None else beside._abort_flag
        )
        library.forget_errors()
        self._handle = api.llama_init_from_model(model.handle, self._params(options))
        if self._handle is None:
            raise NativeLibraryError(
                f"llama.cpp cannot open a context of {options.num_context} tokens for "
                f"{model.path.name}: {library.last_error() or 'not enough memory'}",
                "ask for a smaller context",
            )
        shares_threads = beside is not None and beside.options.num_threads == options.num_threads
        self._own_threads = None if shares_threads else ThreadPool(options.num_threads)
        self._threads: ThreadPool | None = (
            self._own_threads if beside is None or not shares_threads else beside._threads
        )
        if self._threads is not None:
            self._threads.attach(self._handle)
        self._memory = api.llama_get_memory(self._handle)
        self._adapter: LoraAdapter | None = None  # kept alive while it is in use
        self._num_vocab = model.vocab.num_tokens
        self._batch = _Batch(options.num_batch, model.num_embedding)

    @property
    def num_context(self) -> int:
        """Cells of the KV cache, which llama.cpp may round up."""
        return int(api.llama_n_ctx(self._handle))

    @property
    def handle(self) -> object:
        """The `llama_context *`, for the samplers."""
        return self._handle

    def decode(
        self,
        tokens: Sequence[int] | NDArray[np.float32],
        position: int,
        *,
        sequence: int = 0,
        num_outputs: int = 1,
        hidden_states: bool = True,
    ) -> None:
        """Compute one pass over `tokens` at `position` and the positions after it.

        `tokens` are ids, or embeddings of shape (num_tokens, num_embedding), float32. The last
        `num_outputs` tokens get logits. A context that gives hidden states computes the logits of
        all tokens with them, which takes time: `hidden_states` False does without, for this pass.
        Raises Cancelled after `abort`, NativeLibraryError else.
        """
        if self.options.hidden_states:
            api.llama_set_embeddings(self._handle, hidden_states)
        self._batch.fill(tokens, position, sequence, num_outputs)
        library.forget_errors()
        status = int(api.llama_decode(self._handle, self._batch.struct))
        if status == _DECODE_ABORTED:
            raise Cancelled
        if status == _DECODE_NO_SLOT:
            raise NativeLibraryError(
                f"no place in the KV cache for {len(tokens)} tokens at position {position}",
                "use a larger context",
            )
        if status != 0:
            raise NativeLibraryError(
                f"llama_decode returned {status}: {library.last_error() or 'no reason given'}",
                "run `edgespec doctor`",
            )
        self._first_output = len(tokens) - num_outputs

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: (num_vocab,), float32, a view (llama_get_logits_ith).

        Waits for the computation to end.
        """
        pointer = api.llama_get_logits_ith(self._handle, self._first_output + row)
        return _view(pointer, self._num_vocab)

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Final hidden state of one row: (num_embedding,), float32, a view.

        Needs `ContextOptions.hidden_states` (llama_get_embeddings_ith).
        """
        pointer = api.llama_get_embeddings_ith(self._handle, self._first_output + row)
        return _view(pointer, self.model.num_embedding)

    def synchronize(self) -> None:
        """Wait until the last pass is computed (asynchronous backends)."""
        api.llama_synchronize(self._handle)

    def batch_index(self, row: int) -> int:
        """Index in the last batch of output row `row`, for llama_sampler_sample."""
        return self._first_output + row

    def remove(self, start: int, end: int = -1, *, sequence: int = 0) -> None:
        """Forget the positions [start, end) of a sequence; `end` -1 means all after `start`.

        Raises NativeLibraryError where the model's memory cannot (recurrent and hybrid models).
        """
        if not api.llama_memory_seq_rm(self._memory, sequence, start, end):
            raise NativeLibraryError(
                f"{self.model.architecture} models cannot forget tokens {start} to {end}",
                "run it with --no-speculation",
            )

    def use_adapter(self, adapter: LoraAdapter | None) -> None:
        """Compute with a LoRA adapter of this context's model from the next pass on, or without.

        It must stay open while it is used. What is in the cache stays as it was computed. Raises
        NativeLibraryError (llama_set_adapters_lora).
        """
        handles = (ctypes.c_void_p * 1)(None if adapter is None else _address(adapter.handle))
        pointer = ctypes.cast(handles, ctypes.POINTER(api.llama_adapter_lora_p_ctypes))
        scales = (ctypes.c_float * 1)(1.0)
        count = 0 if adapter is None else 1
        if api.llama_set_adapters_lora(self._handle, pointer, count, scales) != 0:
            raise NativeLibraryError("llama.cpp could not apply a LoRA adapter")
        self._adapter = adapter

    def copy_sequence(self, source: int, destination: int) -> None:
        """Make `destination` share every cell of `source` (llama_memory_seq_cp)."""
        api.llama_memory_seq_cp(self._memory, source, destination, -1, -1)

    def clear(self) -> None:
        """Forget everything."""
        api.llama_memory_clear(self._memory, True)

    def last_position(self, sequence: int = 0) -> int:
        """Highest position in the cache of a sequence, -1 when it is empty."""
        return int(api.llama_memory_seq_pos_max(self._memory, sequence))

    def save_state(self, sequence: int = 0) -> bytes:
        """The KV cells of one sequence, for `load_state` of a context of the same options."""
        size = int(api.llama_state_seq_get_size(self._handle, sequence))
        buffer = (ctypes.c_uint8 * size)()
        written = int(api.llama_state_seq_get_data(self._handle, buffer, size, sequence))
        if written == 0:
            raise NativeLibraryError("llama.cpp could not save the context's state")
        return bytes(buffer[:written])

    def load_state(self, state: bytes, sequence: int = 0) -> None:
        """Put saved KV cells into a sequence; raises NativeLibraryError if they do not fit."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if not api.llama_state_seq_set_data(self._handle, buffer, len(state), sequence):
            raise NativeLibraryError("the saved state does not fit this context")

    def abort(self) -> None:
        """Make the pass under way, or the next one, raise Cancelled; callable from any thread."""
        self._abort_flag[0] = b"\x01"

    def resume(self) -> None:
        """Take back an `abort`."""
        self._abort_flag[0] = b"\x00"

    def close(self) -> None:
        """Free the cache; the context cannot be used after."""
        if self._handle is not None:
            api.llama_free(self._handle)
            self._handle = None
            if self._own_threads is not None:
                self._own_threads.close()
            self._batch.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _params(self, options: ContextOptions) -> object:
        params = api.llama_context_default_params()
        params.n_ctx = options.num_context
        params.n_batch = params.n_ubatch = options.num_batch
        params.n_seq_max = options.num_sequences
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = options.num_threads
        params.type_k = _GGML_TYPES[options.type_k]
        params.type_v = _GGML_TYPES[options.type_v]
        params.flash_attn_type = (
            _FLASH_ATTENTION_ON if options.flash_attention else _FLASH_ATTENTION_OFF
        )
        params.embeddings = options.hidden_states
        params.abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, api.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort_flag)
        return params


class _Batch:
    """Two reusable `llama_batch`es, one of ids and one of embeddings (made at first use)."""

    def __init__(self, capacity: int, num_embedding: int) -> None:
        self._capacity = capacity
        self._num_embedding = num_embedding
        self._ids = api.llama_batch_init(capacity, 0, 1)
        self._embeddings: Any = None
        self._tokens = _array(self._ids.token, capacity)
        self.struct = self._ids

    def fill(
        self,
        tokens: Sequence[int] | NDArray[np.float32],
        position: int,
        sequence: int,
        num_outputs: int,
    ) -> None:
        count = len(tokens)
        if not 1 <= count <= self._capacity:
            raise ValueError(f"a pass takes 1 to {self._capacity} tokens, not {count}")
        if isinstance(tokens, np.ndarray):
            batch = self._embedding_batch()
            size = count * self._num_embedding
            np.ctypeslib.as_array(batch.embd, (size,))[:] = tokens.reshape(-1)
        else:
            batch = self._ids
            self._tokens[:count] = tokens
        _array(batch.pos, count)[:] = range(position, position + count)
        _array(batch.n_seq_id, count)[:] = 1
        _array(batch.logits, count)[:] = [index >= count - num_outputs for index in range(count)]
        for index in range(count):
            batch.seq_id[index][0] = sequence
        batch.n_tokens = count
        self.struct = batch

    def _embedding_batch(self) -> Any:  # noqa: ANN401
        if self._embeddings is None:
            self._embeddings = api.llama_batch_init(self._capacity, self._num_embedding, 1)
        return self._embeddings

    def close(self) -> None:
        api.llama_batch_free(self._ids)
        if self._embeddings is not None:
            api.llama_batch_free(self._embeddings)


def _address(pointer: object) -> int | None:
    return ctypes.cast(pointer, ctypes.c_void_p).value  # type: ignore[arg-type]


def _array(pointer: Any, count: int) -> NDArray[Any]:  # noqa: ANN401
    return np.ctypeslib.as_array(pointer, (count,))


def _view(pointer: ctypes._Pointer[ctypes.c_float], count: int) -> NDArray[np.float32]:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise NativeLibraryError("llama.cpp has no output for that row", "run `edgespec doctor`")
    array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
    array.flags.writeable = False
    return array
