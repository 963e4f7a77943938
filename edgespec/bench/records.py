"""What a benchmark writes down: the form of `--json`, which `compare`, `--resume` and pages read.

Times are in milliseconds. A *way* is one way to answer; a *run* is one question answered one way,
all turns together. What is read back is checked: a file of another form raises UsageError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgespec.errors import UsageError
from edgespec.files.scratch import write_text

SCHEMA: Literal[2] = 2
"""Changes whenever a field is renamed, removed or means something else."""

Ms = Annotated[float, Field(ge=0)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Split(_Form):
    """Where the time of decoding went; `rest` is what the others leave of it."""

    target: Ms = 0.0
    drafters: Ms = 0.0
    bridge: Ms = 0.0
    lookups: Ms = 0.0
    planner: Ms = 0.0
    sampler: Ms = 0.0
    text: Ms = 0.0
    rest: float = 0.0


class Passes(_Form):
    """Target passes of a run after the first token, one entry each, all lists equally long.

    `rows` were computed, `kept` tokens came of them, `context` tokens were cached before. `took`
    is the target's time, `drafting` that of all drafters, `plain` what the planner took a pass
    without a draft for. `estimates` are those of the draft's tokens, in order.
    """

    rows: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    took: tuple[float, ...] = ()
    drafting: tuple[float, ...] = ()
    plain: tuple[float, ...] = ()
    estimates: tuple[tuple[float, ...], ...] = ()


class Counts(_Form):
    """Draft tokens of one source that were verified, and kept."""

    proposed: int = 0
    accepted: int = 0


class Run(_Form):
    """One question answered one way.

    Times are sums over its turns. `place` is its turn among the ways of this question, from 0.
    `request_ms` goes from the request
    to the last byte; what reading the prompt took is `prompt_ms`, which ways that share a cache
    share. `num_tokens` were decoded, first tokens included; `decode_ms` counts from the first one.
    `spans` are sources and numbers of tokens in a row. `differs_at` is the first character at which
    the text is not that of plain decoding, None where it is the same or cannot be compared (a
    peer's). `scores` are those of the suite, from 0 to 1. `load` is the machine's load average
    before it, `joules` what the processor took for it and for reading the prompt, None where nobody
    can tell. Passes, split and spans are empty for peers, whose drafts have one source, themselves.
    """

    question: str
    category: str
    way: str
    place: int
    num_turns: int
    num_prompt_tokens: int
    num_tokens: int
    request_ms: Ms
    prompt_ms: Ms
    first_token_ms: Ms
    decode_ms: Ms
    target_passes: int = 0
    by_source: dict[str, Counts] = {}
    split: Split = Split()
    passes: Passes = Passes()
    spans: tuple[tuple[str, int], ...] = ()
    text: str = ""
    differs_at: int | None = None
    scores: dict[str, float] = {}
    load: float | None = None
    joules: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens after each turn's first per second of decoding; 0 where there are none."""
        later = self.num_tokens - self.num_turns
        return later / self.decode_ms * 1e3 if later > 0 and self.decode_ms > 0 else 0.0

    @property
    def request_tokens_per_second(self) -> float:
        """All tokens per second from request to last byte."""
        return self.num_tokens / self.request_ms * 1e3 if self.request_ms > 0 else 0.0


class Way(_Form):
    """One way to answer. `is_peer` tells another program; `about` is a sentence for people.

    `guess_bytes` are the weights that its drafting model reads for a guess, 0 without one.
    `is_planned` tells that the planner chose by costs how much of a draft to verify.
    """

    name: str
    about: str
    is_peer: bool = False
    guess_bytes: int = 0
    is_planned: bool = True


class Drift(_Form):
    """The same plain answer, timed now and then: how the machine changed during the run."""

    after_questions: int
    token_ms: Ms


class MachineForm(_Form):
    """Where it was measured.

    `read_bandwidth` is the most that memory was read at, in bytes per second; 0 if not measured.
    """

    processor: str
    features: str
    num_threads: int
    memory_bytes: int
    system: str
    read_bandwidth: float = 0.0


class TargetForm(_Form):
    """What answered: the file's SHA-256 names it. A plain pass reads `pass_bytes` of it."""

    name: str
    description: str
    quantization: str
    size_bytes: int
    pass_bytes: int
    sha256: str
    drafter: str
    exactness: str
    settings: dict[str, str | int | float | bool | None] = {}


class ProgramForm(_Form):
    """Which program measured: its version, the commit where it is run from one, the library."""

    version: str
    commit: str
    library: str


class Asked(_Form):
    """What was asked, and how."""

    suite: str
    warm: str | None
    num_earlier: int
    categories: tuple[str, ...]
    max_tokens: int
    temperature: float
    seed: int
    sampling: dict[str, object] = {}


class Report(_Form):
    """One benchmark. `pass_ms` is T(r) by rows; `is_complete` is False where it was cut short.

    `left_out` are questions that did not fit, ways that make no sense here and peers that failed,
    with the reason.
    """

    form: Literal[2] = Field(default=SCHEMA, alias="schema")
    started: str
    machine: MachineForm
    program: ProgramForm
    target: TargetForm
    asked: Asked
    ways: tuple[Way, ...]
    runs: tuple[Run, ...] = ()
    pass_ms: dict[int, Ms] = {}
    drift: tuple[Drift, ...] = ()
    left_out: tuple[str, ...] = ()
    is_complete: bool = False

    def of(self, way: str) -> dict[str, Run]:
        """The runs of a way, by question."""
        return {run.question: run for run in self.runs if run.way == way}


class LoadAnswer(_Form):
    """One answer of a server under load, as its client saw it; times in ms from the request.

    `is_counted` tells that the server counted the tokens; else they are pieces of text, between
    which `gaps_ms` are. `failure` is the kind of an answer that was none, "" else.
    """

    question: str
    client: int
    num_tokens: int = 0
    is_counted: bool = True
    first_ms: Ms = 0.0
    whole_ms: Ms = 0.0
    gaps_ms: tuple[Ms, ...] = ()
    failure: str = ""


class LoadBlock(_Form):
    """So many clients asking one server; `place` is its turn among the servers of this round.

    `busy` is the share of the client's machine that was in use before, from 0 to 1.
    """

    server: str
    num_clients: int
    round: int
    place: int
    wall_ms: Ms
    busy: float
    answers: tuple[LoadAnswer, ...]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all clients together, per second from the first request to the last byte."""
        num_tokens = sum(answer.num_tokens for answer in self.answers)
        return num_tokens / self.wall_ms * 1e3 if self.wall_ms > 0 else 0.0


class LoadReport(_Form):
    """One measurement of servers under load, from the machine of their clients.

    `servers` are other programs all, the first one that with which they are compared.
    """

    form: Literal["load-1"] = Field(default="load-1", alias="schema")
    started: str
    machine: MachineForm
    program: ProgramForm
    asked: Asked
    servers: tuple[Way, ...]
    blocks: tuple[LoadBlock, ...] = ()
    left_out: tuple[str, ...] = ()
    is_complete: bool = False


def read_report(path: Path) -> Report:
    """A report from its file; raises UsageError for one that is none."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "check it") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        raise UsageError(
            f"{path} is no report of this version: {where}: {first['msg']}",
            "make it anew with `edgespec bench --json`",
        ) from error


def write_report(path: Path, report: Report | LoadReport) -> None:
    """Write a report, whole or not at all; raises StorageError."""
    write_text(path, report.model_dump_json(by_alias=True) + "\n")
