"""The server as Instructor sees it: objects instead of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import instructor
import pytest
from instructor import Mode
from instructor.core import InstructorRetryException
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from server_support import EchoCompleter, Running

pytestmark = pytest.mark.filterwarnings("ignore")
"""It warns of itself."""


class Person(BaseModel):
    name: str
    age: int


ANN = Person(name="Ann", age=30)
TEXT = '{"name": "Ann", "age": 30}'
CALL = f'<tool_call>\n{{"name": "Person", "arguments": {TEXT}}}\n</tool_call>'
ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "Ann is 30."}]}


def client(server: Running, mode: Mode) -> Any:  # noqa: ANN401
    return instructor.from_openai(
        OpenAI(base_url=server.url, api_key="none", max_retries=0), mode=mode
    )


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON, Mode.JSON_SCHEMA])
def test_an_object_whole_and_in_parts(
    server: Running, completer: EchoCompleter, mode: Mode
) -> None:
    completer.says = CALL if mode in (Mode.TOOLS, Mode.TOOLS_STRICT) else TEXT
    made = client(server, mode).chat.completions
    found = made.create(response_model=Person, max_retries=0, **ASKED)
    assert found.model_dump() == ANN.model_dump()
    constraint = completer.requests[-1].sampling.constraint
    assert constraint is not None
    assert ('"age"' in constraint.text) is (mode is not Mode.JSON)
    *_, last = made.create_partial(response_model=Person, max_retries=0, **ASKED)
    assert last.model_dump() == ANN.model_dump()


def test_several_objects(server: Running, completer: EchoCompleter) -> None:
    completer.says = f"{CALL}\n{CALL}"
    made = client(server, Mode.PARALLEL_TOOLS).chat.completions
    found = made.create(response_model=Iterable[Person], max_retries=0, **ASKED)
    assert [each.model_dump() for each in found] == [ANN.model_dump()] * 2


def test_an_object_that_is_wrong_is_asked_for_again(
    server: Running, completer: EchoCompleter
) -> None:
    completer.says = CALL.replace("30", '"?"')
    made = client(server, Mode.TOOLS).chat.completions
    with pytest.raises(InstructorRetryException):
        made.create(response_model=Person, max_retries=2, **ASKED)
    prompt = completer.requests[-1].prompt
    assert len(completer.requests) >= 2
    assert len(prompt) > 1, "what was wrong is in the conversation"


async def test_the_default_model_gives_an_object(real_server: Running) -> None:
    async with AsyncOpenAI(base_url=real_server.url, api_key="none", timeout=300) as opened:
        made: Any = instructor.from_openai(opened)
        person = await made.chat.completions.create(
            response_model=Person, max_retries=0, temperature=0, max_tokens=60, **ASKED
        )
    assert person.model_dump() == ANN.model_dump()
