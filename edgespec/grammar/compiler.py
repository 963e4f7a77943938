"""From the text of a constraint to what follows an answer, within bounds of size and time.

Whatever a stranger wrote is compiled here: nothing of it may end the process, hold it up or fill
its memory. llguidance counts what it does and stops at limits; what it does not count is bounded
before it sees it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from edgespec.errors import GrammarError
from edgespec.grammar.gbnf import gbnf_to_lark
from edgespec.grammar.json_schema import lark_for_llguidance, schema_for_llguidance
from edgespec.grammar.matcher import ConstraintMatcher
from edgespec.pauses import Pause
from edgespec.types import Constraint
from edgespec.vocab.tokenizer import ByteTokenizer
from edgespec.vocab.vocabulary import Tokenizer

_MOST_LETTERS = {"json_schema": 1 << 20, "regex": 1 << 16, "lark": 1 << 18, "gbnf": 1 << 18}
_MOST_FORCED = 256
_MOST_TOLD = 300
_STACK_BYTES = 1 << 29
"""Twice what the deepest chain of rules of this length takes; what is not used is never touched."""

_FIRST = threading.Lock()
_LIMITS = LLParserLimits(max_items_in_row=20_000, max_lexer_states=50_000, verbose_errors=False)

_ATTRIBUTE = re.compile(r"^[ \t]*[!?\w-]+\[[^\n:]*?\b(stop|temperature)[ \t]*=", re.MULTILINE)
"""Of rules: what would take tokens back, and what llguidance leaves to whoever samples."""

Result = TypeVar("Result")

_NAMES = {
    "json_schema": "JSON schema",
    "regex": "regular expression",
    "lark": "Lark grammar",
    "gbnf": "grammar",
}


class GrammarCompiler:
    """Compiles constraints for one vocabulary, one after the other; any thread may ask.

    Implements `edgespec.runtime.idle.IdleTask`: what llguidance needs of the vocabulary takes half
    a second in which nothing else runs.
    """

    name = "constraints are prepared"

    def __init__(self, vocab: Tokenizer) -> None:
        """`vocab` must stay open; it is read when first needed."""
        self._vocab = vocab
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def compile(self, constraint: Constraint) -> ConstraintMatcher:
        """What follows an answer under `constraint`; raises GrammarError. May take a second."""
        source, tokenizer = _source(constraint), self._opened()
        native = _apart(lambda: _native(tokenizer, source))
        if native.is_error():
            raise _refused(constraint, native.get_error())
        return ConstraintMatcher(native, self._vocab.num_tokens, self._vocab.end_tokens)

    def run(self, _pause: Pause) -> bool:
        """Read the vocabulary before anybody waits for it; nothing is left to do then."""
        with contextlib.suppress(GrammarError):
            self._opened()
        return False

    def _opened(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _apart(lambda: _tokenizer(self._vocab))
            return self._tokenizer


class _Wrapped(TokenizerWrapper):
    """A vocabulary as `LLTokenizer` wants it: bytes, special tokens named, and how it tokenizes."""

    def __init__(self, vocab: Tokenizer, ends: Sequence[int]) -> None:
        self._bytes = ByteTokenizer(vocab)
        self.tokens = [self._bytes.piece(token) for token in range(vocab.num_tokens)]
        self.special_token_ids = []
        for token, piece in enumerate(self.tokens):
            if not piece and (name := vocab.piece(token, special=True)):
                self.tokens[token] = name
                self.special_token_ids.append(token)
        self.eos_token_id = ends[0]
        self.bos_token_id = vocab.bos
        self.is_tokenizer_wrapper = True

    def __call__(self, text: str) -> list[int]:
        """Tokens of what is forced; of a long text only the first ones are asked for."""
        return self._bytes.encode(text[:_MOST_FORCED].encode()).tokens


def _native(tokenizer: LLTokenizer, source: str) -> LLMatcher:
    """A matcher, or one in an error if its first two masks are beyond the limits."""
    native = LLMatcher(tokenizer, source, log_level=0, limits=_LIMITS)
    if native.is_error():
        return native
    mask = np.frombuffer(native.compute_bitmask(), np.uint8)
    if native.is_error():
        return native
    ahead = native.deep_copy()
    ahead.consume_token(int(np.unpackbits(mask, bitorder="little").argmax()))
    ahead.compute_bitmask()
    return ahead if ahead.is_error() else native


def _apart(work: Callable[[], Result]) -> Result:
    """Do what goes as deep as a grammar's rules do, in native code, where that ends a process."""

    def guarded() -> Result:
        try:
            return work()
        except GrammarError:
            raise
        except BaseException as error:
            problem = f"llguidance failed: {type(error).__name__}"
            raise GrammarError(problem, "simplify it") from error

    with _FIRST:
        thread = _deep_thread()
    return thread.submit(guarded).result()


@lru_cache(maxsize=1)
def _deep_thread() -> ThreadPoolExecutor:
    """One thread for all, as its stack counts as memory of the process, used or not."""
    pool = ThreadPoolExecutor(1, "grammar")
    usual = threading.stack_size(_STACK_BYTES)
    try:
        pool.submit(int)  # starts it
    finally:
        threading.stack_size(usual)
    return pool


def _tokenizer(vocab: Tokenizer) -> LLTokenizer:
    ends = sorted(vocab.end_tokens)
    if not ends:
        raise GrammarError("this model has no token that ends an answer", "use another model")
    # Slices of the vocabulary would cost time and memory; no mask was faster with them.
    return LLTokenizer(_Wrapped(vocab, ends), eos_token=ends, slices=[])


def _source(constraint: Constraint) -> str:
    """The constraint in a form that llguidance reads."""
    name, text = _NAMES[constraint.kind], constraint.text
    if len(text) > (most := _MOST_LETTERS[constraint.kind]):
        raise GrammarError(f"the {name} has {len(text):,} characters", f"{most:,} are the most")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarError(f"the {name} contains half a character", "save it as UTF-8") from error
    match constraint.kind:
        case "json_schema":
            return f'{{"grammars": [{{"json_schema": {schema_for_llguidance(text)}}}]}}'
        case "regex":
            return LLMatcher.grammar_from_regex(text)
        case "gbnf":
            return _lark(gbnf_to_lark(text))
        case "lark":
            if (attribute := _ATTRIBUTE.search(text)) is not None:
                raise GrammarError(f"the {name} has {attribute[1]}=, which is not done here")
            return _lark(lark_for_llguidance(text))


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _refused(constraint: Constraint, reason: str) -> GrammarError:
    """What llguidance says, in one line: of several the one that tells what is wrong."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("error: ")), lines[0] if lines else "")
    told = "".join(letter if letter.isprintable() else "?" for letter in told)[:_MOST_TOLD]
    told = "no text keeps to it" if told.startswith("NoExtension") else told
    return GrammarError(f"the {_NAMES[constraint.kind]} is refused: {told}", "simplify it")
