"""Which models' terms this user has accepted: asked once, remembered in a small JSON file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgespec.errors import UsageError
from edgespec.models.disk import read_json, write_json
from edgespec.models.registry import KnownModel
from edgespec.paths import Paths

AcceptTerms = Callable[[KnownModel], bool]


def require_terms(model: KnownModel, paths: Paths, accept: AcceptTerms) -> None:
    """Ask `accept` about the model's terms unless there are none or they were accepted before.

    An acceptance is of the terms' exact text: a new text is asked about again. Raises UsageError
    when they are not accepted.
    """
    if are_accepted(model, paths):
        return
    if not accept(model):
        raise UsageError(
            f"{model.name} was not pulled because its terms were not accepted",
            f"read {model.licence_url} and, if you agree, pull with --accept-terms",
        )
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    paths.ensure(paths.data)
    path = _record(paths)
    write_json(path, {**read_json(path), model.name: {"terms": model.terms, "accepted_at": when}})


def are_accepted(model: KnownModel, paths: Paths) -> bool:
    """Whether the model may be pulled unasked: it has no terms, or they were accepted."""
    entry = read_json(_record(paths)).get(model.name)
    was_asked = isinstance(entry, dict) and entry.get("terms") == model.terms
    return model.terms is None or was_asked


def _record(paths: Paths) -> Path:
    return paths.data / "accepted-terms.json"
