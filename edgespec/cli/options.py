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
from edgespec.workers import parse_workers

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


_MODEL_HELP = "A known model, a .gguf file, or hf:OWNER/REPO:FILE.gguf."
_ONE_MODEL = click.option(
    "--model", default=DEFAULT_TARGET, show_default=True, metavar="M", help=_MODEL_HELP
)
_MODELS = click.option(
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_TARGET,),
    show_default=True,
    metavar="M",
    help=f"{_MODEL_HELP} Several may be given.",
)


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --drafter, --trim, --context, --threads and --rpc to a command."""
    return _load_options(command, _ONE_MODEL)


def load_options_of_several(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same with a --model that may be given several times, as `models`."""
    return _load_options(command, _MODELS)


def _load_options(command: Callable[..., Any], model: Decorator) -> Callable[..., Any]:
    options: tuple[Decorator, ...] = (
        model,
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
            "--ctx",
            "num_context",
            type=int,
            metavar="N",
            help=f"Tokens of context. [default: {DEFAULT_CONTEXT}, or the model's if it has less]",
        ),
        click.option(
            "--threads", "num_threads", type=int, metavar="N", help="[default: physical cores]"
        ),
        click.option(
            "--rpc",
            "workers",
            default="",
            metavar="HOST:PORT,..",
            callback=lambda _context, _option, text: parse_workers(text) if text else (),
            help="Have `edgespec worker` on these machines hold and compute the target's layers.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def memory_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-learn and --incognito to a command."""
    for name, text in (
        ("incognito", "Neither use nor keep anything that is remembered."),
        ("no-learn", "Use what is remembered, but remember nothing of this session."),
    ):
        command = click.option(f"--{name}", is_flag=True, help=text)(command)
    return command


_DEFAULTS = SamplingParams()
_SAMPLING: dict[str, tuple[float, str]] = {
    "temperature": (_DEFAULTS.temperature, "0 always takes the likeliest token."),
    "top_k": (40, "Choose among the K likeliest tokens; 0 for all."),
    "top_p": (0.95, "Choose among the likeliest that make up this share."),
    "min_p": (0.05, "Leave out tokens below this share of the likeliest."),
    "typical_p": (_DEFAULTS.typical_p, "Locally typical sampling; 1 is off."),
    "repeat_penalty": (_DEFAULTS.repeat_penalty, "1 is off."),
    "frequency_penalty": (_DEFAULTS.frequency_penalty, "0 is off."),
    "presence_penalty": (_DEFAULTS.presence_penalty, "0 is off."),
    "penalty_last_n": (_DEFAULTS.penalty_last_n, "Tokens the penalties look back."),
    "dry_multiplier": (_DEFAULTS.dry_multiplier, "DRY repetition penalty; 0 is off."),
}
"""Default and explanation of each of the sampler's options."""


def sampling_options(default_temperature: float) -> Decorator:
    """Add the sampler's options to a command; `collect_sampling` reads them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, (usual, text) in reversed(_SAMPLING.items()):
            default = default_temperature if name == "temperature" else usual
            option = click.option(
                f"--{name.replace('_', '-')}",
                type=type(default),
                default=default,
                show_default=True,
                help=text,
            )
            command = option(command)
        return command

    return decorate


def collect_sampling(values: dict[str, Any], seed: int) -> SamplingParams:
    """Take the sampler's options out of a command's values and make them `SamplingParams`."""
    return SamplingParams(seed=seed, **{name: values.pop(name) for name in _SAMPLING})


def collect_loading(values: dict[str, Any], verbose: bool, num_slots: int = 1) -> LoadRequest:
    """Take the options of `load_options` and `memory_options` out of a command's values.

    Raises UsageError.
    """
    names = ("model", "drafter", "trim", "num_context", "num_threads", "workers")
    incognito = values.pop("incognito", False)  # not every command has these two
    learn = not (values.pop("no_learn", False) or incognito)
    return LoadRequest(
        verbose=verbose,
        num_slots=num_slots,
        remember=not incognito,
        learn=learn,
        **{name: values.pop(name) for name in names},
    )


def check_max_tokens(max_tokens: int | None, least: int = 1) -> None:
    """Raise UsageError for a limit that leaves no room for an answer; None is no limit."""
    if max_tokens is not None and max_tokens < least:
        raise UsageError(f"--max-tokens is {max_tokens}", f"give at least {least}")
