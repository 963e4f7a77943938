"""The host behind the `Completer` protocol: nothing here loads the native library.

    load      starts a process if there is none, and has it load a model, or another one
    answer    asks it; a process that died is started again first, with the same model
    death     ends the answers that are open with `HostDied`; nobody else is told
    cancel    of a load: one that waits for answers is taken back, one under way ends the process,
              and another one loads the model that there was
    let_go    ends a process that nothing is asked of; the next question starts another one

A process that dies of what it loads is tried once more at once; after that its death stands for a
while, so that a file that always kills it does not keep the machine busy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import EdgeSpecError, HostDied, LoadCancelled, ModelFileError
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.reports import Report
from edgespec.runtime.host_death import Death
from edgespec.runtime.host_messages import (
    NOT_LOADED,
    Ask,
    Consultation,
    CountTokens,
    DecodeToken,
    Embed,
    Encode,
    Forget,
    Load,
    Render,
    TellInsight,
    Tokenize,
)
from edgespec.runtime.host_process import Call, HostProcess, Spawn, spawn_host
from edgespec.runtime.request import NO_DRAFTER, LoadRequest
from edgespec.types import (
    Chunk,
    CompletionRequest,
    Insight,
    Message,
    SamplingParams,
    ServedModel,
)
from edgespec.workers import unreachable

_MOST_DEATHS = 2
REST_S = 10.0
"""How long a process is not started again after so many deaths in loading."""


@dataclass(slots=True)
class _Loading:
    """A load that somebody waits for."""

    process: HostProcess
    call: Call
    is_cancelled: bool = False


class HostAnswer:
    """Implements `edgespec.protocols.Answer` over what a host sends."""

    def __init__(self, process: HostProcess, call: Call) -> None:
        """Use `Host.answer`."""
        self._process = process
        self._call = call
        self._is_over = False

    def __iter__(self) -> Iterator[Chunk]:
        """The answer itself."""
        return self

    def __next__(self) -> Chunk:
        """Wait for the next chunk; a signal interrupts the wait, and it may be waited for again."""
        if self._is_over:
            raise StopIteration
        try:
            chunk = self._call.get()
        except EdgeSpecError:
            self._is_over = True
            raise
        assert isinstance(chunk, Chunk)
        self._is_over = chunk.completion is not None
        return chunk

    def cancel(self) -> None:
        """End the answer, begun or not, from any thread."""
        self._process.cancel(self._call)

    def close(self) -> None:
        """Cancel, and take what is left."""
        self.cancel()
        with contextlib.suppress(EdgeSpecError):
            for _ in self:
                pass


class Host:
    """Implements `edgespec.protocols.Completer`; close it."""

    def __init__(
        self,
        paths: Paths,
        *,
        verbose: bool = False,
        spawn: Spawn = spawn_host,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`verbose` lets people see what the process says on stderr."""
        self._paths = paths
        self._verbose = verbose
        self._spawn = spawn
        self._clock = clock
        self._died_at = 0.0
        self._lock = threading.Lock()
        self._process: HostProcess | None = None
        self._num_deaths = 0
        self._is_closed = False
        self._load: Load | None = None
        self._workers: tuple[str, ...] = ()
        self._loading: _Loading | None = None
        self._model: ServedModel | None = None
        self._pieces: dict[int, bytes] = {}
        self._report: Report = _ignore

    @property
    def model(self) -> ServedModel:
        """The loaded target and how it is served; only after `load`."""
        assert self._model is not None, "nothing was loaded"
        return self._model

    def start(self) -> None:
        """Have the process get ready while others have better things to do."""
        with self._lock:
            self._living()

    def load(
        self,
        options: LoadRequest,
        path: Path,
        report: Report,
        sampling: SamplingParams | None = None,
    ) -> ServedModel:
        """Load the model at `path`, between answers, in the place of the one there was.

        `report` gets lines for people, in a thread, also later. `sampling` is what the model will
        be asked for: nonsense is refused (UsageError) before the load. Raises what kept the model
        from being loaded, HostDied and LoadCancelled included; the one before then serves on.
        """
        self._report = report
        load = Load(options, path, self._paths, sampling or SamplingParams())
        with self._lock:
            self._num_deaths = 0
            self._workers = options.workers
            process = self._living()
            call = process.call(load)
            loading = self._loading = _Loading(process, call)
        try:
            model = call.get()
        except HostDied as death:
            if not loading.is_cancelled:
                raise
            self._come_back()
            raise LoadCancelled(NOT_LOADED) from death
        finally:
            self._loading = None
        assert isinstance(model, ServedModel)
        with self._lock:
            self._load, self._model = load, model
            self._pieces.clear()
        return model

    def cancel_load(self) -> None:
        """End the load under way, if there is one, from any thread; returns at once.

        `load` raises LoadCancelled then, unless it was done before.
        """
        loading = self._loading
        if loading is not None:
            loading.is_cancelled = True
            loading.process.cancel(loading.call)

    def answer(self, request: CompletionRequest) -> HostAnswer:
        """The handle of an answer to `request`; raises nothing and does not wait."""
        return HostAnswer(*self._call(Ask(request)))

    def insight(self) -> Insight:
        """What is known now of speed here; raises HostDied."""
        insight = self._told(TellInsight())
        assert isinstance(insight, Insight)
        return insight

    def forget(self, conversation: str) -> None:
        """Delete what was computed of a conversation, also what is not written yet.

        Returns at once. Without a host at hand, `edgespec.runtime.prompt_files.delete_prompts`.
        """
        from edgespec.runtime.prompt_files import delete_prompts  # what a pass is made of

        delete_prompts(self._paths.prompts, conversation)
        with self._lock:
            if self._process is not None:
                self._process.call(Forget(conversation))

    def count_tokens(self, text: Sequence[Message] | str) -> int:
        """Tokens that a conversation or a plain text takes; raises HostDied."""
        count = self._told(CountTokens(text if isinstance(text, str) else tuple(text)))
        assert isinstance(count, int)
        return count

    def encode(self, request: CompletionRequest) -> tuple[int, ...]:
        """Token ids of a request's prompt; raises UsageError and HostDied."""
        tokens = self._told(Encode(request))
        assert isinstance(tokens, tuple)
        return tokens

    def render(self, request: CompletionRequest) -> str:
        """The text that a request's conversation becomes; raises UsageError and HostDied."""
        text = self._told(Render(request))
        assert isinstance(text, str)
        return text

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> tuple[int, ...]:
        """Token ids of a text; raises HostDied."""
        tokens = self._told(Tokenize(text, add_special, parse_special))
        assert isinstance(tokens, tuple)
        return tokens

    def decode_token(self, token: int) -> bytes:
        """The bytes of one token id; raises HostDied."""
        piece = self._pieces.get(token)
        if piece is None:
            found = self._told(DecodeToken(token))
            assert isinstance(found, bytes)
            piece = self._pieces[token] = found
        return piece

    def let_go(self) -> bool:
        """End the process, so that its memory is free; False while anything is asked of it.

        What is asked next starts another one with the same model. Waits until what was learned is
        written down.
        """
        with self._lock:
            process = self._process
            if process is None or process.is_busy:
                return process is None
            self._process = None
        process.close()
        return True

    def close(self) -> None:
        """End the process, once it has written down what it learned."""
        with self._lock:
            process, self._is_closed = self._process, True
        if process is not None:
            process.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _come_back(self) -> None:
        """Have another process load the model that there was."""
        with self._lock:
            process = self._living()
            if self._load is not None:
                process.call(self._load)

    def embed(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """The vector of a text's tokens; raises UsageError and HostDied."""
        vector = self._told(Embed(tuple(tokens)))
        assert isinstance(vector, tuple)
        return vector

    def _told(self, message: Consultation | Embed) -> object:
        """What the process answers; raises what it raised, and HostDied."""
        _, call = self._call(message)
        return call.get()

    def _call(self, message: Ask | Consultation | Embed) -> tuple[HostProcess, Call]:
        """Ask a process that has, or is about to have, the model.

        Where it could not be loaded again (a worker was gone), an answer has it tried once more.
        """
        with self._lock:
            before = self._process
            process = self._living()
            is_without = isinstance(message, Ask) and not (process.has_loaded or process.is_busy)
            if (process is not before or is_without) and self._load is not None:
                process.call(self._load)
            return process, process.call(message)

    def _living(self) -> HostProcess:
        """The process there is; another one if it died and had its rest. Under the lock."""
        process = self._process
        if process is not None and (process.death is None or self._is_closed):
            return process
        is_resting = self._clock() - self._died_at < REST_S
        if process is not None and self._num_deaths >= _MOST_DEATHS and is_resting:
            return process
        self._process = HostProcess(self._spawn, self._tell, self._mourn, verbose=self._verbose)
        return self._process

    def _tell(self, line: str) -> None:
        self._report(line)

    def _mourn(self, death: Death, died_loading: bool) -> Death:
        """In the process's thread, before anybody hears of it."""
        if self._workers and death.is_its_own:
            death = death.through_workers(unreachable(self._workers))
        self._died_at = self._clock()
        self._num_deaths = self._num_deaths + 1 if died_loading and death.is_its_own else 0
        if not death.is_its_own and death.pid is not None:
            Trials(self._paths.trials).withdraw(death.pid)
        return death


def try_again(path: Path, paths: Paths) -> None:
    """Load a file that killed a process before, in another one; raises ModelFileError if it does.

    Raises, too, what else keeps it from being loaded.
    """
    Trials(paths.trials).forgive(path)
    options = LoadRequest(drafter=NO_DRAFTER, remember=False)
    try:
        with Host(paths) as host:
            host.load(options, path, _ignore)
    except HostDied as death:
        raise ModelFileError(
            f"{path.name} still kills the engine ({death.problem})", "use another file"
        ) from death


def _ignore(_line: str) -> None:
    """Nobody is there to be told."""
