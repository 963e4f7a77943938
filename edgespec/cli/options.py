"""Options that several commands share; nothing here loads the native library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from edgespec.errors import UsageError
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.runtime.request import (
    BEST_DRAFTER,
    DEFAULT_CONTEXT,
    LOOK_UP_ONLY,
    NO_DRAFTER,
    LoadRequest,
)
from edgespec.types import SamplingParams

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --drafter, --trim, --context and --threads to a command."""
    options: tuple[Decorator, ...] = (
        click.option(
            "--model",
            default=DEFAULT_TARGET,
            show_default=True,
            metavar="M",
            help="A known model, a .gguf file, or hf:OWNER/REPO:FILE.gguf.",
        ),
        click.option(
            "--drafter",
            default=BEST_DRAFTER,
            show_default=True,
            metavar="D",
            help=f"What proposes tokens to verify: {LOOK_UP_ONLY} (look-ups in the conversation "
            f"and in what is remembered), a small model besides (named as in --model), "
            f"{BEST_DRAFTER} (the best one on disk, if any pays), or {NO_DRAFTER}.",
        ),
        click.option(
            "--trim/--no-trim",
            default=True,
            show_default=True,
            help="Let a model draft in its trimmed form, made at its first use.",
        ),
        click.option(
            "--context",
            "num_context",
            type=int,
            metavar="N",
            help=f"Tokens of context. [default: {DEFAULT_CONTEXT}, or the model's if it has less]",
        ),
        click.option(
            "--threads", "num_threads", type=int, metavar="N", help="[default: physical cores]"
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def memory_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-learn and --incognito to a command."""
    command = click.option(
        "--incognito",
        is_flag=True,
        help="Neither use nor keep anything that is remembered.",
    )(command)
    return click.option(
        "--no-learn",
        is_flag=True,
        help="Use what is remembered, but remember nothing of this session.",
    )(command)


def sampling_options(default_temperature: float) -> Decorator:
    """Add the sampler's options to a command; `collect_sampling` reads them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        defaults = SamplingParams()
        numbers: tuple[tuple[str, type, float, str], ...] = (
            ("temperature", float, default_temperature, "0 always takes the likeliest token."),
            ("top-k", int, 40, "Choose among the K likeliest tokens; 0 for all."),
            ("top-p", float, 0.95, "Choose among the likeliest that make up this share."),
            ("min-p", float, 0.05, "Leave out tokens below this share of the likeliest."),
            ("typical-p", float, defaults.typical_p, "Locally typical sampling; 1 is off."),
            ("repeat-penalty", float, defaults.repeat_penalty, "1 is off."),
            ("frequency-penalty", float, defaults.frequency_penalty, "0 is off."),
            ("presence-penalty", float, defaults.presence_penalty, "0 is off."),
            ("penalty-last-n", int, defaults.penalty_last_n, "Tokens the penalties look back."),
            ("dry-multiplier", float, defaults.dry_multiplier, "DRY repetition penalty; 0 is off."),
        )
        for name, kind, default, text in reversed(numbers):
            command = click.option(
                f"--{name}", type=kind, default=default, show_default=True, help=text
            )(command)
        return command

    return decorate


def collect_sampling(values: dict[str, Any], seed: int) -> SamplingParams:
    """Take the sampler's options out of a command's values and make them `SamplingParams`."""
    names = (
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
    )
    return SamplingParams(seed=seed, **{name: values.pop(name) for name in names})


def collect_loading(values: dict[str, Any], verbose: bool) -> LoadRequest:
    """Take the options of `load_options` and `memory_options` out of a command's values.

    Raises UsageError.
    """
    names = ("model", "drafter", "trim", "num_context", "num_threads")
    incognito = values.pop("incognito", False)  # not every command has these two
    learn = not (values.pop("no_learn", False) or incognito)
    return LoadRequest(
        verbose=verbose,
        remember=not incognito,
        learn=learn,
        **{name: values.pop(name) for name in names},
    )


def check_max_tokens(max_tokens: int | None, least: int = 1) -> None:
    """Raise UsageError for a limit that leaves no room for an answer; None is no limit."""
    if max_tokens is not None and max_tokens < least:
        raise UsageError(f"--max-tokens is {max_tokens}", f"give at least {least}")
