"""The drafter that serves learns from what is recorded, by itself, while nobody waits.

    enough was said since it last learned, nothing else is to be done, the machine is quiet
    -> a process learns (`edgespec.runtime.learner`), stopped within each answer
    -> what it learned passed the gate of `edgespec learn drafter`: it drafts from then on

How far it learned is a fact of the database. Whoever forgets anything deletes that, too, so it
learns anew from what is left.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.cache.database import Database, connect
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import LEARNED, newest_answer, num_tokens_since
from edgespec.cache.tokens.sequences import VocabularyKey
from edgespec.errors import EdgeSpecError
from edgespec.learning.claim import Claim
from edgespec.learning.trainings import TrainingStore
from edgespec.machine.available import (
    OthersMeter,
    available_memory,
    is_on_battery,
    own_seconds,
)
from edgespec.machine.facts import file_fingerprint
from edgespec.paths import Paths
from edgespec.pauses import Pause
from edgespec.reports import Report
from edgespec.runtime.learner import Learner
from edgespec.runtime.train_child import arguments_of

if TYPE_CHECKING:
    from edgespec.runtime.form import Form

LEAST_NEW = 10_000
"""Tokens that a target must have said since the drafter last learned."""

MOST_SECONDS = 20 * 60.0
"""A process learns so long, by its own computing, before what it learned is judged."""

MOST_BUSY = 0.75
"""Cores that other programs may keep busy."""

LOOK_S = 10.0
"""How long the machine is looked at before it counts as quiet."""

_ROOM_BYTES, _ROOM_SHARE = 5 << 29, 6
"""Memory that PyTorch and one lesson take, and the weights as float32 for the file's bytes."""

_BUSY_TIMEOUT_S = 0.5
_CACHE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is asked of the machine: whether work that nobody waits for is in nobody's way."""

    is_on_battery: Callable[[], bool] = is_on_battery
    available: Callable[[], int | None] = available_memory
    busy_s: Callable[[], float | None] | None = None
    look_s: float = LOOK_S


