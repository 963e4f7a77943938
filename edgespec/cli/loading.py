"""From a model's name to a loaded completer, with progress on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgespec.drafters import strategies
from edgespec.errors import UnknownModelError
from edgespec.models.resolve import LocalFile, resolve
from edgespec.models.store import ModelStore
from edgespec.paths import user_paths
from edgespec.protocols import Completer
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


def model_on_disk(reference: str) -> Path:
    """Path of the model that `reference` names, pulled first (with progress) if it is missing."""
    target = resolve(reference)
    if isinstance(target, LocalFile):
        return target.path.expanduser().absolute()
    return pull_all([reference])[0]


def pull_all(references: Iterable[str]) -> list[Path]:
    """Pull what is missing of `references`; one that is on disk costs nothing."""
    store = ModelStore(user_paths())
    return [
        stored.path if (stored := store.find(reference)) is not None else _pull(reference)
        for reference in references
    ]


def _pull(reference: str) -> Path:
    """Pull one model, telling how far it is; libraries for network and progress load only here."""
    from edgespec.cli.models import accept_terms_by_asking
    from edgespec.cli.pull_progress import pull_display
    from edgespec.models.pull import pull

    with pull_display() as display, display.model(reference):
        ask = accept_terms_by_asking(display)
        return pull(reference, user_paths(), display, accept_terms=ask).path


def load_completer(options: LoadRequest, sampling: SamplingParams) -> Running:
    """Load the model and wire a completer, telling on stderr what takes long.

    `sampling` is what it will be asked for: nonsense is refused (UsageError) before the load.
    """
    path = model_on_disk(options.model)
    from edgespec.llama.sampler import check_sampling
    from edgespec.runtime.running import load  # loads the native library

    check_sampling(sampling, num_vocab=0)  # no option biases single tokens
    return load(with_drafter_path(options), path, user_paths(), say)


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


def with_drafter_path(options: LoadRequest) -> LoadRequest:
    """The options with the file of the model that `drafter` names, if any: pulled if missing.

    Raises UnknownModelError, or what keeps it from being pulled.
    """
    drafter = options.drafter
    if drafter in (NO_DRAFTER, BEST_DRAFTER, *strategies()):
        return options
    try:
        return dataclasses.replace(options, drafter_path=model_on_disk(drafter))
    except UnknownModelError as error:
        raise UnknownModelError(
            f"{drafter!r} is no drafter: {error.problem}",
            f"{error.remedy}, {BEST_DRAFTER}, {LOOK_UP_ONLY} or {NO_DRAFTER}",
        ) from error


def say(line: str) -> None:
    """One line for people, on stderr; only if they are watching, or it is more than progress."""
    if sys.stderr.isatty() or not is_progress(line):
        click.echo(line, err=True)
