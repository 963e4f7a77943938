"""The token database in use: answers go in after each turn, drafts come out.

Whatever goes wrong here costs speed and one line for people, never an answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from edgespec.cache.chats.journal import Journal
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.sequences import VocabularyKey
from edgespec.cache.tokens.token_memory import TokenMemory
from edgespec.drafters.database import TokenIndex
from edgespec.llama.model import Model
from edgespec.machine.facts import file_fingerprint
from edgespec.passes import Kept
from edgespec.reports import Report
from edgespec.types import Completion, CompletionRequest, EncodedPrompt

_VOCABULARY = "vocabulary"


def vocabulary_key(model: Model, facts: Facts) -> VocabularyKey:
    """Whose token ids these are, told by the model's file, so that it is computed only once."""
    file = file_fingerprint(model.path)
    fingerprint = (facts.get(_VOCABULARY, file) or {}).get("fingerprint")
    if not isinstance(fingerprint, str):
        from edgespec.vocab.tokenizer import ByteTokenizer

        fingerprint = ByteTokenizer(model.vocab).fingerprint
        facts.put(_VOCABULARY, file, {"fingerprint": fingerprint})
    return VocabularyKey(fingerprint, model.vocab.num_tokens)


class Remembering:
    """The token memory in use; leaving the block writes the last answer.

    Implements `edgespec.protocols.Observer`; each call returns at once. Answers are remembered
    while it `is_learning`.
    """

    def __init__(self, memory: TokenMemory, report: Report) -> None:
        """`report` gets each problem once; the memory is closed with this."""
        self.is_learning = True
        self._memory = memory
        self._report = report
        self._journal = Journal()
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tiers_of(self, owner: str) -> tuple[TokenIndex, ...]:
        """What drafts are looked for in: what was said to this owner, and imported text."""
        return self._memory.model_of(owner), self._memory.statistics

    def open(self, request: CompletionRequest, prompt: EncodedPrompt) -> Recording:
        """An answer begins."""
        return Recording(self, request, prompt)

    def record(
        self, request: CompletionRequest, prompt: EncodedPrompt, completion: Completion
    ) -> None:
        """Remember soon what the target said."""
        if completion.token_ids and self._is_recorded(request):
            entry = None
            if turns := _journaled(request):
                with self._lock:
                    entry = self._journal.entry(turns, completion.text)
            self._memory.record(
                completion.token_ids, prompt.tokens, entry, request.conversation, request.owner
            )
        self._tell()

    def asked(self, request: CompletionRequest) -> None:
        """Keep soon what was asked, should no answer come; returns at once and never raises."""
        turns = _journaled(request)
        if turns and self._is_recorded(request):
            with self._lock:
                entry = self._journal.question(turns)
            self._memory.note(entry)

    def flush(self) -> bool:
        """Wait until every answer so far can be found; False if that takes too long."""
        return self._memory.flush()

    def __enter__(self) -> Remembering:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._memory.close()
        self._tell()

    def _is_recorded(self, request: CompletionRequest) -> bool:
        return self.is_learning and request.record

    def _tell(self) -> None:
        notice = self._memory.notice
        if notice and notice not in self._told:
            self._told.add(notice)
            self._report(notice)


@dataclass(frozen=True, slots=True)
class Recording:
    """Implements `edgespec.protocols.Observation`: one answer that is to be remembered."""

    owner: Remembering
    request: CompletionRequest
    prompt: EncodedPrompt

    def take(self, kept: Kept) -> None:
        """Passes are of no interest."""

    def close(self, completion: Completion | None) -> None:
        """The answer is over."""
        if completion is not None:
            self.owner.record(self.request, self.prompt, completion)


def _journaled(request: CompletionRequest) -> list[tuple[str, str]]:
    """The messages to write down: none of a named conversation, which who named it writes down.

    None, either, of those who ask with a key: they are not this user's chats.
    """
    is_others = request.conversation is not None or request.owner
    if is_others or isinstance(request.prompt, str):
        return []
    return [(message.role, message.content) for message in request.prompt]
