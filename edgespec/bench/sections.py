"""The sections of the page: each says in one sentence what to see, and shows it twice.

As a plot, and as a table of the same figures for those who hear the page or want to copy it. What
a report does not tell has no section.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from edgespec.bench import anatomy, plots
from edgespec.bench.figures import (
    Summaries,
    Summary,
    all_ways,
    categories,
    decoding_ratios,
    others,
    paired_runs,
)
from edgespec.bench.page_parts import Row, Section, Table, drawn
from edgespec.bench.plots import ForestRow
from edgespec.bench.records import Report
from edgespec.bench.replay import CURVES, PREDICTION, Prediction, load_curve, what_if
from edgespec.bench.statistics import LEAST, Paired, paired
from edgespec.bench.table import factor, interval, number
from edgespec.types import PLAIN, PRODUCT

_MOST_BESIDE = 3
"""Ways beside the product in the plot by category; the table has all."""


def main_way(report: Report) -> str | None:
    """The product, or the first way where it was not asked."""
    names = [way.name for way in others(report)]
    return PRODUCT if PRODUCT in names else (names[0] if names else None)


def sections(summaries: Summaries) -> list[Section]:
    """All that the report can tell."""
    report = summaries.report
    way = main_way(report)
    if way is None:
        return []
    runs = [run for _, run in paired_runs(report, way)]
    makers: list[Callable[[], Section | None]] = [
        lambda: _speedups(summaries, way),
        lambda: anatomy.pass_times(report, way, runs),
        lambda: anatomy.acceptance(way, summaries.of(way)),
        lambda: anatomy.time_split(report, way),
        lambda: anatomy.limits(summaries, way),
        lambda: anatomy.tokens(report, way),
        lambda: _learning(report, way),
        lambda: _elsewhere(summaries, way),
        lambda: _scores(summaries),
        lambda: _energy(summaries, way),
    ]
    return [section for section in (make() for make in makers) if section is not None]


def _speedups(summaries: Summaries, way: str) -> Section:
    names = categories(summaries.report)
    rows = forest_rows(summaries, way)
    table = []
    for name in (each.name for each in others(summaries.report)):
        table.append((name, *_speedup_cells(summaries.of(name))))
        for category in names if len(names) > 1 else ():
            table.append((f" {category}", *_speedup_cells(summaries.of(name, category))))
    medians = {name: summaries.of(way, name).decoding.median for name in names}
    known = {name: value for name, value in medians.items() if value == value}
    says = f"{way} decodes {factor(summaries.of(way).decoding.median)} as fast as plain."
    if len(known) > 1:
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        says = f"Most is won in {most}, {factor(known[most])}, least in {least}, "
        says += f"{factor(known[least])}."
    says += f" Bars are 95% intervals over questions; fewer than {LEAST} have none."
    if drawn_only := what_is_drawn(summaries.report, way):
        says += f" {drawn_only} The table has all {len(others(summaries.report))} ways."
    wide, narrow = drawn(
        lambda width: plots.forest(rows, width, "Speed-up over plain decoding by category")
    )
    head = ("", "tok/s", "means", "median", "95%", "whole", "first token", "tau", "p")
    return Section(
        "Speed-up over plain decoding",
        says,
        Table("Means: ratio of mean tokens/s; median: of each question's ratio", head, table),
        wide,
        narrow,
    )


def forest_rows(summaries: Summaries, way: str) -> list[ForestRow]:
    """All ways over all questions, then for each category the product and what matters beside."""
    names = categories(summaries.report)
    ways = [way, *(each.name for each in others(summaries.report) if each.name != way)]
    rows = [ForestRow("all questions")] if len(names) > 1 else []
    rows += _forest_rows(summaries, ways, None)
    for name in names if len(names) > 1 else ():
        rows += [ForestRow(name), *_forest_rows(summaries, _chosen(summaries.report, way), name)]
    return rows


def what_is_drawn(report: Report, way: str) -> str:
    """Which ways `forest_rows` has by category, in a sentence; "" where it has all."""
    chosen = _chosen(report, way)
    if len(chosen) == len(others(report)) or len(categories(report)) < 2:
        return ""
    return f"By category the plot shows {', '.join(chosen[:-1])} and {chosen[-1]} only."


def _chosen(report: Report, way: str) -> list[str]:
    """The ways that are drawn by category: `way`, then other programs, then what else has room."""
    ways = sorted(others(report), key=lambda each: (each.name != way, not each.is_peer))
    return [each.name for each in ways[: 1 + _MOST_BESIDE]]


def _forest_rows(
    summaries: Summaries, ways: Sequence[str], category: str | None
) -> list[ForestRow]:
    return [
        ForestRow(way, summaries.of(way, category).decoding, is_accent=way == ways[0])
        for way in ways
    ]


def _speedup_cells(figures: Summary) -> Row:
    return (
        f"{figures.tokens_per_second:.1f}",
        factor(figures.speedup),
        factor(figures.decoding.median),
        interval(figures.decoding),
        factor(figures.request.median),
        f"{figures.first_token_ms:,.0f} ms",
        number(figures.block_efficiency),
        f"{figures.decoding.p_value:.2g}",
    )


def _learning(report: Report, way: str) -> Section | None:
    pairs = paired_runs(report, way)
    ratios = decoding_ratios(pairs)
    if report.asked.warm == "week":
        return _week(report, way)
    third = len(ratios) // 3
    if third < 2:
        return None
    early, late = median(ratios[:third]), median(ratios[-third:])
    says = (
        f"Over the first third of the questions the median is {factor(early)}, over the last "
        f"{factor(late)}. Questions differ, so it is the line that tells, not a point."
    )
    rows = [(f"{index}", factor(ratio)) for index, ratio in enumerate(ratios, 1)]
    wide, narrow = drawn(lambda width: plots.learning(ratios, width))
    table = Table("Speed-up by order", ("question", "speed-up"), rows)
    return Section("Over the run", says, table, wide, narrow)


def _week(report: Report, way: str) -> Section | None:
    """By day: what stands in a question's name before its number."""
    pairs = paired_runs(report, way)
    days: dict[str, Paired] = {}
    for name in dict.fromkeys(run.question.rpartition("-")[0] for _, run in pairs):
        value = paired(
            decoding_ratios([p for p in pairs if p[1].question.rpartition("-")[0] == name])
        )
        if value.num:
            days[name] = value
    if len(days) < 2:
        return None
    first, *_, last = days
    says = (
        f"On {first} the median speed-up is {factor(days[first].median)}, on {last} "
        f"{factor(days[last].median)}."
    )
    rows = [(name, factor(day.median), interval(day)) for name, day in days.items()]
    wide, narrow = drawn(lambda width: plots.by_day(days, width))
    table = Table("Speed-up by day", ("", "median", "95%"), rows)
    return Section("Over the week", says, table, wide, narrow)


