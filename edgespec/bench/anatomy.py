"""Sections about the passes of a way: what they cost, what they kept, where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.bench import plots
from edgespec.bench.figures import (
    PARTS,
    Place,
    Summaries,
    Summary,
    all_ways,
    decoding_ratios,
    interpolated,
    others,
    paired_runs,
    rows_used,
    split_of,
)
from edgespec.bench.page_parts import Section, Table, drawn
from edgespec.bench.plots import source_colour
from edgespec.bench.records import Counts, Report, Run
from edgespec.bench.table import DASH, factor, number
from edgespec.types import PLAIN


def pass_times(report: Report, way: str, runs: Sequence[Run]) -> Section | None:
    """T(r), and how many rows the way's passes had."""
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
    wide, narrow = drawn(lambda width: plots.pass_times(report.pass_ms, used, width))
    head = ("rows", "T(r)", "passes", "share")
    return Section(
        "What a pass costs, T(r)", says, Table("Passes by rows", head, rows), wide, narrow
    )


def acceptance(way: str, figures: Summary) -> Section | None:
    """Which draft tokens were kept, by place and by source."""
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
    named: list[tuple[str, Place | Counts]] = [
        *((f"place {index}", place) for index, place in enumerate(places, 1)),
        *sources.items(),
    ]
    rows = [
        (name, f"{each.proposed:,}", f"{each.accepted:,}", f"{each.accepted / each.proposed:.1%}")
        for name, each in named
    ]
    wide, narrow = drawn(lambda width: plots.acceptance(places, sources, width))
    head = ("", "proposed", "kept", "share")
    return Section(
        "What was kept of drafts", says, Table(f"Drafts of {way}", head, rows), wide, narrow
    )


def time_split(report: Report, way: str) -> Section | None:
    """Where the time of a decoded token went, in every way."""
    splits = {name: split_of(list(report.of(name).values())) for name in all_ways(report)}
    bars = {name: split for name, split in splits.items() if split}
    if way not in bars:
        return None
    total = sum(bars[way].values())
    share = bars[way]["target"] / total if total else 0.0
    says = f"Of the {total:.1f} ms of a token {share:.0%} are the target's own passes"
    plain = bars.get(PLAIN)
    says += f"; a plain token takes {sum(plain.values()):.1f} ms." if plain else "."
    rows = [(name, *(f"{split[part]:.2f}" for part in PARTS)) for name, split in bars.items()]
    wide, narrow = drawn(lambda width: plots.time_split(bars, width))
    return Section(
        "Where the time goes",
        says,
        Table("Milliseconds of a decoded token", ("", *PARTS), rows),
        wide,
        narrow,
    )


def limits(summaries: Summaries, way: str) -> Section | None:
    """How near the speed is to what could be: MBSU, hindsight, the roofline."""
    figures = summaries.of(way)
    if figures.mbsu is None:
        return None
    says = (
        f"{way} gives {factor(figures.speedup)} (ratio of means); if only reading weights took "
        f"time it would be {factor(figures.mbsu)} (MBSU)"
    )
    if figures.hindsight:
        says += f", and {factor(figures.hindsight)} had each pass computed only what was kept"
    if figures.roofline_share:
        says += (
            f". Plain decoding reads weights at {figures.roofline_share:.0%} of what memory gives"
        )
    rows = []
    for each in others(summaries.report):
        one = summaries.of(each.name)
        rows.append(
            (
                each.name,
                factor(one.speedup),
                factor(one.mbsu),
                factor(one.hindsight),
                number(one.block_efficiency),
            )
        )
    head = ("", "speed-up", "MBSU", "hindsight", "tau")
    return Section("How near the limit", f"{says}.", Table("Limits", head, rows), is_open=True)


def tokens(report: Report, way: str) -> Section | None:
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
