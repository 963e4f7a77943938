"""The trimmed head of a drafter follows the user: its rows are chosen anew between answers.

Seldom, and only if the latest text that targets said to this user could be said better. The file
that was trimmed gets other rows of the head, is loaded, and drafts from the next answer on; the
number of rows and the body stay, and so does what a guess costs. What is on disk is what serves: if
another process chose, its choice is loaded; if `edgespec db forget` deleted the file, because its
rows rest on what was said, they are chosen anew from what is left.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgespec.cache.database import Database, connect
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import FOLLOWED, latest_answers, num_tokens_since
from edgespec.cache.tokens.sequences import VocabularyKey
from edgespec.errors import EdgeSpecError
from edgespec.forms.rows import RowChooser
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.words import shipped_words
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import trim_info
from edgespec.llama.context import Context
from edgespec.machine.available import available_memory
from edgespec.pauses import Pause
from edgespec.runtime.form import Form, Trainings
from edgespec.runtime.model_drafter import BoundDrafter, load_weights

LEAST_NEW = 4000
"""Tokens that a target must have said since the rows were last looked at."""

MOST_TOKENS = 100_000
"""The latest tokens that count."""

MIN_GAIN = 0.005
"""Share of the latest text that other rows must be able to say besides."""

_BUSY_TIMEOUT_S = 0.5
_CACHE_BYTES = 2 << 20
_MEMORY_SHARE = 3
"""Memory must hold the file so many times: its weights, perhaps rearranged, and a context."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Where heads that follow the user are found and kept, and what they follow.

    `database` has recorded what targets of `vocabulary` said. What was trained is added to whatever
    rows there are.
    """

    trimmer: Trimmer
    database: Path
    vocabulary: VocabularyKey
    trainings: Trainings


def open_follower(
    follow: Follow, form: Form, bound: BoundDrafter, target: Context
) -> HeadFollower | None:
    """Have the head of `bound`, which runs `form`, follow the user; None if it is not to.

    Raises ModelFileError.
    """
    vocabulary = bound.drafter.vocabularies[1]
    if form.trimmed is None or len(bound.weights.kept) == vocabulary.vocab.num_tokens:
        return None
    own = follow.trimmer.own_path(form.whole, form.trimmed)
    return None if own is None else HeadFollower(follow, form, own, bound, target)


class HeadFollower:
    """Looks, after an answer, whether the rows of a drafter's head are to be chosen anew.

    Implements `edgespec.runtime.idle.IdleTask`.
    """

    def __init__(
        self,
        follow: Follow,
        form: Form,
        own: Path,
        bound: BoundDrafter,
        target: Context,
        available: Callable[[], int | None] = available_memory,
    ) -> None:
        """`bound` runs `form` beside `target`; `own` is the path for rows of the user's own.

        Raises ModelFileError if the trimmed file cannot be read.
        """
        assert form.trimmed is not None
        self.name = f"the head of {bound.drafter.name} follows what is said"
        self._follow = follow
        self._whole, self._own = form.whole, own
        self._bound = bound
        self._target = target
        self._available = available
        self._key = f"{follow.trimmer.key(form.whole)}|{follow.vocabulary.fingerprint}"
        self._chooser = RowChooser(bound.drafter.vocabularies[1], shipped_words())
        self._body = GgufFile(form.trimmed)  # whatever becomes of its name, it can be read
        self._serving = _identity(form.trimmed)

    def run(self, pause: Pause) -> bool:
        """Look once; see `IdleTask.run`."""
        pause()
        there = _identity(self._own)
        if there is not None and there != self._serving:  # another process chose, or this one
            self._serve(there, pause)
        elif self._choose(pause, is_lost=there is None and self._is_own):
            self._serve(_identity(self._own), pause)
        return False

    @property
    def _is_own(self) -> bool:
        """Whether the rows that serve rest on what was said to this user."""
        info = trim_info(self._body)
        return info is not None and info.is_own

    def _choose(self, pause: Pause, is_lost: bool) -> bool:
        """Write other rows if they are worth it; those that are lost are chosen anew anyway."""
        path, vocabulary = self._follow.database, self._follow.vocabulary
        with contextlib.closing(connect(path, _BUSY_TIMEOUT_S, _CACHE_BYTES)) as connection:
            facts = Facts(Database(connection, path))
            since = (facts.get(FOLLOWED, self._key) or {}).get("sequence", 0)
            if not is_lost and num_tokens_since(connection, vocabulary, since) < LEAST_NEW:
                return False
            newest, texts = self._texts(connection, pause)
            rows = self._chooser.choose(texts, self._bound.weights.kept, pause)
            is_worth_it = is_lost or rows.gain >= MIN_GAIN
            if is_worth_it:
                self._follow.trimmer.write_rows(
                    self._whole, self._body, rows, self._own, lambda _share: pause()
                )
            facts.put(FOLLOWED, self._key, {"sequence": newest})
        return is_worth_it

    def _texts(self, connection: sqlite3.Connection, pause: Pause) -> tuple[int, list[str]]:
        """The number of the latest answer, and the texts of the latest ones."""
        target, newest, texts = self._bound.drafter.vocabularies[0], 0, []
        for said in latest_answers(connection, self._follow.vocabulary, MOST_TOKENS):
            pause()
            newest = max(newest, said.number)
            texts.append(target.decode(said.tokens).decode("utf-8", "ignore"))
        return newest, texts

    def _serve(self, there: tuple[int, int] | None, pause: Pause) -> None:
        """Have the file of the user's own rows draft, if there is room for it."""
        body = GgufFile(self._own)
        info = trim_info(body)
        if info is None or info.num_kept != len(self._bound.weights.kept):  # of another choice
            return
        free = self._available()
        if free is not None and free < _MEMORY_SHARE * self._own.stat().st_size:
            return  # the next start has it
        form = self._follow.trainings.of(Form(self._whole, self._own), pause)
        try:
            weights = load_weights(
                form.running, self._target, self._bound.whole, lambda _share: pause()
            )
        except EdgeSpecError:
            self._own.unlink(missing_ok=True)  # the next start is to do without it
            raise
        if _identity(self._own) != there:  # a third process: what was loaded may be of two files
            weights.close()
            return
        self._bound.exchange(weights)
        self._body, self._serving = body, there


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from others that had or will have its name, as long as it is in use."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
