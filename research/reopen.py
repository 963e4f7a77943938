"""How long the first token of a conversation takes when it is opened again: computed and restored.

    python research/reopen.py MODEL.gguf [--tokens 2000] [--pairs 3]

Each pair, in a home of its own: the conversation is read and answered, the process's model closed
(which writes), loaded again and asked for the next turn; then the same with nothing kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from edgespec.paths import Paths
from edgespec.runtime.request import LoadRequest
from edgespec.runtime.running import load
from edgespec.types import Completion, CompletionRequest, Message

LINE = "On Saturday number {} the market sold fish, bread and old books to {} people. "


def conversation(num_tokens: int) -> tuple[Message, ...]:
    """A question of about so many tokens."""
    text = "".join(LINE.format(n, 7 * n % 97) for n in range(num_tokens // 20))
    return (Message("user", f"What was sold?\n\n{text}"),)


def answered(path: Path, home: Path, request: CompletionRequest) -> tuple[Completion, float]:
    """An answer of a model that was just loaded, and the seconds that closing it took."""
    options = LoadRequest(drafter="none", idle=False)
    running = load(options, path, Paths(home, home / "cache"), lambda _line: None)
    *_, last = running.completer.answer(request)
    started = time.perf_counter()
    running.close()
    assert last.completion is not None
    return last.completion, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.pairs):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            request = CompletionRequest(
                conversation(arguments.tokens), max_tokens=16, conversation="a"
            )
            first, closing_s = answered(arguments.model, home, request)
            num_bytes = sum(file.stat().st_size for file in (home / "cache/prompts").iterdir())
            turns = (*request.prompt, Message("assistant", first.text), Message("user", "Sure?"))
            again = dataclasses.replace(request, prompt=turns, record=False)
            restored, _ = answered(arguments.model, home, again)
            whole = dataclasses.replace(again, reuse_prefix=False)
            computed, _ = answered(arguments.model, home, whole)
        times = [each.timings for each in (computed, restored)]
        print(
            f"{times[0].num_prompt_tokens} tokens, {num_bytes / 1e6:.1f} MB, closing "
            f"{closing_s * 1e3:.0f} ms; first token {times[0].time_to_first_token_ms:,.0f} ms "
            f"computed, {times[1].time_to_first_token_ms:,.0f} ms restored "
            f"({times[1].num_cached_tokens} tokens)",
            flush=True,
        )


if __name__ == "__main__":
    main()
