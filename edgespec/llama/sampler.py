"""Sampler chains: llama.cpp's own samplers, drawn once per emitted token.

The order is llama.cpp's: logit bias, penalties, DRY, top-k, typical, top-p, min-p, temperature, and
one draw at the end. Greedy without modifiers takes the largest logit directly.

Under a constraint the chain sees the tokens that it allows and no others. Whatever is drawn depends
only on the logits and the tokens before, never on how the logits were computed: this is what makes
speculation exact.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import UsageError
from edgespec.llama.library import api
from edgespec.llama.target import LlamaTarget
from edgespec.llama.vocabulary import Vocabulary
from edgespec.protocols import Matcher, Target
from edgespec.types import SamplingParams

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_DRY_BREAKERS = (b"\n", b":", b'"', b"*")  # llama.cpp's defaults
_LARGEST_SEED = 0xFFFFFFFE  # one more is LLAMA_DEFAULT_SEED, which means a random one


class SamplerChain:
    """Implements `edgespec.protocols.Sampler` with llama.cpp's samplers; close it after use."""

    def __init__(
        self,
        params: SamplingParams,
        vocab: Vocabulary,
        num_context_train: int = 4096,
        matcher: Matcher | None = None,
    ) -> None:
        """Build the chain; raises UsageError for nonsense values.

        `num_context_train` bounds the memory of the DRY sampler, in tokens. `matcher` is what
        `params.constraint` was compiled to.
        """
        check_sampling(params, vocab.num_tokens)
        assert (matcher is None) == (params.constraint is None)
        self.matcher = matcher
        self._greedy_only = _is_plain_greedy(params)
        self._chain = _build_chain(params, vocab, num_context_train)
        self._memory = max(params.penalty_last_n, params.dry_penalty_last_n)

    def begin(self, prompt: Sequence[int]) -> None:
        """Let the penalties see the end of the prompt, as llama-server does."""
        for token in prompt[-self._memory :] if self._memory > 0 else ():
            api.llama_sampler_accept(self._chain, token)

    def sample(self, target: Target, row: int) -> int:
        """Draw the token that follows `row` of the target's last pass and advance the chain."""
        if not isinstance(target, LlamaTarget):
            raise TypeError("llama.cpp's samplers read the logits of a LlamaTarget")
        if self.matcher is not None:
            return self._sample_allowed(target.logits(row), self.matcher)
        if self._greedy_only:
            return int(target.logits(row).argmax())
        context = target.context
        return int(api.llama_sampler_sample(self._chain, context.handle, context.batch_index(row)))

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            api.llama_sampler_free(self._chain)
        self._chain = None

    def __enter__(self) -> SamplerChain:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _sample_allowed(self, logits: NDArray[np.float32], matcher: Matcher) -> int:
        """Draw from what `matcher` allows, and advance it, too."""
        allowed = matcher.allowed()
        if self._greedy_only:
            token = int(allowed[logits[allowed].argmax()])
        else:
            token = self._draw(allowed, logits[allowed])
            api.llama_sampler_accept(self._chain, token)
        matcher.accept(token)
        return token

    def _draw(self, tokens: NDArray[np.intp], logits: NDArray[np.float32]) -> int:
        candidates = np.zeros(len(tokens), dtype=_CANDIDATE)
        candidates["id"], candidates["logit"] = tokens, logits
        data = candidates.ctypes.data_as(api.llama_token_data_p)
        array = api.llama_token_data_array(
            data=data, size=len(candidates), selected=-1, sorted=False
        )
        api.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)


def check_sampling(params: SamplingParams, num_vocab: int) -> None:
    """Raise UsageError, naming value and range, for parameters that make no sense."""
    ranges = (
        ("temperature", 0.0, 100.0),
        ("top_k", 0, 1 << 30),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("typical_p", 0.0, 1.0),
        ("repeat_penalty", 0.01, 100.0),
        ("frequency_penalty", -100.0, 100.0),
        ("presence_penalty", -100.0, 100.0),
        ("penalty_last_n", 0, 1 << 20),
        ("dry_multiplier", 0.0, 100.0),
        ("dry_base", 1.0, 100.0),
        ("dry_allowed_length", 0, 1 << 20),
        ("dry_penalty_last_n", 0, 1 << 20),
        ("seed", 0, _LARGEST_SEED),
    )
    for name, low, high in ranges:
        value = getattr(params, name)
        if not low <= value <= high:  # also catches NaN
            raise UsageError(f"{name} is {value}", f"give a number from {low} to {high}")
    for token, bias in params.logit_bias:
        if not 0 <= token < num_vocab or not -1e9 <= bias <= 1e9:
            raise UsageError(
                f"logit_bias has token {token} with bias {bias}",
                f"tokens go from 0 to {num_vocab - 1}",
            )


def _is_plain_greedy(params: SamplingParams) -> bool:
    return params.temperature == 0 and not (
        params.logit_bias or _has_penalties(params) or params.dry_multiplier
    )


def _has_penalties(params: SamplingParams) -> bool:
    return params.penalty_last_n > 0 and (
        params.repeat_penalty != 1.0
        or params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
    )


def _build_chain(params: SamplingParams, vocab: Vocabulary, num_context_train: int) -> object:
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for sampler in [*_modifiers(params, vocab, num_context_train), *_selectors(params)]:
        api.llama_sampler_chain_add(chain, sampler)
    return chain


def _modifiers(params: SamplingParams, vocab: Vocabulary, num_context_train: int) -> list[object]:
    """Samplers that change logits by what was said before."""
    samplers: list[object] = []
    if params.logit_bias:
        pairs = (api.llama_logit_bias * len(params.logit_bias))(*params.logit_bias)
        samplers.append(
            api.llama_sampler_init_logit_bias(vocab.num_tokens, len(params.logit_bias), pairs)
        )
    if _has_penalties(params):
        samplers.append(
            api.llama_sampler_init_penalties(
                vocab.num_tokens,
                params.penalty_last_n,
                params.repeat_penalty,
                params.frequency_penalty,
                params.presence_penalty,
            )
        )
    if params.dry_multiplier > 0:
        breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
        samplers.append(
            api.llama_sampler_init_dry(
                vocab.handle,
                params.dry_multiplier,
                params.dry_base,
                params.dry_allowed_length,
                min(params.dry_penalty_last_n, num_context_train),
                breakers,
                len(_DRY_BREAKERS),
            )
        )
    return samplers


def _selectors(params: SamplingParams) -> list[object]:
    """Samplers that narrow the choice, and the one that makes it."""
    if params.temperature == 0:
        return [api.llama_sampler_init_greedy()]
    samplers: list[object] = []
    if params.top_k > 0:
        samplers.append(api.llama_sampler_init_top_k(params.top_k))
    if params.typical_p < 1:
        samplers.append(api.llama_sampler_init_typical(params.typical_p, 1))
    if params.top_p < 1:
        samplers.append(api.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        samplers.append(api.llama_sampler_init_min_p(params.min_p, 1))
    samplers.append(api.llama_sampler_init_temp(params.temperature))
    samplers.append(api.llama_sampler_init_dist(params.seed))
    return samplers
