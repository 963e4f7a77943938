"""JSON schema to GBNF, through the converter that llama-cpp-python ships."""

from __future__ import annotations

import json

from llama_cpp.llama_grammar import json_schema_to_gbnf

from edgespec.errors import GrammarError


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
