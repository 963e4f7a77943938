"""The server from a shell: the lines of README.md and docs/serve.md as they stand, and `llm`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from server_support import NUM_CONTEXT, EchoCompleter, Running

from edgespec.types import Message

ROOT = Path(__file__).parents[2]
SERVE = (ROOT / "docs" / "serve.md").read_text()
CURL = re.findall(
    r"^    (curl [^\n]*(?:\n      [^\n]*|\n    \}'[^\n]*)*)",
    (ROOT / "README.md").read_text() + SERVE,
    re.MULTILINE,
)
[LLM_MODELS] = re.findall(r"```yaml\n(.*?)```", SERVE, re.DOTALL)
ADDRESS = "127.0.0.1:8080"

Llm = Callable[..., str]


@pytest.fixture
def llm(server: Running, completer: EchoCompleter, tmp_path: Path) -> Llm:
    """Run `llm` in a home of its own, set up as docs/serve.md says."""
    completer.requests.clear()
    completer.says = None
    models = LLM_MODELS.replace(ADDRESS, f"{server.host}:{server.port}")
    (tmp_path / "extra-openai-models.yaml").write_text(models)

    def run(*arguments: str, status: int = 0) -> str:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "llm", "-m", "edgespec", *arguments],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == status, ended.stderr
        return ended.stderr if status else ended.stdout

    return run


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("line", CURL)
def test_the_lines_of_the_documents_work(server: Running, line: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", line.replace(ADDRESS, f"{server.host}:{server.port}")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.replace("data: [DONE]", "").split("data: ")
    answers = [json.loads(part) for part in said if part.strip()]
    assert answers
    assert not any("error" in answer for answer in answers)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_what_curl_sends_by_itself_is_refused_with_the_remedy(server: Running) -> None:
    ended = subprocess.run(
        ["curl", "-s", f"{server.url}/completions", "-d", '{"prompt": "x"}'],
        capture_output=True,
        timeout=60,
    )
    assert "Content-Type: application/json" in json.loads(ended.stdout)["error"]["message"]


def test_llm_asks_and_goes_on(llm: Llm, completer: EchoCompleter) -> None:
    assert llm("-s", "Be brief.", "-o", "temperature", "0.5", "Grüße") == "Grüße\n"
    assert llm("--no-stream", "-c", "again") == "again\n"
    first, second = completer.requests
    assert first.sampling.temperature == 0.5
    assert first.prompt == (Message("system", "Be brief."), Message("user", "Grüße"))
    assert second.prompt[:3] == (*first.prompt, Message("assistant", "Grüße"))
    assert "the prompt is too long" in llm("x" * NUM_CONTEXT, status=1)


def test_llm_gets_objects_and_calls_tools(llm: Llm, completer: EchoCompleter) -> None:
    completer.says = '{"name": "Ann", "age": 30}'
    assert json.loads(llm("--schema", "name, age int", "Ann is 30."))["age"] == 30
    constraint = completer.requests[0].sampling.constraint
    assert constraint is not None
    assert '"age"' in constraint.text
    completer.says = '<tool_call>\n{"name": "llm_version", "arguments": {}}\n</tool_call>'
    assert "limit of 1" in llm("-T", "llm_version", "--cl", "1", "Which version?", status=1)
    assert "llm_version" in completer.requests[-1].template.tools
