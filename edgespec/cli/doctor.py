"""`edgespec doctor`: what machine, build and models can do, and what to do about problems."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgespec.errors import UsageError
from edgespec.paths import user_paths
from edgespec.reports import human_bytes

if TYPE_CHECKING:
    from edgespec.runtime.examination import Examination


@click.command()
@click.option("--model", metavar="M", help="Examine this model. [default: every model on disk]")
@click.option("--measure", is_flag=True, help="Measure anew what is remembered.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(verbose: bool, /, model: str | None, measure: bool, as_json: bool) -> None:
    """Check the native library, the models and the database, and say what to do.

    Models that were never measured on this machine are loaded and measured (seconds each).
    """
    from edgespec.runtime.examination import examine  # loads numpy and SQLite's helpers

    if model is not None and not model.strip():
        raise UsageError("an empty name is no model", "give a name or leave --model out")
    found = examine(model, user_paths(), anew=measure, verbose=bool(verbose))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in describe(found):
        click.echo(line)


def describe(found: Examination) -> list[str]:
    """The examination in plain words."""
    machine = found.machine
    memory = human_bytes(machine["memory_bytes"])
    read = human_bytes(int(machine["read_bandwidth_bytes_per_second"]))
    lines = [
        f"Machine    {machine['cpu']}, {machine['threads']} threads, {memory} of memory",
        f"           reads {read} a second from memory",
        f"Library    llama-cpp-python {found.library['version']}",
        f"           built with {found.library['compiler']}",
        f"           {' '.join(found.library['features'])}",
    ]
    lines += [f"           {finding}" for finding in found.library["findings"]] or [
        "           sound: decodes correctly with and without its fast weight layouts"
    ]
    database = found.database
    size, integrity = human_bytes(database["bytes"]), database["integrity"]
    about = f"{size}, integrity {integrity}, backups {database['backups']}"
    lines.append(f"Database   {database['path']}, {about}")
    for model in found.models:
        lines += _describe_model(model)
    if not found.models:
        lines.append("Models     none on disk")
    lines.append("Problems" if found.problems else "No problems found.")
    lines += [f"  - {problem}" for problem in found.problems]
    return lines


def _describe_model(model: dict[str, Any]) -> list[str]:
    lines = [f"Model      {model['name']} ({human_bytes(model['bytes'])}) at {model['path']}"]
    if "error" in model:
        return [*lines, f"           {model['error']}"]
    exactness = model["invariance"]
    if exactness["exactness"] == "identical":
        promise = f"the same bytes with and without speculation, up to {exactness['rows']} rows"
    else:
        promise = f"equal up to near-ties (logits differ by up to {exactness['margin']:.2g})"
    share = f"{model['roofline_share']:.0%} of the memory's speed"
    cost = exactness["cost"]
    against = "" if cost is None else f", costs {cost:+.1%} against f16"
    lines += [
        f"           {promise}",
        f"           {exactness['kv_cache']} KV cache{against}",
        f"           one plain token {model['plain_token_ms']:.1f} ms, {share}",
    ]
    for context, costs in model["pass_ms"].items():
        curve = ", ".join(f"{rows}: {ms:.0f}" for rows, ms in costs.items())
        lines.append(f"           ms by rows after {context} tokens: {curve}")
    return lines
