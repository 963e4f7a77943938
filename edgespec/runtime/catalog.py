"""The models of this user and machine: `edgespec.catalog.Catalog` over folder, registry and facts.

Nothing here loads the native library, and what reads model files and the database loads only when
models are listed: faces import this module.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.catalog import AcceptTerms, CatalogModel, PullProgress
from edgespec.errors import BusyError
from edgespec.models.pull_apart import pull_apart
from edgespec.models.registry import KNOWN_MODELS, KnownModel
from edgespec.models.resolve import LocalFile, resolve
from edgespec.models.terms import are_accepted, require_terms
from edgespec.paths import Paths
from edgespec.runtime.request import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from edgespec.models.store import ModelStore, StoredModel

Pull = Callable[[str, Paths, PullProgress, Callable[[], bool]], Path]
"""Pulls a model whose terms were accepted: `edgespec.models.pull_apart`."""


class LocalCatalog:
    """Implements `edgespec.catalog.Catalog`."""

    def __init__(
        self,
        paths: Paths,
        num_context: int | None = None,
        known: Mapping[str, KnownModel] = KNOWN_MODELS,
        pull: Pull = pull_apart,
    ) -> None:
        """`num_context` tokens are what a target will be loaded with, None the usual number."""
        self._paths = paths
        self._num_context = num_context or DEFAULT_CONTEXT
        self._known = known
        self._pull = pull
        self._lock = threading.Lock()
        self._pulling: set[str] = set()

    def models(self) -> list[CatalogModel]:
        """See `Catalog.models`; reads the header of every file, and says how fast it was here."""
        from edgespec.runtime.catalog_facts import MachineFacts  # numpy, gguf, sqlite3

        stored = self._store().list()
        here = {each.name for each in stored}
        absent = [model for name, model in self._known.items() if name not in here]
        with MachineFacts(self._paths, self._num_context) as facts:
            return [
                *(self._stored(e, facts.fits(e.path), facts.speed(e.path)) for e in stored),
                *(self._absent(e, facts.probably_fits(e.size_bytes)) for e in absent),
            ]

    def pull(
        self,
        name: str,
        progress: PullProgress,
        accept_terms: AcceptTerms,
        is_cancelled: Callable[[], bool],
    ) -> Path:
        """See `Catalog.pull`; one that is on disk costs nothing."""
        target = resolve(name, self._known)
        if isinstance(target, LocalFile):
            return target.path.expanduser().absolute()
        with self._alone(name):
            stored = self._store().find(name)
            if stored is not None:
                return stored.path
            if isinstance(target, KnownModel):
                shown = self._absent(target, "")
                require_terms(target, self._paths, lambda _model: accept_terms(shown))
            return self._pull(name, self._paths, progress, is_cancelled)

    def _store(self) -> ModelStore:
        from edgespec.models.store import ModelStore

        return ModelStore(self._paths, self._known)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._lock:
            if name in self._pulling:
                raise BusyError(f"{name} is being pulled already", "wait until it is here")
            self._pulling.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._pulling.discard(name)

    def _stored(self, stored: StoredModel, fits: str, speed: str | None) -> CatalogModel:
        known = self._known.get(stored.name)
        return CatalogModel(
            name=stored.name,
            title=known.title if known else stored.path.stem,
            size_bytes=stored.size_bytes,
            licence=known.licence if known else None,
            terms=None,
            is_on_disk=True,
            roles=known.roles if known else ("target", "drafter"),
            fits=fits,
            speed=speed,
            path=stored.path,
        )

    def _absent(self, model: KnownModel, fits: str) -> CatalogModel:
        return CatalogModel(
            name=model.name,
            title=model.title,
            size_bytes=model.size_bytes,
            licence=model.licence,
            terms=None if are_accepted(model, self._paths) else model.terms,
            is_on_disk=False,
            roles=model.roles,
            fits=fits,
            speed=None,
            path=None,
        )
