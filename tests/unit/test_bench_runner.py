"""Every way over the real engine with a pseudo-model: fair, comparable, complete."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import FakeDrafter, FakeSampler, FakeTarget, TinyBridge, flat_costs, make_engine, oracle
from rich.console import Console

from edgespec.bench.meters import Energy
from edgespec.bench.progress import Progress
from edgespec.bench.recorder import Recorder, split_of
from edgespec.bench.records import (
    Asked,
    MachineForm,
    ProgramForm,
    Report,
    Split,
    TargetForm,
    Way,
    read_report,
    write_report,
)
from edgespec.bench.resume import check_same, left_of
from edgespec.bench.runner import DRIFT_EVERY, Asker, Runner, Stopped
from edgespec.bench.same import check_same_bytes, differences
from edgespec.bench.suite import Question
from edgespec.bench.turns import Surroundings, Turn, run_of
from edgespec.bench.ways import PeerAnswer
from edgespec.engine.answer import EngineAnswer
from edgespec.engine.completer import EngineCompleter
from edgespec.engine.engine import Engine
from edgespec.errors import ExactnessError, NetworkError, StorageError, UsageError
from edgespec.passes import Kept, PassRecord
from edgespec.planning.planner import Planner
from edgespec.types import (
    PLAIN,
    PRODUCT,
    TARGET,
    CompletionRequest,
    Message,
    SamplingParams,
    ServedModel,
    Timings,
)

GREEDY = SamplingParams()
NUM_VOCAB = TinyBridge().num_vocab


class Bench:
    """A runner over the real completer, which notes who was asked what; implements `Ways`."""

    def __init__(
        self,
        num_context: int = 400,
        peers: Sequence[Peer] = (),
        seed: int = 0,
        report: Report | None = None,
    ) -> None:
        self.target = FakeTarget(num_vocab=NUM_VOCAB, num_context=num_context)
        self.about = {PLAIN: "one token a pass", PRODUCT: "all of it", "half": "half of it"}
        self.left_out: list[str] = ["third: there is none"]
        self.way = ""
        self.asked: list[tuple[str, CompletionRequest]] = []
        self.engine: Engine = make_engine(self.target)
        model = ServedModel("fake", "", num_context, 0, "fake", "identical")
        self.recorder = Recorder()
        self.completer = EngineCompleter(
            self.engine, TinyBridge(), lambda _: FakeSampler(), model, self.recorder
        )
        self._answer = self.completer.answer
        self.completer.answer = self.answer  # type: ignore[method-assign]
        self.asker = Asker(self.completer)
        self.kept: list[Report] = []
        self.bandwidths = iter([8e9, 9e9])
        self.runner = Runner(
            self.asker,
            self,
            self.recorder,
            SamplingParams(seed=seed),
            40,
            report or begun(*self.about),
            self.kept.append,
            lambda: next(self.bandwidths, 7e9),
            peers,
        )

    def use(self, name: str) -> None:
        self.way = name
        drafters = [] if name == PLAIN else [FakeDrafter(oracle(self.target), cost_ms=0.01)]
        self.engine.plan_with(Planner(drafters, flat_costs(), lambda: 0.0))

    def answer(self, request: CompletionRequest) -> EngineAnswer:
        self.asked.append((self.way, request))
        return self._answer(request)

    def run(self, *questions: Question) -> Report:
        self.runner.begin()
        self.runner.measure(questions)
        self.runner.finish()
        return self.kept[-1]


def begun(*ways: str) -> Report:
    """A report that has measured nothing."""
    return Report(
        started="now",
        machine=MachineForm(
            processor="p", features="", num_threads=2, memory_bytes=1, system="Linux"
        ),
        program=ProgramForm(version="1", commit="", library="1"),
        target=TargetForm(
            name="fake",
            description="",
            quantization="",
            size_bytes=0,
            pass_bytes=0,
            sha256="ab",
            drafter="fake",
            exactness="identical",
        ),
        asked=Asked(
            suite="s", warm=None, num_earlier=0, categories=(), max_tokens=40, temperature=0, seed=0
        ),
        ways=tuple(Way(name=name, about="") for name in ways),
    )


def ask(*turns: str, category: str = "a") -> Question:
    return Question("-".join(turns), category, turns)


def test_all_ways_say_the_same_and_tell_what_their_passes_gave() -> None:
    bench = Bench()
    runs = {run.way: run for run in bench.runner.ask(ask("ab a b"))}
    assert set(runs) == {PLAIN, PRODUCT, "half"}
    plain, fast = runs[PLAIN], runs[PRODUCT]
    assert (plain.text, plain.differs_at) == (fast.text, fast.differs_at) == (fast.text, None)
    assert sorted(run.place for run in runs.values()) == [0, 1, 2]
    for run in runs.values():
        assert run.target_passes == len(run.passes.kept) + 1
        assert sum(run.passes.kept) + run.num_turns == run.num_tokens
        assert sum(count for _, count in run.spans) == run.num_tokens
        assert {len(column) for column in run.passes.model_dump().values()} == {
            run.target_passes - 1
        }
        assert run.request_ms >= run.prompt_ms == run.first_token_ms
    assert set(plain.passes.rows) == {1} and not any(plain.passes.estimates)
    [counts] = fast.by_source.values()
    assert counts.accepted == sum(fast.passes.kept) - len(fast.passes.kept) > 0
    assert [len(each) + 1 for each in fast.passes.estimates] == list(fast.passes.rows)
    assert fast.spans[:2] == ((TARGET, 1), ("fake", fast.passes.kept[0] - 1))


def test_the_prompt_is_read_once_for_all_ways() -> None:
    bench = Bench()
    runs = bench.runner.ask(ask("ab a b"))
    (reader, read), *rest = bench.asked
    assert (reader, read.max_tokens, read.speculate) == (PLAIN, 1, False)
    assert {way: request.speculate for way, request in rest} == {
        PLAIN: False,
        PRODUCT: True,
        "half": True,
    }
    assert all(request.prompt == read.prompt and request.max_tokens == 40 for _, request in rest)
    assert len({run.prompt_ms for run in runs}) == 1


def test_who_goes_first_is_drawn_by_the_seed_and_the_question() -> None:
    questions = [ask(letters) for letters in ("a", "b", "c", "ab", "bc", "ca", "abc", "cab")]

    def orders(seed: int) -> list[list[str]]:
        runner = Bench(seed=seed).runner
        return [[run.way for run in runner.ask(question)] for question in questions]

    first = orders(0)
    assert first == orders(0)
    assert first != orders(1)
    assert len({order[0] for order in first}) == 3


def test_turns_follow_each_other_with_the_plain_answer_between() -> None:
    bench = Bench()
    runs = bench.runner.ask(ask("a", "b", "c"))
    last = bench.asked[-1][1].prompt
    assert isinstance(last, tuple)
    assert [message.role for message in last] == ["user", "assistant"] * 2 + ["user"]
    assert [message.content for message in last if message.role == "user"] == ["a", "b", "c"]
    plain = next(run for run in runs if run.way == PLAIN)
    said = [message.content for message in last if message.role == "assistant"]
    assert plain.text.startswith("\n\n".join(said))
    assert plain.num_turns == 3


def test_a_run_warms_up_checks_for_drift_and_is_kept_after_each_question() -> None:
    bench = Bench(num_context=60)
    questions = [ask(f"{'a' * (1 + n % 3)} {'b' * n}") for n in range(DRIFT_EVERY + 1)]
    report = bench.run(*questions, ask("b " * 60))
    hellos = [way for way, request in bench.asked[:3] if request.max_tokens == 8]
    assert hellos == [PLAIN, PRODUCT, "half"]
    assert [each.after_questions for each in report.drift] == [0, DRIFT_EVERY, DRIFT_EVERY + 1]
    assert [len(kept.of(PLAIN)) for kept in bench.kept[:3]] == [1, 2, 3]
    assert [kept.is_complete for kept in bench.kept[-2:]] == [False, True]
    assert report.left_out == ("third: there is none", f"{'b ' * 60} does not fit the context")
    assert report.machine.read_bandwidth == 9e9, "the most of three times"
    assert report.pass_ms[1] == pytest.approx(10.0, rel=0.5)
    assert {way.name: way.guess_bytes for way in report.ways} == {PLAIN: 0, PRODUCT: 0, "half": 0}


def test_a_stop_ends_the_answer_under_way_and_all_that_follow() -> None:
    bench = Bench()
    bench.target.on_pass = lambda _tokens: bench.asker.stop()
    with pytest.raises(Stopped):
        bench.run(ask("ab a b"))
    with pytest.raises(Stopped):
        bench.runner.ask(ask("c"))
    assert bench.kept == []


def turn(text: str, *tokens: int) -> Turn:
    return Turn(text, 3, len(tokens), 9, 4, 4, 5, Surroundings(), {}, Split(), (), tokens)


def test_a_difference_in_any_turn_is_told_with_the_texts_around_it() -> None:
    plain = [turn("one", 1), turn("the old mill", 2, 3)]
    other = [turn("one", 1), turn("the old mile", 2, 4)]
    question = ask("a", "b")
    runs = [
        run_of(question, name, 0, turns, plain)
        for name, turns in ((PLAIN, plain), (PRODUCT, other), ("half", [turn("one", 1), plain[1]]))
    ]
    assert [run.differs_at for run in runs] == [None, 16, None]
    report = begun(PLAIN, PRODUCT, "half").model_copy(update={"runs": tuple(runs)})
    assert list(differences(report)) == [
        r"a-b, edgespec, character 16: 'one\n\nthe old mill', not 'one\n\nthe old mile'"
    ]


def test_a_difference_fails_the_run_where_the_same_bytes_are_promised() -> None:
    run = run_of(ask("a"), PRODUCT, 0, [turn("two", 2)], [turn("one", 1)])
    report = begun(PLAIN, PRODUCT).model_copy(update={"runs": (run,)})
    with pytest.raises(ExactnessError, match="1 answers are not those of plain decoding"):
        check_same_bytes(report)
    near_ties = report.target.model_copy(update={"exactness": "near-ties"})
    check_same_bytes(report.model_copy(update={"target": near_ties}))
    check_same_bytes(begun(PLAIN, PRODUCT))


def test_other_tokens_with_the_same_text_are_a_difference() -> None:
    run = run_of(ask("a"), PRODUCT, 0, [turn("one", 1, 0)], [turn("one", 1)])
    assert run.differs_at == 3


# Peers


class Peer:
    """Implements `edgespec.bench.ways.Peer`: answers so often, then fails."""

    about = "another program"

    def __init__(self, name: str, num_answers: int) -> None:
        self.name = name
        self.num_answers = num_answers
        self.asked: list[tuple[Message, ...]] = []
        self.is_closed = False

    def answer(
        self, messages: Sequence[Message], sampling: SamplingParams, max_tokens: int
    ) -> PeerAnswer:
        assert not self.is_closed
        self.asked.append(tuple(messages))
        if len(self.asked) > self.num_answers:
            raise NetworkError("it hung up", "start it again")
        return PeerAnswer("said", 9, 5, 100.0, 20.0, 80.0, proposed=6, accepted=3)

    def close(self) -> None:
        self.is_closed = True


def test_a_peer_is_asked_in_turns_and_compared_with_nothing() -> None:
    peer = Peer("other", 9)
    bench = Bench(peers=[peer])
    report = bench.run(ask("ab", "c"))
    run = report.of("other")["ab-c"]
    assert (run.num_tokens, run.decode_ms, run.request_ms, run.prompt_ms) == (18, 160, 200, 40)
    assert run.tokens_per_second == pytest.approx(100.0)
    assert (run.by_source["other"].proposed, run.by_source["other"].accepted) == (12, 6)
    assert (run.differs_at, run.text) == (None, "said\n\nsaid")
    assert [len(messages) for messages in peer.asked] == [1, 1, 3]  # the first to warm up


def test_a_peer_that_fails_is_left_out_with_one_line_and_the_rest_goes_on() -> None:
    peer = Peer("other", 2)
    bench = Bench(peers=[peer])
    report = bench.run(ask("a"), ask("b"), ask("c"))
    assert list(report.of("other")) == ["a"]
    assert len(report.of(PRODUCT)) == 3
    assert report.left_out == ("third: there is none", "other: it hung up")
    assert peer.is_closed


# Time


def test_known_times_give_the_known_split() -> None:
    record = PassRecord(
        3, 3, 9, 30.0, 28.0, {"small": 6.0, "context": 0.5}, 1.5, 25.0, plan_ms=0.25, verify_ms=0.75
    )
    kept = Kept((1, 2), ("small", TARGET), (0, 1), record)
    split = split_of([kept, kept], Timings(5.0, 80.0, 5.0, 7, 6, 5, text_ms=1.0), {"small"})
    assert split.model_dump() == {
        "target": 60.0,
        "drafters": 9.0,
        "bridge": 3.0,
        "lookups": 1.0,
        "planner": 0.5,
        "sampler": 1.5,
        "text": 1.0,
        "rest": 4.0,
    }


def test_joules_are_those_of_all_packages_and_counters_begin_again(tmp_path: Path) -> None:
    assert Energy(tmp_path / "none").taken() is None
    counters = []
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("9000000\n")
        counters.append(tmp_path / name / "energy_uj")
        counters[-1].write_text("8000000\n")
    energy = Energy(tmp_path)
    counters[0].write_text("8500000\n")
    counters[1].write_text("1000000\n")
    assert energy.taken() == pytest.approx(0.5 + 2.0)
    assert energy.taken() == 0.0
    counters[0].unlink()
    assert energy.taken() is None


# Files


def test_a_report_is_read_back_as_it_was_and_goes_on(tmp_path: Path) -> None:
    bench, path = Bench(), tmp_path / "out.json"
    first = bench.run(ask("ab"))
    write_report(path, first)
    earlier = read_report(path)
    assert earlier == first
    check_same(begun(*bench.about), earlier)
    questions = [ask("ab"), ask("c")]
    left = left_of(questions, earlier)
    assert left == questions[1:]
    both = Bench(report=earlier).run(*left)
    assert list(both.of(PLAIN)) == ["ab", "c"]
    assert [each.after_questions for each in both.drift] == [0, 1, 1, 2]


def test_what_was_measured_otherwise_does_not_go_on() -> None:
    earlier = begun(PLAIN, PRODUCT)
    check_same(earlier, earlier)
    target = earlier.target.model_copy(update={"sha256": "cd"})
    asked = earlier.asked.model_copy(update={"max_tokens": 9})
    for other, word in (
        (begun(PLAIN), "ways"),
        (earlier.model_copy(update={"target": target}), "models"),
        (earlier.model_copy(update={"asked": asked}), "questions or sampling"),
    ):
        with pytest.raises(UsageError, match=f"measured with other {word}"):
            check_same(other, earlier)


def test_a_file_that_is_none_or_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text('{"schema": 1}')
    with pytest.raises(UsageError, match="no report of this version: schema"):
        read_report(path)
    with pytest.raises(StorageError, match="cannot write"):
        write_report(tmp_path / "none" / "out.json", begun(PLAIN))


# What is shown


def test_progress_is_told_in_lines_or_drawn_anew() -> None:
    bench = Bench()
    bench.run(ask("ab"), ask("ab c", category="b"))
    shown = {}
    for kind in (False, True):
        console = Console(file=io.StringIO(), force_terminal=kind, width=80, color_system=None)
        with Progress(3, 0, console, iter([0.0, *[60.0] * 9]).__next__) as progress:
            progress.say("learning 1 of 2")
            progress.show(bench.kept[-2])
        file = console.file
        assert isinstance(file, io.StringIO)
        shown[kind] = file.getvalue()
    lines = shown[False].splitlines()
    assert lines[0] == "learning 1 of 2"
    assert lines[1].startswith("[2/3] b ab c: edgespec ")
    assert lines[1].endswith("x, same bytes")
    assert "2 of 3 questions, about 1 min left" in shown[True]