def _elsewhere(summaries: Summaries, way: str) -> Section | None:
    told: dict[str, Prediction] = {}
    for name in CURVES:
        prediction = what_if(summaries.report, way, load_curve(name))
        if prediction is not None:
            told[name] = prediction
    if not told:
        return None
    most = max(told, key=lambda name: told[name].decoding.median)
    least = min(told, key=lambda name: told[name].decoding.median)
    says = (
        f"With the pass times of {most} {way} would give {factor(told[most].decoding.median)}, "
        f"of {least} {factor(told[least].decoding.median)}. {PREDICTION}"
    )
    rows = [
        (
            f"{load_curve(name).machine}, {load_curve(name).model}",
            factor(each.speedup),
            factor(each.decoding.median),
            interval(each.decoding),
            f"{each.num_cut / each.num_passes:.0%}",
        )
        for name, each in told.items()
    ]
    here = ForestRow("here", summaries.of(way).decoding, True)
    rows_drawn = [here, *(ForestRow(name, each.decoding) for name, each in told.items())]
    wide, narrow = drawn(
        lambda width: plots.forest(rows_drawn, width, "Predicted speed-up with other pass times")
    )
    head = ("", "means", "median", "95%", "drafts cut")
    return Section(
        "On other machines (predicted)", says, Table("Predictions", head, rows), wide, narrow
    )


def _scores(summaries: Summaries) -> Section | None:
    """What the suite scores, beside plain decoding's."""
    scores = {name: summaries.of(name).scores for name in all_ways(summaries.report)}
    names = list(dict.fromkeys(name for each in scores.values() for name in each))
    if not names:
        return None
    rows = [
        (way, *(number(each.get(name)) for name in names)) for way, each in scores.items() if each
    ]
    says = f"What answers are worth by the suite's own rules, from 0 to 1: {', '.join(names)}."
    return Section("Scores", says, Table("Scores", ("", *names), rows), is_open=True)


def _energy(summaries: Summaries, way: str) -> Section | None:
    """What the processor took, where the platform tells."""
    known = {name: summaries.of(name).joules for name in all_ways(summaries.report)}
    joules = {name: value for name, value in known.items() if value is not None}
    if way not in joules or PLAIN not in joules:
        return None
    plain = joules[PLAIN]
    says = (
        f"{way} takes {joules[way]:.2f} joules a token, plain decoding {plain:.2f}, "
        "prompts included."
    )
    rows = [(name, f"{value:.2f} J", f"{value / plain:.2f}") for name, value in joules.items()]
    table = Table("Energy", ("", "a token", "of plain"), rows)
    return Section("Energy", says, table, is_open=True)
