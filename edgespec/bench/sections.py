"""The sections of the page: each says in one sentence what to see, and shows it twice.

As a plot, and as a table of the same figures for those who hear the page or want to copy it. What
a report does not tell has no section.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from edgespec.bench import plots
from edgespec.bench.figures import (
    PARTS,
    Summary,
    baseline,
    categories,
    decoding_ratios,
    interpolated,
    others,
    paired_runs,
    rows_used,
    split_of,
    summary,
)
from edgespec.bench.plots import NARROW, WIDE, ForestRow, source_colour
from edgespec.bench.records import PRODUCT, Report, Run
from edgespec.bench.replay import CURVES, PREDICTION, Prediction, load_curve, what_if
from edgespec.bench.statistics import Paired, paired
from edgespec.bench.table import DASH, factor, interval

Row = tuple[str, ...]

_MOST_BESIDE = 3
"""Ways beside the product in the plot by category; the table has all."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures with their names above; a first cell that begins with a space belongs to the last."""

    name: str
    head: Row
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Section:
    """What a part of the page says and shows; plots for two widths, or tokens in colours."""

    title: str
    says: str
    table: Table
    wide: str = ""
    narrow: str = ""
    is_open: bool = False
    tokens: Sequence[Sequence[str]] = ()
    legend: Sequence[tuple[str, str]] = ()
    text: str = ""


def main_way(report: Report) -> str | None:
    """The product, or the first way where it was not asked."""
    names = [way.name for way in others(report)]
    return PRODUCT if PRODUCT in names else (names[0] if names else None)


def sections(report: Report) -> list[Section]:
    """All that the report can tell."""
    way = main_way(report)
    if way is None:
        return []
    runs = [run for _, run in paired_runs(report, way)]
    figures = summary(report, way)
    makers: list[Callable[[], Section | None]] = [
        lambda: _speedups(report, way),
        lambda: _pass_times(report, way, runs),
        lambda: _acceptance(way, figures),
        lambda: _time_split(report, way),
        lambda: _limits(report, way, figures),
        lambda: _tokens(report, way),
        lambda: _learning(report, way),
        lambda: _elsewhere(report, way),
        lambda: _scores(report),
        lambda: _energy(report, way),
    ]
    return [section for section in (make() for make in makers) if section is not None]


def _drawn(draw: Callable[[int], str]) -> tuple[str, str]:
    return draw(WIDE), draw(NARROW)


