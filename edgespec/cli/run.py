"""`edgespec run`: one prompt, one answer, on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgespec.cli.kept_answer import KeptAnswer
from edgespec.cli.loading import loaded_host
from edgespec.cli.options import (
    check_max_tokens,
    collect_loading,
    collect_sampling,
    load_options,
    memory_options,
    sampling_options,
)
from edgespec.errors import GrammarError, UsageError
from edgespec.types import (
    Chunk,
    Completion,
    CompletionRequest,
    Constraint,
    ConstraintKind,
    Message,
    SamplingParams,
    ServedModel,
)

if TYPE_CHECKING:
    from edgespec.protocols import Completer


@click.command()
@click.argument("prompt", required=False)
@load_options
@memory_options
@sampling_options(default_temperature=0.0)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option("--max-tokens", type=int, metavar="N", help="[default: until the context is full]")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--grammar", "grammar_file", metavar="FILE", help="GBNF grammar for the answer.")
@click.option("--lark", "lark_file", metavar="FILE", help="Lark grammar for the answer.")
@click.option("--regex", metavar="REGEX", help="Regular expression for the whole answer.")
@click.option("--json-schema", "schema_file", metavar="FILE", help="JSON schema for the answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer here; repeatable.")
@click.option("--raw", is_flag=True, help="Continue PROMPT as it is, without chat template.")
@click.option("--no-speculation", is_flag=True, help="Plain decoding, one token at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_obj
def run(verbose: bool, /, prompt: str | None, as_json: bool, **values: Any) -> int:  # noqa: ANN401
    """Answer PROMPT; what is piped in is appended to it.

    The same prompt, seed and settings give the same answer every time, with and without
    speculation.
    """
    loading = collect_loading(values, bool(verbose))
    sampling = collect_sampling(values, values.pop("seed"))
    check_max_tokens(values["max_tokens"])
    request = _request(_whole_prompt(prompt), sampling, values)
    with loaded_host(loading, sampling) as completer, KeptAnswer(request, loading.learn) as kept:
        completion, interrupt = _answer(completer, kept.request, show=not as_json)
        kept.finish(completion, completer.model.name)
        if as_json and completion is not None:
            report = describe(completion, request, completer.model)
            click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    if interrupt is not None:
        raise interrupt
    return 0


def describe(
    completion: Completion, request: CompletionRequest, model: ServedModel
) -> dict[str, object]:
    """The object that `--json` prints."""
    timings, stats = completion.timings, completion.stats
    return {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "timings": {
            "prompt_ms": round(timings.prompt_ms, 3),
            "decode_ms": round(timings.decode_ms, 3),
            "time_to_first_token_ms": round(timings.time_to_first_token_ms, 3),
            "decode_tokens_per_second": round(timings.decode_tokens_per_second, 3),
            "prompt_tokens": timings.num_prompt_tokens,
            "cached_tokens": timings.num_cached_tokens,
        },
        "stats": {
            "target_passes": stats.target_passes,
            "proposed": stats.proposed,
            "accepted": stats.accepted,
            "acceptance_rate": round(stats.acceptance_rate, 4),
            "block_efficiency": round(stats.block_efficiency, 4),
            "by_drafter": {name: asdict(counts) for name, counts in stats.by_drafter.items()},
        },
        "settings": {
            **model.settings,
            "speculation": request.speculate,
            "max_tokens": request.max_tokens,
            **asdict(request.sampling),
        },
        "exactness": model.exactness,
    }


def _answer(
    completer: Completer, request: CompletionRequest, *, show: bool
) -> tuple[Completion | None, KeyboardInterrupt | None]:
    """Stream the answer to stdout; an interrupt ends it and is returned beside what there is."""
    printer, interrupt = _Printer(show), None
    answer = completer.answer(request)
    try:
        printer.print_all(answer)
    except KeyboardInterrupt as error:
        interrupt = error
        answer.cancel()
        printer.print_all(answer)  # what was computed, and not yet shown, when it came
    finally:
        printer.end_line()
        answer.close()
    return printer.completion, interrupt


class _Printer:
    """Prints chunks (if `show`) as they come, and keeps the completion."""

    def __init__(self, show: bool) -> None:
        self.completion: Completion | None = None
        self._show = show
        self._in_line = False

    def print_all(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self.completion = chunk.completion
            if self._show and chunk.text:
                self._in_line = True
                click.echo(chunk.text, nl=False)

    def end_line(self) -> None:
        if self._in_line:
            click.echo()


def _request(prompt: str, sampling: SamplingParams, values: dict[str, Any]) -> CompletionRequest:
    system, raw = values["system"], values["raw"]
    if raw and system:
        raise UsageError("--raw and --system exclude each other", "put the text into the prompt")
    messages = [Message("system", system)] if system else []
    return CompletionRequest(
        prompt=prompt if raw else (*messages, Message("user", prompt)),
        sampling=replace(sampling, constraint=_constraint(values)),
        max_tokens=values["max_tokens"],
        stop=tuple(values["stop"]),
        speculate=not values["no_speculation"],
    )


def _constraint(values: dict[str, Any]) -> Constraint | None:
    """What the answer must be; raises UsageError if more than one thing is asked for."""
    given = [option for option, (name, _) in _CONSTRAINTS.items() if values[name] is not None]
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", "give one of them")
    name, kind = _CONSTRAINTS[given[0]]
    return Constraint(kind, values[name] if kind == "regex" else _read_text(values[name]))


_CONSTRAINTS: dict[str, tuple[str, ConstraintKind]] = {
    "--grammar": ("grammar_file", "gbnf"),
    "--lark": ("lark_file", "lark"),
    "--regex": ("regex", "regex"),
    "--json-schema": ("schema_file", "json_schema"),
}


def _whole_prompt(prompt: str | None) -> str:
    """PROMPT and what is piped in, as text; raises UsageError if there is neither."""
    parts = [prompt] if prompt else []
    if not sys.stdin.isatty():
        data = sys.stdin.buffer.read()
        try:
            piped = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"stdin is not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start})",
                "convert it, for example with iconv",
            ) from error
        if piped.strip():
            parts.append(piped)
    if not parts:
        raise UsageError("there is no prompt", "give one as an argument or pipe it in")
    return "\n\n".join(parts)


def _read_text(name: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GrammarError(f"{name} is not UTF-8", "convert it") from error
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror or error}", "check the path"
        ) from error