@dataclass(frozen=True, slots=True)
class Learning:
    """Whose drafters learn, from what: answers in `database` to targets of a vocabulary."""

    target: Path
    vocabulary: VocabularyKey
    database: Path
    paths: Paths
    num_threads: int


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why `whole` is to learn now: what was said up to answer number `newest`."""

    whole: Path
    drafter: str
    newest: int


class IdleTraining:
    """Implements `edgespec.runtime.idle.IdleTask`; the last one, since it takes minutes.

    What goes wrong in the process is raised: no more is tried in this run.
    """

    def __init__(
        self,
        learning: Learning,
        serving: Callable[[], Form | None],
        serve: Callable[[Pause], None],
        report: Report,
        surroundings: Surroundings | None = None,
        program: Sequence[str] = (),
    ) -> None:
        """`serving` gives the model that drafts now; `serve` has what it learned draft.

        `program` learns in place of `edgespec.runtime.train_child`.
        """
        self._learning = learning
        self._store = TrainingStore(learning.paths.adaptations)
        self._serving = serving
        self._serve = serve
        self._report = report
        self._around = surroundings or Surroundings()
        self._program = program
        self._meter = OthersMeter(self._around.busy_s)
        self._reason: _Reason | None = None
        self._claim: Claim | None = None
        self._learner: Learner | None = None
        self._is_quiet = False
        self._is_over = False
        self._unnoted: dict[str, int] = {}

    @property
    def name(self) -> str:
        """What is done now, and no more after it failed."""
        form = self._serving()
        who = self._reason.whole.stem if self._reason else form.name if form else "a drafter"
        is_learning = self._learner is not None and self._is_quiet
        return f"{who} {'learns' if is_learning else 'waits to learn'} from your chats"

    def run(self, pause: Pause) -> bool:
        """Look, begin or follow, for some seconds; see `IdleTask.run`."""
        pause()
        if self._learner is None:
            self._reason = None if self._is_over else self._look()
            if self._reason is None:
                return False
            if not self._may_begin(pause):
                return True
            if not self._begin(self._reason):
                return False
        return self._follow(pause)

    def close(self) -> None:
        """End the process, if there is one; it goes on where it kept a state."""
        if self._learner is not None:
            self._learner.close()
        if self._claim is not None:
            self._claim.give_up()
        self._learner = self._claim = None

    def _look(self) -> _Reason | None:
        """Whether enough was said since the drafter that serves last learned."""
        form, vocabulary = self._serving(), self._learning.vocabulary
        if form is None:
            return None
        path, drafter = self._learning.database, file_fingerprint(form.whole)
        key = self._key(drafter)
        with contextlib.closing(connect(path, _BUSY_TIMEOUT_S, _CACHE_BYTES)) as connection:
            facts = Facts(Database(connection, path))
            if key in self._unnoted and facts.put(LEARNED, key, {"sequence": self._unnoted[key]}):
                del self._unnoted[key]
            since = (facts.get(LEARNED, key) or {}).get("sequence", 0)
            since = max(since, self._unnoted.get(key, 0))
            if num_tokens_since(connection, vocabulary, since) < LEAST_NEW:
                return None
            return _Reason(form.whole, drafter, newest_answer(connection, vocabulary))

    def _may_begin(self, pause: Pause) -> bool:
        """Look for a while whether the machine is quiet, and has room."""
        self._meter.look(own_seconds())
        with pause.aborting(waiting := _Waiting()):
            waiting.wait(self._around.look_s)
        pause()
        free, reason = self._around.available(), self._reason
        assert reason is not None
        need = _ROOM_BYTES + _ROOM_SHARE * reason.whole.stat().st_size
        self._is_quiet = self._seems_quiet() and (free is None or free >= need)
        return self._is_quiet

    def _seems_quiet(self) -> bool:
        """Whether others left the processor alone since the last look, and power is no matter."""
        children = [self._learner.pid] if self._learner is not None else []
        busy = self._meter.look(own_seconds(children))
        return (busy is None or busy < MOST_BUSY) and not self._around.is_on_battery()

    def _begin(self, reason: _Reason) -> bool:
        """Start the process; False if another one learns for this pair."""
        self._store.ensure()
        learning = self._learning
        pair = learning.vocabulary.fingerprint, reason.drafter
        claim = Claim.take(self._store.claim(*pair))
        if claim is None:
            return False
        self._claim = claim
        arguments = arguments_of(
            learning.target,
            reason.whole,
            learning.paths,
            claim.path,
            learning.num_threads,
            MOST_SECONDS,
        )
        try:
            self._learner = Learner(arguments, self._program)
        except OSError:
            self.close()
            raise
        return True

    def _follow(self, pause: Pause) -> bool:
        """Let it compute until somebody comes, it ended, or for a while."""
        learner = self._learner
        assert learner is not None
        self._is_quiet = self._is_quiet and not self._around.is_on_battery()
        with pause.aborting(learner):
            if self._is_quiet:
                learner.go_on()
            else:
                learner.hold()
            self._meter.look(own_seconds([learner.pid]))
            has_ended = learner.wait(self._around.look_s)
        pause()
        if has_ended:
            return self._ended(learner, pause)
        self._is_quiet = self._seems_quiet()
        if not self._is_quiet:
            learner.hold()
        return True

    def _ended(self, learner: Learner, pause: Pause) -> bool:
        """Take what came of it; True if it was ended before it came to anything."""
        try:
            if learner.is_killed:
                return True
            serves = self._settled(learner.outcome())
        finally:
            self.close()
        if serves:
            self._serve(pause)
        return False

    def _settled(self, told: dict[str, object]) -> bool:
        """Note how far it learned; whether what it learned serves. Raises what went wrong."""
        assert self._reason is not None
        assert self._claim is not None
        if told.get("problem"):
            raise EdgeSpecError(str(told["problem"]))
        if told.get("is_too_soon"):
            self._is_over = True
            return False
        if told.get("is_forgotten") or not self._claim.holds:
            return False
        self._note(self._key(self._reason.drafter), self._reason.newest, self._claim)
        if not told.get("serves"):
            return False
        line = f"{self._reason.whole.stem} learned from your chats by itself: {told.get('line')}"
        self._report(line)
        return True

    def _note(self, key: str, newest: int, claim: Claim) -> None:
        path, is_noted = self._learning.database, False
        with (
            contextlib.suppress(sqlite3.Error),  # locked, full: at the next look
            contextlib.closing(connect(path, _BUSY_TIMEOUT_S, _CACHE_BYTES)) as connection,
        ):
            facts = Facts(Database(connection, path))
            is_noted = facts.put(LEARNED, key, {"sequence": newest})
            if not claim.holds:  # somebody forgot, and may have done so before this was noted
                facts.forget(LEARNED)
        if not is_noted:
            self._unnoted[key] = newest

    def _key(self, drafter: str) -> str:
        return f"{self._learning.vocabulary.fingerprint}|{drafter}"


class _Waiting:
    """Implements `edgespec.pauses.Abortable`: a wait that ends when somebody comes."""

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def wait(self, timeout_s: float) -> None:
        self._is_over.wait(timeout_s)

    def abort(self) -> None:
        """Wait no longer."""
        self._is_over.set()

    def resume(self) -> None:
        """Nothing: it waits once."""
