"""A report as one page: nothing is fetched and nothing runs; it can be mailed, and read anywhere.

Plots are drawn for two widths, of which the style sheet shows one. All texts are escaped by the
template; the policy in the page lets nothing but its own style sheet be used.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from edgespec.bench.caveats import caveats, sameness
from edgespec.bench.figures import Summaries, paired_runs
from edgespec.bench.page_parts import Table
from edgespec.bench.records import Report
from edgespec.bench.sections import main_way, sections
from edgespec.bench.svg import PALETTE, classes
from edgespec.bench.table import DASH, factor, interval


def html(report: Report) -> str:
    """The whole page, as text of a file in UTF-8."""
    from jinja2 import Environment

    folder = files("edgespec.bench").joinpath("page_files")
    template = Environment(autoescape=True).from_string(
        folder.joinpath("report.html").read_text(encoding="utf-8")
    )
    style = _style(folder.joinpath("report.css").read_text(encoding="utf-8"))
    digest = hashlib.sha256(style.encode()).digest()
    summaries = Summaries(report)
    return template.render(
        title="EdgeSpec benchmark",
        style=style,
        style_hash=base64.b64encode(digest).decode(),
        lead=_lead(summaries),
        about=_about(report),
        sections=sections(summaries),
        remarks=[*sameness(summaries), *caveats(report)],
        tables=[_settings(report), *_questions(report)],
    )


def _style(text: str) -> str:
    """The style sheet with the palette's colours, and classes for what is drawn in them."""
    for mark, index in (("LIGHT", 0), ("DARK", 1)):
        values = " ".join(f"--{name}: {pair[index]};" for name, pair in PALETTE.items())
        text = text.replace(mark, values)
    inks = "".join(f".c-{name}{{color:var(--{name})}}" for name in PALETTE)
    return text + classes() + inks


def _lead(summaries: Summaries) -> list[tuple[str, bool]]:
    """The first sentence in pieces, and which of them are strong."""
    way = main_way(summaries.report)
    if way is None:
        return [("Nothing was measured both ways.", False)]
    figures = summaries.of(way)
    value = figures.decoding
    if not value.num:
        return [("No answer was long enough to be timed.", False)]
    ends = f" (95%: {interval(value)})" if value.interval else f" ({value.num} questions)"
    lead = [(f"{way} decodes ", False), (f"{value.median:.2f} times", True)]
    lead.append((f" as fast as plain decoding{ends}", False))
    if figures.num_compared:
        same = figures.num_compared - len(figures.differing)
        lead.append((f", with the same bytes in {same} of {figures.num_compared} answers", False))
    return [*lead, (".", False)]


def _about(report: Report) -> str:
    machine, target = report.machine, report.target
    return (
        f"{target.name}, {target.quantization}, drafter {target.drafter or 'none'}, on "
        f"{machine.processor} with {machine.num_threads} threads; suite {report.asked.suite}, "
        f"temperature {report.asked.temperature:g}; {report.started[:10]}, "
        f"EdgeSpec {report.program.version}"
    )


def _settings(report: Report) -> Table:
    """Everything that another would need to measure the same."""
    rows = [
        (f"{group} {name.replace('_', ' ')}", _said(value))
        for group, form in (
            ("machine", report.machine),
            ("program", report.program),
            ("target", report.target),
            ("asked", report.asked),
        )
        for name, value in form.model_dump().items()
    ]
    return Table("Machine, program, model and what was asked", ("", ""), rows)


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items()) or DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or DASH
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) else str(DASH if value in (None, "") else value)


def _questions(report: Report) -> list[Table]:
    way = main_way(report)
    if way is None:
        return []
    rows = [
        (
            run.question,
            run.category,
            f"{run.num_tokens}",
            f"{plain.tokens_per_second:.1f}",
            f"{run.tokens_per_second:.1f}",
            factor(run.tokens_per_second / (plain.tokens_per_second or float("nan"))),
            "yes" if run.differs_at is None else f"not from {run.differs_at} on",
        )
        for plain, run in paired_runs(report, way)
    ]
    head = ("question", "category", "tokens", "plain tok/s", "tok/s", "speed-up", "same bytes")
    return [Table(f"Every question, {way} beside plain", head, rows)]
