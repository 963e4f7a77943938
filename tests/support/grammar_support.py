"""Constraints over toy vocabularies: what they admit, and answers drawn at random under them."""

from __future__ import annotations

import json
import random
from functools import lru_cache

from toy_vocabularies import TOYS, ToyVocabulary

from edgespec.errors import GrammarError
from edgespec.grammar.compiler import GrammarCompiler
from edgespec.grammar.matcher import ConstraintMatcher
from edgespec.types import Constraint

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "lower": {"enum": ["token", "tokenizer", "über"]},
        "tokens": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    },
    "required": ["name", "lower"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "schema": Constraint("json_schema", json.dumps(PERSON)),
    "regex": Constraint("regex", r"(the lowest|the lower) (token|tokenizer){1,3}\.+"),
    "lark": Constraint("lark", 'start: "(" (item ",")* ")"\nitem: /[a-z]+ing/ | start\n'),
    "lark that counts": Constraint("lark", 'start: a "." /[0-9]+/\na[max_tokens=3]: /[a-z ]+/'),
    "lark with a schema": Constraint(
        "lark", f"start: TEXT call\nTEXT: /[a-z ]*/\ncall: <|im_start|> %json {json.dumps(PERSON)}"
    ),
    "gbnf": Constraint("gbnf", 'root ::= "龍" ("河" root | [0-9]{2,4}) "é"?'),
}
"""Of each kind."""


@lru_cache
def compiler(toy: str) -> GrammarCompiler:
    """A compiler over the toy vocabulary of this name, or over single bytes for ""."""
    return GrammarCompiler(TOYS[toy]() if toy else ToyVocabulary("bpe", ()))


def admits(constraint: Constraint, text: str) -> bool:
    """Whether `text` may be the whole answer, byte by byte."""
    vocab = ToyVocabulary("bpe", ())
    matcher = compiler("").compile(constraint)
    try:
        for token in vocab.tokenize(text.encode()):
            if token not in matcher.allowed():
                return False
            matcher.accept(token)
        return vocab.eos in matcher.allowed()
    except GrammarError:
        return False


def draw(matcher: ConstraintMatcher, seed: int, ends: frozenset[int], most: int = 60) -> list[int]:
    """A random answer of at most so many tokens; where it may end, it often does."""
    source = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        allowed = matcher.allowed().tolist()
        may_end = [token for token in allowed if token in ends]
        token = source.choice(may_end if may_end and source.random() < 0.3 else allowed)
        matcher.accept(token)
        tokens.append(token)
        if token in ends:
            break
    return tokens
