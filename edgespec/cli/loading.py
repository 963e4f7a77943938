"""From a model's name to a loaded completer, with progress on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.drafters import strategies
from edgespec.errors import UnknownModelError
from edgespec.models.resolve import LocalFile, resolve
from edgespec.paths import user_paths
from edgespec.protocols import Completer, Observer
from edgespec.reports import is_progress
from edgespec.runtime.host import Host
from edgespec.runtime.request import (
    BEST_DRAFTER,
    LOOK_UP_ONLY,
    NO_DRAFTER,
    LoadRequest,
)
from edgespec.types import SamplingParams

if TYPE_CHECKING:
    from edgespec.runtime.running import Running


_TELL_AFTER_S = 2.0
"""What takes no longer is not told."""


def model_on_disk(reference: str) -> Path:
    """Path of the model that `reference` names, pulled first (with progress) if it is missing."""
    target = resolve(reference)
    if isinstance(target, LocalFile):
        return target.path.expanduser().absolute()
    from edgespec.models.store import ModelStore  # the chat asks its catalogue

    stored = ModelStore(user_paths()).find(reference)
    if stored is not None:
        return stored.path
    return _pull(reference)


def _pull(reference: str) -> Path:
    """Pull one model, telling how far it is; libraries for network and progress load only here."""
    from edgespec.cli.models import accept_terms_by_asking
    from edgespec.cli.pull_progress import pull_display
    from edgespec.models.pull import pull

    with pull_display() as display, display.model(reference):
        ask = accept_terms_by_asking(display)
        return pull(reference, user_paths(), display, accept_terms=ask).path


def load_completer(
    options: LoadRequest, sampling: SamplingParams, observers: Sequence[Observer] = ()
) -> Running:
    """Load the model and wire a completer, telling on stderr what takes long.

    `sampling` is what it will be asked for: nonsense is refused (UsageError) before the load.
    `observers` are told of answers.
    """
    path = model_on_disk(options.model)
    from edgespec.llama.sampler import check_sampling
    from edgespec.runtime.running import load  # loads the native library

    check_sampling(sampling, num_vocab=0)  # no option biases single tokens
    return load(with_drafter_path(options), path, user_paths(), say, observers=observers)


def may_draft(options: LoadRequest) -> bool:
    """Whether a model may draft: one that is named, or the best on disk."""
    return options.drafter == BEST_DRAFTER or _is_model(options.drafter)


def settle(options: LoadRequest) -> None:
    """Have models that draft weighed and made ready, which is done once on a machine.

    Whoever chats has that done while nobody waits; whoever measures waits for it.
    """
    path = model_on_disk(options.model)
    from edgespec.runtime.running import load  # loads the native library

    loading = dataclasses.replace(with_drafter_path(options), idle=True, memory_at=None)
    with load(loading, path, user_paths(), _nobody) as running:
        told = ""
        while not running.idle.wait(_TELL_AFTER_S):
            doing = running.idle.doing
            if doing and doing != told:
                say(f"first, once on this machine: {doing}")
                told = doing


def _nobody(_line: str) -> None:
    """What is loaded is told when it is loaded to be measured."""


@contextlib.contextmanager
def loaded_host(options: LoadRequest, sampling: SamplingParams) -> Iterator[Completer]:
    """A process that has loaded the model; as `load_completer`, but a crash there is an error here.

    Nothing of the native library is loaded into this process.
    """
    with Host(user_paths(), verbose=options.verbose) as host:
        host.start()
        path = model_on_disk(options.model)
        host.load(with_drafter_path(options), path, say, sampling)
        yield host


def with_drafter_path(
    options: LoadRequest, on_disk: Callable[[str], Path] = model_on_disk
) -> LoadRequest:
    """The options with the file of the model that `drafter` names, if any; `on_disk` pulls it.

    Raises what keeps it from being pulled.
    """
    if not _is_model(options.drafter):
        return options
    check_names(options)
    return dataclasses.replace(options, drafter_path=on_disk(options.drafter))


def check_names(options: LoadRequest) -> None:
    """Raise UnknownModelError for names that nothing has, before anything is pulled."""
    resolve(options.model)
    if not _is_model(options.drafter):
        return
    try:
        resolve(options.drafter)
    except UnknownModelError as error:
        raise UnknownModelError(
            f"{options.drafter!r} is no drafter: {error.problem}",
            f"{error.remedy}, {BEST_DRAFTER}, {LOOK_UP_ONLY} or {NO_DRAFTER}",
        ) from error


def _is_model(drafter: str) -> bool:
    return drafter not in (NO_DRAFTER, BEST_DRAFTER, *strategies())


def say(line: str) -> None:
    """One line for people, on stderr; only if they are watching, or it is more than progress."""
    if sys.stderr.isatty() or not is_progress(line):
        click.echo(line, err=True)
