"""Grammars before llama.cpp sees them: JSON schema to GBNF, and what its parser cannot survive."""

from __future__ import annotations

import json
import re

from llama_cpp.llama_grammar import json_schema_to_gbnf

from edgespec.errors import GrammarError

_MOST_NESTED = 200
_LITERAL = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*')
_REPETITION = re.compile(r"\{\s*(\d{1,18})\s*,\s*(\d{1,18})\s*\}")


def check_grammar(text: str) -> None:
    """Raise GrammarError for GBNF text that llama.cpp would ignore, hang on or crash on.

    Whether it parses is for llama.cpp to say (llama_sampler_init_grammar).
    """
    if not text:  # to llama.cpp, no grammar at all
        raise GrammarError("the grammar is empty", "it must define a rule named root")
    if "\0" in text:
        raise GrammarError("the grammar contains a NUL character", "remove it")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise GrammarError("the grammar contains half a character", "save it as UTF-8")
    bare = _LITERAL.sub(" ", text)
    for low, high in _REPETITION.findall(bare):
        if int(high) < int(low):  # llama.cpp counts down for ever
            raise GrammarError(f"the grammar repeats {{{low},{high}}} times", "swap the numbers")
    depth = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        if depth > _MOST_NESTED:  # llama.cpp's parser overflows its stack
            raise GrammarError(
                f"the grammar nests more than {_MOST_NESTED} brackets",
                "give parts rules of their own",
            )


def schema_to_gbnf(schema: str) -> str:
    """GBNF text that admits exactly the JSON values of `schema`, a JSON Schema as JSON text.

    Raises GrammarError for text that is not JSON, or a schema that the converter cannot express.
    """
    try:
        json.loads(schema)
        return str(json_schema_to_gbnf(schema))
    except json.JSONDecodeError as error:
        raise GrammarError(f"the JSON schema is not JSON: {error}", "check its syntax") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        AssertionError,
    ) as error:
        raise GrammarError(
            f"the JSON schema cannot be turned into a grammar: {error}", "simplify it"
        ) from error
