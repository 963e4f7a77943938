"""Sampling settings as they are typed: `/set temperature 0.3`."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace

from edgespec.chats import ChatSettings
from edgespec.errors import UsageError


@dataclass(frozen=True, slots=True)
class Setting:
    """A number that can be set, its bounds included; `whole` ones take no fraction."""

    name: str
    lowest: float
    highest: float
    whole: bool
    meaning: str


SETTINGS = (
    Setting("temperature", 0, 10, False, "0 says the likeliest token, more is livelier"),
    Setting("top_k", 0, 1_000_000, True, "draw from that many tokens, 0 from all"),
    Setting("top_p", 0, 1, False, "draw from the likeliest that make up this share"),
    Setting("min_p", 0, 1, False, "drop tokens below this share of the likeliest"),
    Setting("repeat_penalty", 0.01, 10, False, "above 1 avoids what was said lately"),
    Setting("seed", 0, 2**32 - 1, True, "the same seed gives the same answer"),
    Setting("max_tokens", 1, 10_000_000, True, "end an answer after that many tokens"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def with_setting(settings: ChatSettings, argument: str) -> ChatSettings:
    """`settings` after `/set ARGUMENT`: a name and a number, or a name and "default".

    Raises UsageError for a name that does not exist and for a number out of bounds.

    >>> with_setting(ChatSettings(), "temperature 0.3").temperature
    0.3
    """
    words = argument.replace("=", " ").split()
    name = words[0].lower().replace("-", "_") if words else ""
    setting = _BY_NAME.get(name)
    if setting is None:
        close = difflib.get_close_matches(name, _BY_NAME, n=1)
        instead = f"did you mean {close[0]}?" if close else f"there are {', '.join(_BY_NAME)}"
        raise UsageError(f"there is no setting {name!r}", instead)
    if len(words) != 2:
        raise UsageError(f"{name} needs one number", f"/set {name} default takes it back")
    value = None if words[1].lower() in ("default", "none") else _number(setting, words[1])
    changes: dict[str, float | None] = {name: value}
    return replace(settings, **changes)  # type: ignore[arg-type]


def _number(setting: Setting, word: str) -> float:
    try:
        value = int(word) if setting.whole else float(word)
    except ValueError:
        value = math.nan
    if not setting.lowest <= value <= setting.highest:
        kind = "whole number" if setting.whole else "number"
        bounds = f"from {setting.lowest:,} to {setting.highest:,}"
        raise UsageError(f"{setting.name} cannot be {word!r}", f"give a {kind} {bounds}")
    return value


def setting_lines(settings: ChatSettings) -> list[str]:
    """What is set, one line each: name, value, meaning."""
    lines = []
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        shown = "default" if value is None else str(value)
        lines.append(f"{setting.name:14}  {shown:7}  {setting.meaning}")
    return lines
