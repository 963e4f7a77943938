"""`edgespec bench --serve`: servers under the load of several clients."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec import __version__
from edgespec.cli.bench_peers import opened_peers, peer_specs, url_specs
from edgespec.errors import NetworkError, UsageError
from edgespec.runtime.request import LoadRequest

if TYPE_CHECKING:
    from edgespec.bench.load import Load, LoadPlan
    from edgespec.bench.peers import OpenPeer
    from edgespec.bench.records import Asked, LoadReport
    from edgespec.types import SamplingParams

NUM_SLOTS = 4
"""Answers that a llama-server of our own computes at a time, as `edgespec serve` does."""

_MOST_CLIENTS = 256


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --peer, and --serve with --clients, --rounds and --minutes, to a command."""
    for option in (
        click.option(
            "--peer",
            "peers",
            multiple=True,
            metavar="NAME=URL|PATH",
            callback=peer_specs,
            help="Another program: an OpenAI-compatible server, or a llama-server (with its flags "
            "behind the path) that is started and stopped; may be repeated.",
        ),
        click.option("--minutes", type=float, default=30.0, show_default=True, help="At most."),
        click.option(
            "--rounds",
            type=int,
            default=6,
            show_default=True,
            metavar="N",
            help="Blocks of each number of clients; intervals need 6.",
        ),
        click.option(
            "--clients",
            default="1,2,4,8",
            show_default=True,
            metavar="N,..",
            callback=_clients,
            help="How many ask a server at a time.",
        ),
        click.option(
            "--serve",
            "servers",
            multiple=True,
            metavar="[NAME=]URL",
            callback=url_specs,
            help="Measure OpenAI-compatible servers under load instead, in turns; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def _clients(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Reads numbers of clients, separated by commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    counts = [int(word) if word.isdecimal() else 0 for word in words]
    if not counts or not all(1 <= count <= _MOST_CLIENTS for count in counts):
        raise UsageError(f"--clients {text}", f"give numbers from 1 to {_MOST_CLIENTS}, as 1,2,4")
    return tuple(dict.fromkeys(counts))


def measure_load(
    values: Mapping[str, Any], loading: LoadRequest, sampling: SamplingParams, out: Path | None
) -> None:
    """Measure the servers of --serve and --peer in turns, print the table, write the file.

    Raises UsageError, NetworkError where no server answers, StorageError.
    """
    from edgespec.bench.load import Load, Quiet
    from edgespec.cli.bench_written import check_writable

    if values["rounds"] < 1 or values["minutes"] <= 0:
        raise UsageError("no round, or no time", "give at least 1 of --rounds, and --minutes")
    if out is not None:
        check_writable(out)
    asked = _asked(values, sampling)
    plan = _plan(values, asked, sampling)
    specs = (*values["servers"], *values["peers"])
    with opened_peers(specs, loading, NUM_SLOTS) as (peers, left_out):
        if not peers:
            raise NetworkError("; ".join(left_out))
        for line in left_out:
            _say(f"left out: {line}")
        quiet = Quiet() if len(peers) > 1 else Quiet(patience_s=0.0)
        endpoints = [peer.endpoint for peer in peers]
        load = Load(endpoints, plan, _say, quiet=quiet, left_out=left_out)
        begun = _begun(peers, asked)
        is_complete = False
        try:
            is_complete = load.play()
        finally:  # what was measured before Ctrl-C is not lost
            _tell(begun, load, out, is_complete)


def _plan(values: Mapping[str, Any], asked: Asked, sampling: SamplingParams) -> LoadPlan:
    """Who asks what; says so where there are too few questions for all rounds."""
    from edgespec.bench.load import plan_load
    from edgespec.bench.plan import cold_questions

    questions = cold_questions(asked.suite, asked.categories, values["limit"])
    plan = plan_load(
        questions,
        values["clients"],
        values["rounds"],
        sampling,
        values["max_tokens"],
        values["minutes"],
    )
    if len(plan.rounds) < values["rounds"]:
        _say(f"{len(questions)} questions are enough for {len(plan.rounds)} rounds")
    return plan


def _asked(values: Mapping[str, Any], sampling: SamplingParams) -> Asked:
    """What is asked, as it is written down."""
    from edgespec.bench.plan import ALL
    from edgespec.bench.records import Asked

    named = (values["categories"] or "").split(",")
    return Asked(
        suite=values["suite"] or ALL,
        warm=None,
        num_earlier=0,
        categories=tuple(name.strip() for name in named if name.strip()),
        max_tokens=values["max_tokens"],
        temperature=sampling.temperature,
        seed=sampling.seed,
        sampling=dataclasses.asdict(sampling),
    )


def _begun(peers: Sequence[OpenPeer], asked: Asked) -> LoadReport:
    """What a report tells besides its blocks."""
    from edgespec.bench.records import LoadReport, ProgramForm, Way
    from edgespec.cli.bench_written import commit, machine_form
    from edgespec.machine.identity import this_machine

    return LoadReport(
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        machine=machine_form(this_machine()),
        program=ProgramForm(version=__version__, commit=commit(), library=""),
        asked=asked,
        servers=tuple(Way(name=each.name, about=each.about, is_peer=True) for each in peers),
    )


def _tell(begun: LoadReport, load: Load, out: Path | None, is_complete: bool) -> None:
    """Print the table and write the file; failing at one does not prevent the other."""
    from edgespec.bench.load_table import print_load
    from edgespec.bench.records import write_report

    if not load.blocks:
        return
    report = begun.model_copy(
        update={
            "blocks": tuple(load.blocks),
            "left_out": tuple(load.left_out),
            "is_complete": is_complete,
        }
    )
    try:
        print_load(report)
    finally:
        if out is not None:
            write_report(out, report)


def _say(line: str) -> None:
    click.echo(line, err=True)
