"""Servers under load: what is asked of whom, what is counted, and when it ends."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_peer import WHOLE, FakePeer, fake_peer
from rich.console import Console
from server_support import EchoCompleter, Running, running_server

from edgespec.bench.chat_client import Endpoint, PeerError, endpoint
from edgespec.bench.load import Load, LoadPlan, plan_load
from edgespec.bench.load_figures import fairness, load_figures
from edgespec.bench.load_table import print_load
from edgespec.bench.records import (
    Asked,
    LoadAnswer,
    LoadBlock,
    LoadReport,
    MachineForm,
    ProgramForm,
    Way,
    write_report,
)
from edgespec.bench.suite import Question
from edgespec.errors import UsageError
from edgespec.server.settings import ServerSettings
from edgespec.types import SamplingParams

QUESTIONS = [Question(str(number), "any", (f"Question {number}?",)) for number in range(40)]


def plan(clients: tuple[int, ...] = (1, 2), rounds: int = 2, minutes: float = 5.0) -> LoadPlan:
    return plan_load(QUESTIONS, clients, rounds, SamplingParams(seed=3), 16, minutes)


def load(servers: list[Endpoint], planned: LoadPlan, said: list[str] | None = None) -> Load:
    lines: list[str] = [] if said is None else said
    return Load(servers, planned, lines.append, quiet=lambda: 0.0)


@pytest.fixture
def completer() -> EchoCompleter:
    return EchoCompleter()


@pytest.fixture
def server(completer: EchoCompleter) -> Iterator[Running]:
    with running_server(completer, ServerSettings(port=0, slots=4)) as it:
        yield it


def of(server: Running, name: str = "ours") -> Endpoint:
    return endpoint(name, server.url)


def test_no_question_is_asked_twice_and_the_seed_decides() -> None:
    planned = plan((1, 2, 4), rounds=2)
    asked = [q.id for blocks in planned.rounds for dealt in blocks for own in dealt for q in own]
    assert len(asked) == len(set(asked)) == 2 * (4 + 4 + 8)
    assert [sorted(len(dealt) for dealt in blocks) for blocks in planned.rounds] == [[1, 2, 4]] * 2
    assert plan((1, 2, 4), rounds=2) == planned
    assert len(plan((8, 4), rounds=9).rounds) == 1, "the questions are enough for one"
    with pytest.raises(UsageError, match="40 questions are too few: a round takes 64"):
        plan((32,))


def test_servers_get_the_same_questions_and_all_clients_ask(
    server: Running, completer: EchoCompleter
) -> None:
    said: list[str] = []
    running = load([of(server, "one"), of(server, "two")], plan(), said)
    assert running.play()
    assert len(running.blocks) == 8
    asked = Counter(request.prompt[-1].content for request in completer.requests)  # type: ignore[union-attr]
    assert len(asked) == 16 and set(asked.values()) == {2}
    for block in running.blocks:
        assert Counter(answer.client for answer in block.answers) == dict.fromkeys(
            range(block.num_clients), 4 // block.num_clients
        )
        assert all(answer.is_counted and not answer.failure for answer in block.answers)
        assert all(answer.num_tokens in (12, 13) for answer in block.answers)
    pairs = [(block.round, block.num_clients) for block in running.blocks]
    assert pairs[::2] == pairs[1::2], "blocks of both servers follow each other"
    assert len({block.server for block in running.blocks if block.place == 0}) == 2
    assert said[0].startswith("round 1: ") and "tokens/s" in said[0]


def test_clients_ask_at_the_same_time(server: Running, completer: EchoCompleter) -> None:
    completer.token_s = 0.001
    running = load([of(server)], plan((8,), rounds=1))
    assert running.play()
    assert completer.most_open > 1


def test_failures_are_counted_by_kind(completer: EchoCompleter) -> None:
    with fake_peer(FakePeer(WHOLE)) as peer:
        running = load([endpoint("fake", peer.url)], plan((2,), rounds=2))
        peer.fails_every = 2
        assert running.play()
    kinds = Counter(answer.failure for block in running.blocks for answer in block.answers)
    assert kinds == {"": 4, "busy": 4}
    figures = load_figures(report_of(running), "fake", 2)
    assert figures is not None
    assert (figures.failures, figures.num_answers) == ({"busy": 4}, 4)


def test_a_server_that_fails_is_left_out_with_one_line(server: Running) -> None:
    said: list[str] = []
    with fake_peer(FakePeer((b"data: nonsense\n\n",))) as peer:
        running = load([of(server), endpoint("fake", peer.url)], plan(), said)
        assert running.play()
        alone = load([endpoint("fake", peer.url)], plan())
        with pytest.raises(PeerError, match="fake sends what is no answer: nonsense"):
            alone.play()
    assert {block.server for block in running.blocks} == {"ours"}
    assert len(running.blocks) == 4
    assert running.left_out == ["fake sends what is no answer: nonsense"]
    assert sum(line.startswith("left out: ") for line in said) == 1


def test_what_is_under_way_when_the_time_is_over_is_dropped(
    server: Running, completer: EchoCompleter
) -> None:
    running = load([of(server)], plan())

    def slow() -> float:
        completer.token_s = 30.0 if running.blocks else 0.0
        return 0.0

    running.quiet = slow
    running.plan = dataclasses.replace(running.plan, minutes=1 / 60)
    assert not running.play()
    assert len(running.blocks) <= 1
    running.plan = dataclasses.replace(running.plan, minutes=0.0)
    assert not running.play()


def block(name: str, number: int, speeds: tuple[float, ...], **more: float) -> LoadBlock:
    """A block of a second, in which each client hears so many tokens a second."""
    answers = tuple(
        LoadAnswer(
            question=str(client),
            client=client,
            num_tokens=round(speed),
            first_ms=100.0 * (client + 1),
            whole_ms=1000.0,
            gaps_ms=(10.0, 20.0, 90.0),
        )
        for client, speed in enumerate(speeds)
    )
    base = {"wall_ms": 1000.0, "busy": 0.0, "place": 0} | more
    return LoadBlock(
        server=name,
        num_clients=len(speeds),
        round=number,
        answers=answers,
        **base,  # type: ignore[arg-type]
    )


def report_of(running: Load | list[LoadBlock], **more: object) -> LoadReport:
    blocks = running if isinstance(running, list) else running.blocks
    names = dict.fromkeys(each.server for each in blocks)
    report = LoadReport(
        started="now",
        machine=MachineForm(processor="p", features="", num_threads=2, memory_bytes=1, system="s"),
        program=ProgramForm(version="0", commit="", library=""),
        asked=Asked(
            suite="mixed",
            warm=None,
            num_earlier=0,
            categories=(),
            max_tokens=16,
            temperature=0.0,
            seed=0,
        ),
        servers=tuple(Way(name=name, about=f"about {name}", is_peer=True) for name in names),
        blocks=tuple(blocks),
        is_complete=True,
    )
    return report.model_copy(update=more)


SPEEDS = [(30.0, 10.0), (32.0, 16.0), (40.0, 20.0), (36.0, 18.0), (50.0, 25.0), (44.0, 22.0)]
BLOCKS = [
    each
    for number, speeds in enumerate(SPEEDS)
    for each in (
        block("slow", number, speeds),
        block("fast", number, tuple(3 * speed for speed in speeds)),
    )
]


def test_figures_of_known_blocks() -> None:
    figures = load_figures(report_of(BLOCKS), "fast", 2)
    assert figures is not None and figures.ratio is not None
    assert figures.ratio.median == 3.0 and figures.ratio.interval == (3.0, 3.0)
    assert figures.speed.median == 3 * 57.0
    assert figures.first == (150.0, 200.0)
    assert figures.gap == (20.0, 90.0, 90.0)
    assert figures.fairness == 0.5
    base = load_figures(report_of(BLOCKS), "slow", 2)
    assert base is not None and base.ratio is None
    assert load_figures(report_of(BLOCKS), "slow", 3) is None


def test_rounds_that_only_one_server_finished_make_no_ratio() -> None:
    figures = load_figures(report_of([*BLOCKS[:4], BLOCKS[5]]), "fast", 2)
    assert figures is not None and figures.ratio is not None
    assert (figures.ratio.num, figures.speed.num) == (2, 3)


def test_who_hears_nothing_is_not_served_alike() -> None:
    assert fairness(block("x", 0, (10.0, 0.0))) == 0.0
    assert str(fairness(block("x", 0, (0.0, 0.0)))) == "nan"


def printed(report: LoadReport) -> str:
    out = io.StringIO()
    print_load(report, Console(file=out, width=110, markup=False, highlight=False))
    return out.getvalue()


def test_the_table_and_its_doubts() -> None:
    lines = printed(report_of(BLOCKS)).splitlines()
    assert lines[:2] == ["slow: about slow", "fast: about fast"]
    assert lines[3].split() == ["2", "slow", "57.0", "150", "200", "20", "90", "90", "0.50"]
    assert lines[4].split()[2:7] == ["171.0", "3.00", "3.00", "to", "3.00"]
    assert "Cut short" not in printed(report_of(BLOCKS))
    uncounted = LoadAnswer(question="q", client=0, num_tokens=3, is_counted=False, whole_ms=9.0)
    odd = block("slow", 9, (1.0,), busy=0.42).model_copy(update={"answers": (uncounted,)})
    told = printed(report_of([odd], is_complete=False, left_out=("fast is gone",)))
    for words in ("Cut short", "up to 42% in use", "slow counts no tokens", "Left out: fast is"):
        assert words in told


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    write_report(out, report_of(BLOCKS))
    read = json.loads(out.read_text())
    assert read["schema"] == "load-1"
    assert LoadReport.model_validate(read) == report_of(BLOCKS)
