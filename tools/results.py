"""Write a report into README.md, as a table and the plot by category: the end of `make results`.

`python tools/results.py REPORT.json README.md docs/results.svg`
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgespec.bench.figures import Summaries, categories, others, summary
from edgespec.bench.plots import WIDE, forest
from edgespec.bench.records import Report, read_report
from edgespec.bench.sections import forest_rows, main_way, what_is_drawn
from edgespec.bench.svg import own_style
from edgespec.bench.table import DASH, factor, interval
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.types import PLAIN

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def results_markdown(report: Report) -> str:
    """Machine, model and suite in a sentence, then every way over all questions."""
    machine, target, asked = report.machine, report.target, report.asked
    plain = summary(report, PLAIN)
    lines = [
        f"{target.name} ({target.quantization}), drafter {target.drafter or 'none'}, on "
        f"{machine.processor}, {machine.num_threads} threads; suite {asked.suite}: "
        f"{', '.join(categories(report))}; at most {asked.max_tokens} tokens an answer, "
        f"temperature {asked.temperature:g}; EdgeSpec {report.program.version}, "
        f"{report.started[:10]}.",
        "",
        "| way | tokens/s | median speed-up | 95% interval | request to last byte | first token |",
        "|---|---|---|---|---|---|",
        f"| plain decoding | {plain.tokens_per_second:.1f} | 1 | {DASH} | 1 | "
        f"{plain.first_token_ms:,.0f} ms |",
    ]
    for way in others(report):
        figures = summary(report, way.name)
        lines.append(
            f"| {way.name} | {figures.tokens_per_second:.1f} | {factor(figures.decoding.median)} | "
            f"{interval(figures.decoding)} | {factor(figures.request.median)} | "
            f"{figures.first_token_ms:,.0f} ms |"
        )
    return "\n".join(lines)


def results_svg(report: Report) -> str:
    """The plot by category, as a file of its own: light or dark as whoever looks at it."""
    way = main_way(report)
    if way is None:
        raise UsageError("the report has no way beside plain decoding", "measure one")
    label = "Speed-up over plain decoding by category, with 95% intervals"
    return forest(forest_rows(Summaries(report), way), WIDE, label, own_style())


def with_results(readme: str, results: str) -> str:
    """The README with other text between its marks; raises UsageError where they are not."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the README has no {BEGIN} and {END}", "add both lines")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def main(report_file: str, readme_file: str, svg_file: str) -> None:
    """Write both files."""
    report, readme, svg = read_report(Path(report_file)), Path(readme_file), Path(svg_file)
    picture = f"![Speed-up by category]({svg.as_posix()})"
    parts = (picture, what_is_drawn(report, main_way(report) or ""), results_markdown(report))
    text = with_results(readme.read_text(encoding="utf-8"), "\n\n".join(filter(None, parts)))
    svg.write_text(results_svg(report) + "\n", encoding="utf-8")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EdgeSpecError as error:
        sys.exit(f"results: {error}")
