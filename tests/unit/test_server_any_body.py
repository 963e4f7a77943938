"""Whatever JSON arrives, the answer is a valid one or an error in OpenAI's form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion
from server_support import Reply, Running, send

from edgespec.server.openai.chat import ChatBody
from edgespec.server.openai.completions import TextBody
from edgespec.server.openai.fields import AnswerBody

PATHS: dict[str, type[AnswerBody]] = {"/v1/chat/completions": ChatBody, "/v1/completions": TextBody}

numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.floats(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20))
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text()}
    ),
    min_size=1,
    max_size=3,
)
schemas = st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": anything})
likely = {
    "messages": messages,
    "prompt": st.one_of(st.text(), st.lists(st.text(), max_size=2)),
    "stop": st.lists(st.text(min_size=1, max_size=3), max_size=3),
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), numbers, max_size=3),
    "response_format": st.one_of(schemas, st.just({"type": "json_object"})),
    "grammar": st.sampled_from(["root ::= x", "nothing"]),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
}


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, object]:
    """A question that is right in most fields and wrong in a few."""
    required = "messages" if PATHS[path] is ChatBody else "prompt"
    body: dict[str, object] = {required: draw(likely[required])}
    names = st.sampled_from([*PATHS[path].model_fields, "repeat_last_n", "unknown"])
    for name in draw(st.lists(names, max_size=5)):
        sensible = likely.get(name, numbers)
        body[name] = draw(st.one_of(sensible, sensible, leaves, anything))
    return body


def check(reply: Reply, path: str) -> None:
    if reply.status == 400:
        assert reply.error["message"]
        return
    assert reply.status == 200, reply.body
    if reply.headers["content-type"].startswith("text/event-stream"):
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert b'"error"' not in reply.body
        return
    kind = ChatCompletion if PATHS[path] is ChatBody else Completion
    kind.model_validate(reply.json, strict=True)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_nearly_right_questions(server: Running, path: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(bodies(path))).encode()
    check(send(server, "POST", path, body), path)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None)
@given(content=anything)
def test_any_json(server: Running, path: str, content: object) -> None:
    check(send(server, "POST", path, json.dumps(content).encode()), path)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes(server: Running, path: str, body: bytes) -> None:
    check(send(server, "POST", path, body), path)
