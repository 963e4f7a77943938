"""How the next token is chosen: the fields of OpenAI, llama-server and vLLM, and their meaning."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AliasChoices, Field

from edgespec.server.fields import Bias, Body, Count, Limit, Penalty, Seed, Share, invalid
from edgespec.types import Constraint, ModelDetails, SamplingParams

_NUM_SEEDS = 2**32 - 1
"""llama.cpp takes 2**32 - 1 for "any seed", so seeds are told apart modulo this."""

_FORBIDDEN = -1e9
"""The bias of a token that must not come."""

Tokenize = Callable[[str], Sequence[int]]


def also(*names: str) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """A field that may be left out, under any of these names."""
    return Field(default=None, validation_alias=AliasChoices(*names))


class SamplingFields(Body):
    """What bodies of OpenAI's dialect and llama-server's share."""

    seed: Seed | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, Bias | bool] | list[tuple[int | str, float | bool]] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Limit | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: Annotated[float, Field(gt=0)] | None = also(
        "repeat_penalty", "repetition_penalty"
    )
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    penalty_last_n: Count | None = also("penalty_last_n", "repeat_last_n")
    dry_multiplier: Annotated[float, Field(ge=0)] | None = None
    dry_base: Annotated[float, Field(ge=1)] | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Count | None = None

    def sampling(
        self,
        default: SamplingParams,
        details: ModelDetails,
        tokenize: Tokenize,
        constraint: Constraint | None = None,
    ) -> SamplingParams:
        """What these fields mean; `default` fills what was left out. Raises ApiError."""
        given = {name: getattr(self, name) for name in NAMES}
        biases = _biases(self.logit_bias or {}, tokenize, details.num_vocab)
        if self.ignore_eos:
            biases |= dict.fromkeys(details.end_tokens, _FORBIDDEN)
        return sampling_of(given, default, seed=self.seed, biases=biases, constraint=constraint)


NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "penalty_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
)
"""Fields of requests that are fields of `SamplingParams`."""


def sampling_of(
    given: Mapping[str, Any],
    default: SamplingParams,
    *,
    seed: int | None = None,
    biases: Mapping[int, float] = {},
    constraint: Constraint | None = None,
) -> SamplingParams:
    """`default` with what is `given` and not None, and a random seed if there is none."""
    known = {name: value for name, value in given.items() if value is not None}
    if known.get("top_k") == -1:
        known["top_k"] = 0
    if biases:
        known["logit_bias"] = tuple(biases.items())
    return replace(default, **known, seed=_seed(seed), constraint=constraint)


def with_choice(sampling: SamplingParams, index: int) -> SamplingParams:
    """The same for the choice of this number, which is another one."""
    return replace(sampling, seed=(sampling.seed + index) % _NUM_SEEDS)


def _seed(given: int | None) -> int:
    """The seed to use; as in llama.cpp, -1 asks for a random one."""
    return secrets.randbelow(_NUM_SEEDS) if given in (None, -1) else given % _NUM_SEEDS


def _biases(
    given: Mapping[str, float | bool] | Sequence[tuple[int | str, float | bool]],
    tokenize: Tokenize,
    num_vocab: int,
) -> dict[int, float]:
    """Biases by token; as in llama-server a key may be a text, and False forbids a token."""
    pairs = given.items() if isinstance(given, Mapping) else given
    biases: dict[int, float] = {}
    for key, value in pairs:
        bias = _FORBIDDEN if value is False else float(value)
        if value is True or not math.isfinite(bias):
            raise invalid("logit_bias", f"logit_bias of {key!r} is not a number or false")
        is_number = isinstance(key, int) or (isinstance(given, Mapping) and key.isdecimal())
        tokens = [int(key)] if is_number else tokenize(str(key))
        for token in tokens:
            if token < 0 or (num_vocab and token >= num_vocab):
                raise invalid(
                    "logit_bias", f"logit_bias has token {token}; tokens go to {num_vocab - 1}"
                )
            biases[token] = bias
    return biases
