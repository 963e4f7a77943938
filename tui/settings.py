"""`/set temperature 0.3`: what can be set, in words."""

from __future__ import annotations

import dataclasses
import math

from edgespec.chats import ChatSettings
from edgespec.errors import UsageError
from edgespec.types import SamplingParams

_KINDS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "temperature": (float, 0.0, 100.0),
    "top_k": (int, 0, 1_000_000),
    "top_p": (float, 0.0, 1.0),
    "min_p": (float, 0.0, 1.0),
    "repeat_penalty": (float, 0.01, 100.0),
    "seed": (int, 0, 0xFFFFFFFF),
    "max_tokens": (int, 1, 1 << 24),
}
"""Name, kind, least and most."""


def changed(settings: ChatSettings, text: str) -> ChatSettings:
    """The settings after `NAME VALUE`, or `NAME default`; raises UsageError for anything else.

    >>> changed(ChatSettings(), "temperature 0.3").temperature
    0.3
    """
    name, _, value = text.replace("=", " ").strip().partition(" ")
    name, value = name.replace("-", "_").lower(), value.strip()
    if name not in _KINDS:
        raise UsageError(f"{name!r} cannot be set", f"one of {', '.join(_KINDS)}")
    if value in ("", "default"):
        return dataclasses.replace(settings, **{name: None})
    kind, least, most = _KINDS[name]
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise UsageError(f"{name} cannot be {value}", f"give {least:g} to {most:g}")
    return dataclasses.replace(settings, **{name: number})


def described(sampling: SamplingParams, max_tokens: int | None) -> str:
    """What holds for the next answer, in one line."""
    parts = [
        f"temperature {sampling.temperature:g}",
        f"top_k {sampling.top_k}",
        f"top_p {sampling.top_p:g}",
        f"min_p {sampling.min_p:g}",
        f"repeat_penalty {sampling.repeat_penalty:g}",
        f"seed {sampling.seed}",
        f"max_tokens {max_tokens or 'none'}",
    ]
    return " · ".join(parts)
