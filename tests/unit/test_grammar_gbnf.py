"""GBNF means here what it means to llama.cpp, or is refused by name."""

from __future__ import annotations

import pytest
from grammar_support import admits

from edgespec.errors import GrammarError
from edgespec.grammar.gbnf import gbnf_to_lark
from edgespec.types import Constraint


def gbnf(text: str) -> Constraint:
    return Constraint("gbnf", text)


@pytest.mark.parametrize(
    ("grammar", "admitted", "refused"),
    [
        ('root ::= "a" | "bc"', ["a", "bc"], ["", "b", "ab", "bcd"]),
        ("root ::= [a-c]+ [^0-9\\n]?", ["a", "abc", "abc!", "aé"], ["", "d", "a1", "a\n"]),
        ('root ::= ("ab" | "c"){2,3} "."', ["cc.", "abcab."], ["c.", "cccc.", "cc"]),
        ('root ::= "a"{2} "b"{0} "c"{1,} "d"{,}', ["aac", "aaccc"], ["aabc", "ac", "aa"]),
        ('root ::= "\\x41\\u00e9\\U0001F642\\"\\\\\\n"', ['Aé🙂"\\\n'], ["Aé🙂"]),
        ("root ::= [\\]\\[a\\-/-]+", ["]", "[a-/"], ["b", ""]),
        ("root ::= . .", ["ab", "\n🙂"], ["a", "abc"]),
        ('root ::= word "x" # greedy\nword ::= [a-z]+\n', ["abx", "xx"], ["x", "ab"]),
        ('root ::= item-1\n  | ITEM-1\nitem-1 ::= "a"\nITEM-1 ::= "b"', ["a", "b"], ["c"]),
        ('root ::= "{3,1}\\"" [({] ")" # {9,2}\n', ['{3,1}"()', '{3,1}"{)'], ["{3,1}"]),
        ('root ::= "(" root? ")"', ["()", "((()))"], ["(", "(()", ""]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab", ""]),
        ('root ::= item ("," item)*\nitem ::= [0-9]+ | "[" root "]"', ["1,[2,34]"], ["1,", "[]"]),
        ('root ::= ("x" | "(" root ")") ([+*] root)?', ["x", "(x+x)*x"], ["x+", "()"]),
        ('root ::= | "a" root', ["", "aaa"], ["b"]),
        ('root ::= ""', [""], ["a"]),
    ],
)
def test_what_a_grammar_admits(grammar: str, admitted: list[str], refused: list[str]) -> None:
    assert [text for text in admitted if not admits(gbnf(grammar), text)] == []
    assert [text for text in refused if admits(gbnf(grammar), text)] == []


JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_the_grammar_for_json_that_everybody_copies() -> None:
    for text in ('{"a": [1, -2.5e3, "x\\n", {}], "b": null}', "{}", '{ "é": true\n  }'):
        assert admits(gbnf(JSON_GBNF), text)
    for text in ("[]", '{"a"}', '{"a": 01}', '{"a": "\n"}'):
        assert not admits(gbnf(JSON_GBNF), text)


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ("", "no rule named root"),
        ("# root", "no rule named root"),
        ('start ::= "a"', "no rule named root"),
        ("root ::= other", "no rule named other"),
        ("root := x", "':= x'"),
        ('root ::= "a', "'\"a'"),
        ('root ::= "a" | (', "open bracket"),
        ('root ::= "a" ) "b"', "')'"),
        ('"a"', "'\"a\"'"),
        ("root ::= \0", "'\\x00'"),
        ('root ::= "a"{3,\n1}', "{3,1} times"),
        ('root ::= "a"*+', "'+'"),
        ("root ::= [z-a]", "'z' to 'a'"),
        ("root ::= []", "no letter"),
        ("root ::= [\\q]", "escape '\\\\q'"),
        ('root ::= "\\\n"', "escape"),
        ('root ::= "\\ud800"', "U+D800"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ("root ::= <[1000]>", "'<[1000]>'"),
        ("root ::= " + "(" * 30 + '"a"' + ")" * 30, "more than 25 brackets"),
    ],
)
def test_what_is_refused_by_name(grammar: str, problem: str) -> None:
    with pytest.raises(GrammarError) as caught:
        gbnf_to_lark(grammar)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()
