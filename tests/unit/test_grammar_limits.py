"""Whatever a stranger sends is compiled or refused in one line; nothing hangs, dies or grows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from grammar_support import admits, compiler
from hypothesis import given
from hypothesis import strategies as st
from toy_vocabularies import ToyVocabulary

from edgespec.errors import GrammarError
from edgespec.grammar.compiler import GrammarCompiler
from edgespec.types import Constraint, ConstraintKind


def refusal(kind: ConstraintKind, text: str) -> str:
    with pytest.raises(GrammarError) as caught:
        compiler("bpe").compile(Constraint(kind, text))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "no such type"}, "no such type"),
        ({"type": 123}, "type must be"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "format": "phone"}, "phone"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "https://example.com/schema"}, "example.com"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"properties": 3}, "properties must be an object"),
        ({"x-guidance": {"lenient": True}, "type": "object", "if": {}}, "if"),
    ],
)
def test_what_a_schema_cannot_say_is_named(schema: object, named: str) -> None:
    assert named in refusal("json_schema", json.dumps(schema))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "7", "false", '{"const": 1e999}'])
def test_text_that_is_no_schema_is_refused(text: str) -> None:
    assert "JSON schema" in refusal("json_schema", text)


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        ("regex", "(?=a)b", "look-around"),
        ("regex", "(a)\\1", "backreference"),
        ("regex", "(a", "unclosed group"),
        ("lark", "start: other", "other"),
        ("lark", "%import python.NAME\nstart: NAME", "python.NAME"),
        ("lark", "", "Lark grammar"),
        ("lark", 'begin: "a"', "start"),
        ("lark", 'start: a "z"\na[lazy, temperature=0.7]: /[a-c]+/', "temperature="),
        ("lark", 'start: a "z"\na[stop="the"]: /.*/', "stop="),
    ],
)
def test_what_a_grammar_cannot_say_is_named(kind: ConstraintKind, text: str, named: str) -> None:
    assert named in refusal(kind, text)


CHAIN = 10_000
HOSTILE: dict[str, Constraint] = {
    "open brackets": Constraint("gbnf", "root ::= " + "[" * 60_000),
    "open groups": Constraint("gbnf", "root ::= " + "(" * 60_000),
    "closed groups": Constraint("gbnf", "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "quotes": Constraint("gbnf", "root ::= " + '"' * 60_001),
    "stars": Constraint("gbnf", 'root ::= "a"' + "*" * 60_000),
    "optional letters": Constraint("gbnf", 'root ::= ("a"?){500}'),
    "left recursion": Constraint("gbnf", 'root ::= a root "b"\na ::= "x"?'),
    "rules in a chain": Constraint(
        "gbnf",
        "root ::= r0\n"
        + "".join(f"r{n} ::= r{n + 1}\n" for n in range(CHAIN))
        + f'r{CHAIN} ::= "a"',
    ),
    "doubling rules": Constraint(
        "gbnf",
        "root ::= r0\n"
        + "".join(f"r{n} ::= r{n + 1} r{n + 1}\n" for n in range(60))
        + 'r60 ::= "a"',
    ),
    "lark brackets": Constraint("lark", "start: " + "(" * 60_000),
    "lark chain": Constraint(
        "lark",
        "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(CHAIN)) + f'r{CHAIN}: "a"',
    ),
    "lark terminals": Constraint(
        "lark",
        "start: R0\n" + "".join(f"R{n}: R{n + 1}\n" for n in range(CHAIN)) + f'R{CHAIN}: "a"',
    ),
    "regex brackets": Constraint("regex", "(" * 60_000 + ")" * 60_000),
    "regex repetition": Constraint("regex", "((a{1000}){1000}){1000}"),
    "regex options": Constraint("regex", "(a?){500}b"),
    "regex lookback": Constraint("regex", "(a|b)*a(a|b){200}c"),
    "enum": Constraint("json_schema", json.dumps({"enum": [f"value {n}" for n in range(20_000)]})),
    "items": Constraint(
        "json_schema", json.dumps({"type": "array", "items": {}, "minItems": 20_000_000})
    ),
    "letters": Constraint("json_schema", json.dumps({"type": "string", "minLength": 20_000_000})),
    "properties": Constraint(
        "json_schema",
        json.dumps({"type": "object", "properties": {f"p{n}": {} for n in range(3_000)}}),
    ),
    "many values": Constraint("json_schema", json.dumps({"enum": list(range(60_000))})),
    "nested arrays": Constraint("json_schema", '{"items":' * 3_000 + "{}" + "}" * 3_000),
    "references": Constraint(
        "json_schema",
        json.dumps(
            {
                "$ref": "#/$defs/0",
                "$defs": {
                    **{str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(5_000)},
                    "5000": {},
                },
            }
        ),
    ),
    "reference to itself": Constraint(
        "json_schema", json.dumps({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
    ),
    "long": Constraint("regex", "a" * 300_000),
    "half a character": Constraint("lark", 'start: "\udce9"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_constraints_are_compiled_or_refused(name: str) -> None:
    try:
        matcher = compiler("bpe").compile(HOSTILE[name])
        for _ in range(20):
            matcher.accept(int(matcher.allowed()[0]))
    except GrammarError as error:
        assert str(error).isprintable()


@given(st.sampled_from(["json_schema", "regex", "lark", "gbnf"]), st.text(max_size=60))
def test_any_text_is_compiled_or_refused(kind: ConstraintKind, text: str) -> None:
    try:
        compiler("bpe").compile(Constraint(kind, text))
    except GrammarError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("schema", "is_closed"),
    [
        ({"properties": {"a": {}}, "required": ["a"]}, True),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
        ({"type": "object"}, False),
        ({"properties": {}}, True),
        ({"properties": {"a": {}}, "patternProperties": {"^b": {}}}, False),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, False),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"properties": {"a": {}}}}}, False),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {}}}}}, True),
        ({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}, True),
    ],
)
def test_objects_have_no_other_properties_unless_they_may(
    schema: dict[str, object], is_closed: bool
) -> None:
    constraint = Constraint("json_schema", json.dumps(schema | {"type": "object"}))
    assert admits(constraint, '{"a": 1, "b": 2}') != is_closed
    assert admits(constraint, '{"a": 1}') or schema == {"properties": {}}


def test_schemas_within_a_grammar_are_meant_like_others() -> None:
    call = json.dumps({"properties": {"a": {"type": "integer"}}, "required": ["a"]})
    lark = Constraint("lark", f'start: one ("," one)?\none: "f(" %json {call} ")" | %json {call}')
    for text in ('f({"a": 1})', '{"a": 1},f({\n "a":2})'):
        assert admits(lark, text)
    for text in ('f({"a": 1, "b": 2})', 'f({"a":  1})', 'f({"a": "x"})'):
        assert not admits(lark, text)
    many = json.dumps({"properties": {f"p{number}": {} for number in range(3_000)}})
    assert "3,000 properties" in refusal("lark", f"start: %json {many}")


def test_a_schema_may_let_anything_be() -> None:
    for text in ("true", "{}"):
        assert admits(Constraint("json_schema", text), '[{"a": null}, 1]')


def test_a_value_that_looks_like_a_schema_stays_as_it_is() -> None:
    value = {"properties": {"a": 1}}
    assert admits(Constraint("json_schema", json.dumps({"const": value})), json.dumps(value))


def test_spaces_between_parts_come_to_an_end() -> None:
    schema = Constraint("json_schema", json.dumps({"type": "array", "items": {"const": 1}}))
    assert admits(schema, "[1, 1,1]")
    assert admits(schema, "[\n  1,\n  1\n]")
    assert not admits(schema, "[  1]")
    assert not admits(schema, "[\n\n1]")


def test_a_panic_of_native_code_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panic(*_arguments: object) -> None:
        raise Panic

    monkeypatch.setattr("edgespec.grammar.compiler._native", panic)
    assert "failed: Panic" in refusal("regex", "a")


def test_a_model_without_an_end_is_told() -> None:
    class Endless(ToyVocabulary):
        @property
        def end_tokens(self) -> frozenset[int]:
            return frozenset()

    with pytest.raises(GrammarError, match="no token that ends"):
        GrammarCompiler(Endless("bpe", ())).compile(Constraint("regex", "a"))


def test_constraints_that_come_at_once_share_one_deep_stack() -> None:
    """Stacks count as memory, of which the process has a bound."""
    texts = [
        json.dumps({"enum": [f"{number} {each}" for each in range(2000)]}) for number in range(16)
    ]
    before = psutil.Process().memory_info().data
    most = 0
    with ThreadPoolExecutor(16) as pool:
        compiled = [
            pool.submit(compiler("bpe").compile, Constraint("json_schema", text)) for text in texts
        ]
        while not all(each.done() for each in compiled):
            most = max(most, psutil.Process().memory_info().data)
    assert all(each.result() for each in compiled)
    assert most - before < 3 << 29
