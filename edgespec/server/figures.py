"""The figures of an answer: token counts, times, drafts, log-probabilities.

`timings` have llama-server's names, and are finite numbers always; `speculation` is our own.
Clients that do not know them skip them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from edgespec.server.fields import Json
from edgespec.types import (
    Completion,
    PrefillProgress,
    ServedModel,
    SpeculationStats,
    Timings,
    TokenLogprob,
    memory_bound_speedup,
)

DecodeToken = Callable[[int], bytes]

_LEAST_LOGPROB = -9999.0
"""What OpenAI writes for a token without any chance: JSON has no infinity."""


def usage_of(completions: Sequence[Completion], prediction: Sequence[int] = ()) -> Json:
    """Token counts in OpenAI's form; every emitted token counts, the end of the turn included.

    Choices of one prompt count it once each, as they were asked. Of a `prediction` is told what of
    it came in the first answer.
    """
    num_prompt = sum(each.timings.num_prompt_tokens for each in completions)
    num_emitted = sum(len(each.token_ids) for each in completions)
    num_cached = sum(each.timings.num_cached_tokens for each in completions)
    usage: Json = {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_emitted,
        "total_tokens": num_prompt + num_emitted,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }
    if prediction and completions:
        num_accepted = num_common(prediction, completions[0].token_ids)
        usage["completion_tokens_details"] = {
            "accepted_prediction_tokens": num_accepted,
            "rejected_prediction_tokens": len(prediction) - num_accepted,
        }
    return usage


def num_common(prediction: Sequence[int], said: Sequence[int]) -> int:
    """Tokens of a prediction that came, in its order.

    >>> num_common((1, 2, 3, 4), (1, 9, 3, 4))
    3
    """
    blocks = SequenceMatcher(None, prediction, said).get_matching_blocks()
    return sum(block.size for block in blocks)


def timings_of(timings: Timings, stats: SpeculationStats) -> Json:
    """Times and drafts in llama-server's names; the first token counts to the prompt's time."""
    num_read = max(timings.num_prompt_tokens - timings.num_cached_tokens, 0)
    num_after_first = max(timings.num_decoded_tokens - 1, 0)
    return {
        "cache_n": timings.num_cached_tokens,
        "prompt_n": num_read,
        "prompt_ms": timings.prompt_ms,
        "prompt_per_token_ms": _ratio(timings.prompt_ms, num_read),
        "prompt_per_second": _ratio(1e3 * num_read, timings.prompt_ms),
        "predicted_n": timings.num_decoded_tokens,
        "predicted_ms": timings.decode_ms,
        "predicted_per_token_ms": _ratio(timings.decode_ms, num_after_first),
        "predicted_per_second": timings.decode_tokens_per_second,
        "draft_n": stats.proposed,
        "draft_n_accepted": stats.accepted,
    }


def speculation_of(completion: Completion, model: ServedModel) -> Json:
    """What drafting gave, by the metrics of docs/metrics.md; what is not known is left out."""
    stats = completion.stats
    figures: Json = {
        "target_passes": stats.target_passes,
        "proposed": stats.proposed,
        "accepted": stats.accepted,
        "acceptance_rate": stats.acceptance_rate,
        "block_efficiency": stats.block_efficiency,
        "exactness": model.exactness,
    }
    mbsu = memory_bound_speedup(stats, {}, model.size_bytes)  # what models read is not told here
    if mbsu is not None:
        figures["mbsu"] = mbsu
    if completion.timings.speedup is not None:
        figures["speedup"] = completion.timings.speedup
    return figures


def progress_of(progress: PrefillProgress, time_ms: float) -> Json:
    """How far the prompt is read, in llama-server's names."""
    return {
        "total": progress.num_prompt_tokens,
        "cache": progress.num_cached,
        "processed": progress.num_read,
        "time_ms": time_ms,
    }


def logprob_entries(logprobs: Sequence[TokenLogprob], decode_token: DecodeToken) -> list[Json]:
    """Log-probabilities as chat completions, Responses and Ollama write them."""

    def entry(token: int, logprob: float) -> Json:
        raw = decode_token(token)
        return {"token": token_text(raw), "logprob": finite(logprob), "bytes": list(raw)}

    return [
        entry(each.token, each.logprob)
        | {"top_logprobs": [entry(token, logprob) for token, logprob in each.top]}
        for each in logprobs
    ]


def token_text(raw: bytes) -> str:
    r"""A token as text; bytes that are no whole characters in OpenAI's notation.

    >>> token_text(b"a"), token_text(b"\xe4\xbd")
    ('a', 'bytes:\\xe4\\xbd')
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def finite(logprob: float) -> float:
    """The log-probability as JSON can say it."""
    return max(logprob, _LEAST_LOGPROB) if math.isfinite(logprob) else _LEAST_LOGPROB


def _ratio(amount: float, of: float) -> float:
    return amount / of if of > 0 else 0.0