def _speedups(report: Report, way: str) -> Section:
    names = categories(report)
    ways = [each.name for each in others(report)]
    rows = forest_rows(report, way)
    table = []
    for name in ways:
        table.append((name, *_speedup_cells(summary(report, name))))
        for category in names if len(names) > 1 else ():
            table.append((f" {category}", *_speedup_cells(summary(report, name, [category]))))
    medians = {name: summary(report, way, [name]).decoding.median for name in names}
    known = {name: value for name, value in medians.items() if value == value}
    says = f"{way} decodes {factor(summary(report, way).decoding.median)} as fast as plain."
    if len(known) > 1:
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        says = f"Most is won in {most}, {factor(known[most])}, least in {least}, " + (
            f"{factor(known[least])}. Bars are 95% intervals over questions."
        )
    wide, narrow = _drawn(
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


def forest_rows(report: Report, way: str) -> list[ForestRow]:
    """All ways over all questions, then for each category the product and what matters beside."""
    ways = others(report)
    beside = [each.name for each in ways if each.name != way]
    peers_first = sorted(ways, key=lambda each: not each.is_peer)
    chosen = [each.name for each in peers_first if each.name != way][:_MOST_BESIDE]
    names = categories(report)
    rows = [ForestRow("all questions")] if len(names) > 1 else []
    rows += [_forest_row(report, each, way, None) for each in (way, *beside)]
    for name in names if len(names) > 1 else ():
        rows.append(ForestRow(name))
        rows += [_forest_row(report, each, way, name) for each in (way, *chosen)]
    return rows


def _forest_row(report: Report, name: str, way: str, category: str | None) -> ForestRow:
    figures = summary(report, name, None if category is None else [category])
    return ForestRow(name, figures.decoding, name == way)


def _speedup_cells(figures: Summary) -> Row:
    return (
        f"{figures.tokens_per_second:.1f}",
        factor(figures.speedup),
        factor(figures.decoding.median),
        interval(figures.decoding),
        factor(figures.request.median),
        f"{figures.first_token_ms:,.0f} ms",
        _number(figures.block_efficiency),
        f"{figures.decoding.p_value:.2g}",
    )


def _pass_times(report: Report, way: str, runs: Sequence[Run]) -> Section | None:
    used = rows_used(runs)
    if len(report.pass_ms) < 2 or not used:
        return None
    single = report.pass_ms[min(report.pass_ms)]
    common = max(used, key=used.__getitem__)
    total = sum(used.values())
    says = f"Most often, in {used[common] / total:.0%} of the passes, {way} computed {common} rows"
    ms = interpolated(report.pass_ms, common)
    says += f": {ms:.0f} ms, {ms / single:.2f} times a single one's {single:.0f} ms." if ms else "."
    known = sorted({*report.pass_ms, *used})
    rows = [
        (
            f"{each}",
            f"{ms:.1f} ms" if (ms := interpolated(report.pass_ms, each)) else DASH,
            f"{used.get(each, 0):,}",
            f"{used.get(each, 0) / total:.1%}",
        )
        for each in known
    ]
    wide, narrow = _drawn(lambda width: plots.pass_times(report.pass_ms, used, width))
    head = ("rows", "T(r)", "passes", "share")
    return Section(
        "What a pass costs, T(r)", says, Table("Passes by rows", head, rows), wide, narrow
    )


def _acceptance(way: str, figures: Summary) -> Section | None:
    places = [place for place in figures.by_place if place.proposed]
    if not places or not figures.acceptance_rate:
        return None
    sources = {name: each for name, each in figures.by_source.items() if each.proposed}
    proposed = sum(each.proposed for each in sources.values())
    first, last = places[0], places[-1]
    says = (
        f"Of {proposed:,} draft tokens {figures.acceptance_rate:.0%} were kept: "
        f"{first.accepted / first.proposed:.0%} in the first place of a draft, "
        f"{last.accepted / last.proposed:.0%} in the last (place {len(places)})."
    )
    rows = [
        (name, f"{each.proposed:,}", f"{each.accepted:,}", f"{each.accepted / each.proposed:.1%}")
        for name, each in [
            *((f"place {index}", place) for index, place in enumerate(places, 1)),
            *sources.items(),
        ]
    ]
    wide, narrow = _drawn(lambda width: plots.acceptance(places, sources, width))
    head = ("", "proposed", "kept", "share")
    return Section(
        "What was kept of drafts", says, Table(f"Drafts of {way}", head, rows), wide, narrow
    )


def _time_split(report: Report, way: str) -> Section | None:
    names = [baseline(report), *(each.name for each in others(report))]
    splits = {name: split_of(list(report.of(name).values())) for name in names}
    bars = {name: split for name, split in splits.items() if split}
    if way not in bars:
        return None
    total = sum(bars[way].values())
    share = bars[way]["target"] / total if total else 0.0
    says = f"Of the {total:.1f} ms of a token {share:.0%} are the target's own passes"
    plain = bars.get(baseline(report))
    says += f"; a plain token takes {sum(plain.values()):.1f} ms." if plain else "."
    rows = [(name, *(f"{split[part]:.2f}" for part in PARTS)) for name, split in bars.items()]
    wide, narrow = _drawn(lambda width: plots.time_split(bars, width))
    return Section(
        "Where the time goes",
        says,
        Table("Milliseconds of a decoded token", ("", *PARTS), rows),
        wide,
        narrow,
    )


def _limits(report: Report, way: str, figures: Summary) -> Section | None:
    if figures.mbsu is None:
        return None
    says = (
        f"{way} gives {factor(figures.speedup)} (ratio of means); if only reading weights took "
        f"time it would be {factor(figures.mbsu)} (MBSU)"
    )
    if figures.hindsight:
        says += f", and {factor(figures.hindsight)} had each pass computed only what was kept"
    if figures.roofline_share:
        says += f". Plain decoding reads weights at {figures.roofline_share:.0%} of the bandwidth"
    rows = []
    for each in others(report):
        one = summary(report, each.name)
        rows.append(
            (
                each.name,
                factor(one.speedup),
                factor(one.mbsu),
                factor(one.hindsight),
                _number(one.block_efficiency),
            )
        )
    head = ("", "speed-up", "MBSU", "hindsight", "tau")
    return Section(
        "How near the limit", f"{says}.", Table("Limits", head, rows), is_open=True
    )


def _tokens(report: Report, way: str) -> Section | None:
    """One answer, a square for a token, those of a pass together: one of median speed-up."""
    able = [
        pair
        for pair in paired_runs(report, way)
        if pair[1].num_turns == 1
        and sum(pair[1].passes.kept) + 1 == sum(count for _, count in pair[1].spans)
        and len(decoding_ratios([pair]))
    ]
    if not able:
        return None
    by_speed = sorted(able, key=lambda pair: decoding_ratios([pair])[0])
    plain, run = by_speed[len(by_speed) // 2]
    sources = [source for source, count in run.spans for _ in range(count)]
    groups, at = [], 0
    for kept in (1, *run.passes.kept):
        groups.append([source_colour(source) for source in sources[at : at + kept]])
        at += kept
    counts = {name: sources.count(name) for name in dict.fromkeys(sources)}
    drafted = len(sources) - counts.get("target", 0)
    ratio = decoding_ratios([(plain, run)])[0]
    says = (
        f"{run.question}, {factor(ratio)}: {len(sources)} tokens came in {len(groups)} passes, "
        f"{drafted} of them from drafts. Each box is a pass, each square a token."
    )
    rows = [(name, f"{count}", f"{count / len(sources):.0%}") for name, count in counts.items()]
    return Section(
        "One answer, token by token",
        says,
        Table("Tokens by source", ("source", "tokens", "share"), rows),
        tokens=groups,
        legend=[(source_colour(name), f"{name} {count}") for name, count in counts.items()],
        text=run.text,
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
    wide, narrow = _drawn(lambda width: plots.learning(ratios, width))
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
    wide, narrow = _drawn(lambda width: plots.by_day(days, width))
    table = Table("Speed-up by day", ("", "median", "95%"), rows)
    return Section("Over the week", says, table, wide, narrow)


def _elsewhere(report: Report, way: str) -> Section | None:
    told: dict[str, Prediction] = {}
    for name in CURVES:
        prediction = what_if(report, way, load_curve(name))
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
            load_curve(name).machine,
            load_curve(name).model,
            factor(each.speedup),
            factor(each.decoding.median),
            interval(each.decoding),
            f"{each.num_cut / each.num_passes:.0%}",
        )
        for name, each in told.items()
    ]
    here = ForestRow("here", summary(report, way).decoding, True)
    drawn = [here, *(ForestRow(name, each.decoding) for name, each in told.items())]
    wide, narrow = _drawn(
        lambda width: plots.forest(drawn, width, "Predicted speed-up with other pass times")
    )
    head = ("machine", "model", "means", "median", "95%", "drafts cut")
    return Section(
        "On other machines (predicted)", says, Table("Predictions", head, rows), wide, narrow
    )


def _scores(report: Report) -> Section | None:
    """What the suite scores, beside plain decoding's."""
    ways = [baseline(report), *(each.name for each in others(report))]
    scores = {name: summary(report, name).scores for name in ways}
    names = list(dict.fromkeys(name for each in scores.values() for name in each))
    if not names:
        return None
    rows = [
        (way, *(_number(each.get(name)) for name in names)) for way, each in scores.items() if each
    ]
    says = f"What answers are worth by the suite's own rules, from 0 to 1: {', '.join(names)}."
    return Section("Scores", says, Table("Scores", ("", *names), rows), is_open=True)


def _energy(report: Report, way: str) -> Section | None:
    """What the processor took, where the platform tells."""
    ways = [baseline(report), *(each.name for each in others(report))]
    known = {name: summary(report, name).joules for name in ways}
    joules = {name: value for name, value in known.items() if value is not None}
    if way not in joules or baseline(report) not in joules:
        return None
    plain = joules[baseline(report)]
    says = (
        f"{way} takes {joules[way]:.2f} joules a token, plain decoding {plain:.2f}, "
        "prompts included."
    )
    rows = [(name, f"{value:.2f} J", f"{value / plain:.2f}") for name, value in joules.items()]
    table = Table("Energy", ("", "a token", "of plain"), rows)
    return Section("Energy", says, table, is_open=True)


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"
