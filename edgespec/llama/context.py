"""A context: a model's KV cache and the passes over it, one batch at a time.

Output row i of the last pass is its i-th row that asked for logits. Logits and hidden states are
numpy views into llama.cpp's own buffer: no copy, valid until the next pass.

Stopping at once: ggml asks an abort callback between graph nodes. A Python callback would take the
interpreter lock a thousand times a pass, so the callback is C's own `strlen` over a two-byte flag:
"" is false, "\\x01" is true, and setting a byte from any thread aborts the pass.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import Cancelled, NativeLibraryError
from edgespec.llama import library
from edgespec.llama.batch import Batch, Inputs, Rows
from edgespec.llama.library import api
from edgespec.llama.model import Model
from edgespec.llama.options import ContextOptions as ContextOptions
from edgespec.llama.options import KVType as KVType
from edgespec.llama.rpc import graphs_built_anew
from edgespec.llama.threads import ThreadPool

_GGML_TYPES: dict[KVType, int] = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}  # enum ggml_type
_FLASH_ATTENTION_OFF, _FLASH_ATTENTION_ON = 0, 1  # enum llama_flash_attn_type
_DECODE_NO_SLOT, _DECODE_ABORTED = 1, 2  # return values of llama_decode


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
        with graphs_built_anew() if model.placement_key else contextlib.nullcontext():
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
        self._num_vocab = model.vocab.num_tokens
        self._batch = Batch(options.num_batch, model.num_embedding, options.num_sequences)
        self._outputs: Sequence[int] = ()  # places in the last batch of the rows with logits

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
        inputs: Inputs,
        position: int,
        *,
        sequence: int = 0,
        num_outputs: int = 1,
        hidden_states: bool = True,
    ) -> None:
        """Compute one pass over `inputs` of one sequence from `position` on; see `compute`.

        The last `num_outputs` rows get logits.
        """
        rows = Rows.chain(inputs, position, sequence=sequence, num_outputs=num_outputs)
        self.compute(rows, hidden_states=hidden_states)

    def compute(self, rows: Rows, *, hidden_states: bool = True) -> None:
        """Compute one pass over `rows`, which become cells of the cache (llama_decode).

        A context that gives hidden states computes the logits of all rows with them, which takes
        time: `hidden_states` False does without, for this pass. Raises Cancelled after `abort`,
        NativeLibraryError else.
        """
        if self.options.hidden_states:
            api.llama_set_embeddings(self._handle, hidden_states)
        batch = self._batch.fill(rows)
        library.forget_errors()
        status = int(api.llama_decode(self._handle, batch))
        if status == _DECODE_ABORTED:
            raise Cancelled
        if status == _DECODE_NO_SLOT:
            raise NativeLibraryError(
                f"no place in the KV cache for {len(rows)} tokens at position {rows.positions[0]}",
                "use a larger context",
            )
        if status != 0:
            raise NativeLibraryError(
                f"llama_decode returned {status}: {library.last_error() or 'no reason given'}",
                "run `edgespec doctor`",
            )
        self._outputs = [index for index, output in enumerate(rows.outputs) if output]

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of one row of the last pass: (num_vocab,), float32, a view (llama_get_logits_ith).

        Waits for the computation to end.
        """
        pointer = api.llama_get_logits_ith(self._handle, self._outputs[row])
        return _view(pointer, self._num_vocab)

    def hidden_state(self, row: int) -> NDArray[np.float32]:
        """Final hidden state of one row: (num_embedding,), float32, a view.

        Needs `ContextOptions.hidden_states` (llama_get_embeddings_ith).
        """
        pointer = api.llama_get_embeddings_ith(self._handle, self._outputs[row])
        return _view(pointer, self.model.num_embedding)

    def synchronize(self) -> None:
        """Wait until the last pass is computed (asynchronous backends)."""
        api.llama_synchronize(self._handle)

    def batch_index(self, row: int) -> int:
        """Index in the last batch of output row `row`, for llama_sampler_sample."""
        return self._outputs[row]

    def remove(self, start: int, end: int = -1, *, sequence: int = 0) -> None:
        """Forget the positions [start, end) of a sequence; `end` -1 means all after `start`.

        Raises NativeLibraryError where the model's memory cannot (recurrent and hybrid models).
        """
        if not api.llama_memory_seq_rm(self._memory, sequence, start, end):
            raise NativeLibraryError(
                f"{self.model.architecture} models cannot forget tokens {start} to {end}",
                "run it with --no-speculation",
            )

    def copy_sequence(
        self, source: int, destination: int, *, start: int = -1, end: int = -1
    ) -> None:
        """Let `destination` share the cells of `source` at positions [start, end), -1 for no bound.

        No cell is copied in a unified cache (llama_memory_seq_cp).
        """
        api.llama_memory_seq_cp(self._memory, source, destination, start, end)

    def clear(self) -> None:
        """Forget everything."""
        api.llama_memory_clear(self._memory, True)

    def last_position(self, sequence: int = 0) -> int:
        """Highest position in the cache of a sequence, -1 when it is empty."""
        return int(api.llama_memory_seq_pos_max(self._memory, sequence))

    def save_state(self, sequence: int = 0) -> bytes:
        """The KV cells of one sequence, for `load_state` of a context of the same options.

        Of layers with a sliding window only those that the next token sees.
        """
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


def _view(pointer: ctypes._Pointer[ctypes.c_float], count: int) -> NDArray[np.float32]:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise NativeLibraryError("llama.cpp has no output for that row", "run `edgespec doctor`")
    array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
    array.flags.writeable = False
    return array
