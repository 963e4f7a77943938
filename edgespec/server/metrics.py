"""Counters for Prometheus, under the names of vLLM and llama-server; no label holds any text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from edgespec.types import Completion

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)


class Metrics:
    """What all answers of a server gave since it was started."""

    def __init__(self) -> None:
        """Begin at zero, in a registry of its own."""
        self._registry = CollectorRegistry()
        self._prompt = self._counters("prompt_tokens", "Tokens of prompts.")
        self._said = self._counters("generation_tokens", "Tokens of answers.", "tokens_predicted")
        self._cached = self._counter(
            "vllm:prompt_tokens_cached", "Tokens of prompts that were known."
        )
        self._drafts = self._counter("vllm:spec_decode_num_drafts", "Passes over the target.")
        self._proposed = self._counters(
            "spec_decode_num_draft_tokens", "Draft tokens that were verified.", "draft_tokens"
        )
        self._accepted = self._counters(
            "spec_decode_num_accepted_tokens",
            "Draft tokens that were kept.",
            "draft_tokens_accepted",
        )
        self._prompt_s = self._counter("llamacpp:prompt_seconds", "Time that prompts took.")
        self._said_s = self._counter("llamacpp:tokens_predicted_seconds", "Time that answers took.")
        self._passes = self._counter("llamacpp:n_decode", "Passes over the target.")
        self._ended = Counter(
            "vllm:request_success",
            "Answers by how they ended.",
            ["finished_reason"],
            registry=self._registry,
        )
        self._first = Histogram(
            "vllm:time_to_first_token_seconds",
            "Time to the first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._prompt_rate = self._gauge("llamacpp:prompt_tokens_seconds", "Tokens read a second.")
        self._said_rate = self._gauge("llamacpp:predicted_tokens_seconds", "Tokens said a second.")
        self._running = [
            self._gauge(name, "Answers that are being computed.")
            for name in ("vllm:num_requests_running", "llamacpp:requests_processing")
        ]
        self._waiting = [
            self._gauge(name, "Answers that wait.")
            for name in ("vllm:num_requests_waiting", "llamacpp:requests_deferred")
        ]

    def count(self, completion: Completion) -> None:
        """An answer is over."""
        timings, stats = completion.timings, completion.stats
        for counter in self._prompt:
            counter.inc(timings.num_prompt_tokens)
        for counter in self._said:
            counter.inc(len(completion.token_ids))
        for counter in self._proposed:
            counter.inc(stats.proposed)
        for counter in self._accepted:
            counter.inc(stats.accepted)
        self._cached.inc(timings.num_cached_tokens)
        self._drafts.inc(stats.target_passes)
        self._passes.inc(stats.target_passes)
        self._prompt_s.inc(timings.prompt_ms / 1e3)
        self._said_s.inc(timings.decode_ms / 1e3)
        self._ended.labels(completion.finish_reason).inc()
        self._first.observe(timings.time_to_first_token_ms / 1e3)
        if timings.prompt_ms > 0:
            num_read = max(timings.num_prompt_tokens - timings.num_cached_tokens, 0)
            self._prompt_rate.set(1e3 * num_read / timings.prompt_ms)
        self._said_rate.set(timings.decode_tokens_per_second)

    def text(self, num_running: int, num_waiting: int) -> bytes:
        """All figures in Prometheus's text format."""
        for gauge in self._running:
            gauge.set(num_running)
        for gauge in self._waiting:
            gauge.set(num_waiting)
        return generate_latest(self._registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(name, what, registry=self._registry)

    def _counters(self, vllm: str, what: str, llamacpp: str = "") -> list[Counter]:
        """The same under both names."""
        names = f"vllm:{vllm}", f"llamacpp:{llamacpp or vllm}"
        return [self._counter(name, what) for name in names]

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, registry=self._registry)
