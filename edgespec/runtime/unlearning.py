"""What drafters learned from what is forgotten goes, too, since it cannot be told apart.

Files go before the facts that tell how far somebody learned, and until there are none: a process
that learns meanwhile finds its claim gone (`edgespec.learning.claim`).
"""

from __future__ import annotations

from pathlib import Path

from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import FOLLOWED, LEARNED
from edgespec.learning.trainings import TrainingStore
from edgespec.paths import Paths


def forget_learned(facts: Facts, paths: Paths) -> bool:
    """Delete what drafters learned, and heads chosen by what was said; whether there was any.

    Raises StorageError or sqlite3.Error.
    """
    store, is_any = TrainingStore(paths.adaptations), False
    while learned := store.all():
        store.delete(learned)
        is_any = True
    facts.forget(FOLLOWED)
    facts.forget(LEARNED)
    trimmed = sorted(paths.trimmed.glob("*.gguf"))
    if trimmed:
        from edgespec.gguf.trim import forget_own_rows  # reads GGUF files: much to load

        is_any |= bool(forget_own_rows(trimmed))
    return is_any


def forget_learned_by_itself(facts: Facts, folder: Path) -> None:
    """Delete what drafters learned in idle time, which comes from chats alone.

    What they were taught by a command serves again. Raises StorageError or sqlite3.Error.
    """
    store = TrainingStore(folder)
    while learned := [*store.claims(), *store.idles()]:
        store.delete(learned)
    if store.loras():
        from edgespec.learning.trained import all_trained, take_back  # reads GGUF files

        for each in all_trained(store):
            if each.is_by_itself:
                take_back(store, each.path)
    facts.forget(LEARNED)
