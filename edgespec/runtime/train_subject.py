"""Who is trained and on what: a drafter as it runs, and recorded answers in its tokens."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.cache.chats.conversations import Conversations
from edgespec.cache.database import DAMAGE, Database
from edgespec.cache.facts import Facts
from edgespec.cache.tokens.answers import latest_answers
from edgespec.cache.tokens.sequences import VocabularyKey
from edgespec.errors import EdgeSpecError, StorageError, UsageError
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.weighing import USUAL_PASS_MS
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import is_trimmed, read_trim_info
from edgespec.learning.architecture import read_form
from edgespec.learning.corpus import Corpus
from edgespec.learning.lessons import (
    LEAST_ANSWERS,
    Answered,
    CorpusReader,
    Course,
    SessionReader,
    course_of,
)
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.facts import MODEL, ModelFacts, file_fingerprint, model_key
from edgespec.machine.identity import Machine
from edgespec.models.gguf_check import check_gguf
from edgespec.models.store import ModelStore
from edgespec.paths import Paths
from edgespec.planning.cost import CostModel
from edgespec.reports import Report
from edgespec.runtime.choice import expected_speed_of
from edgespec.runtime.model_drafter import Renderer
from edgespec.runtime.request import Source
from edgespec.runtime.target import pass_costs
from edgespec.signals import ending_at_once
from edgespec.types import Prompt
from edgespec.vocab.tokenizer import ByteTokenizer

MOST_ANSWERS = 4000
"""The latest answers are learned from: a few megabytes of tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Who is trained: the whole drafter, the form that runs, its head's rows, and for whom."""

    target: Path
    whole: Path
    trimmed: Path | None
    kept: NDArray[np.int32]
    num_tokens: int
    fingerprints: tuple[str, str]

    @property
    def running(self) -> Path:
        """The file that drafts."""
        return self.trimmed or self.whole


class SubjectReader:
    """Reads for one target, on one machine, from one database."""

    def __init__(
        self,
        target: Path,
        paths: Paths,
        database: Database,
        machine: Machine,
        options: ModelOptions,
        report: Report,
    ) -> None:
        self._target = target
        self._paths = paths
        self._database = database
        self._facts = Facts(database)
        self._machine = machine
        self._options = options
        self._report = report
        folder, facts = paths.trimmed, self._facts
        self._trimmer = Trimmer(folder, facts, machine, options, report, follows=True)

    def best_drafter(self) -> Path:
        """The one that `auto` would take, by what was measured of the models on disk.

        Raises UsageError if nothing was.
        """
        target, speeds = self._target, {}
        for stored in ModelStore(self._paths).list():
            if stored.path != target and stored.size_bytes < target.stat().st_size:
                with contextlib.suppress(EdgeSpecError):  # nobody asked for it by name
                    form = self._trimmer.decision(stored.path)
                    if form is not None:
                        speeds[stored.path] = expected_speed_of(form)
        if not speeds:
            raise UsageError("no drafter was measured yet", "say which with --drafter")
        return max(speeds, key=lambda path: speeds[path])

    def read(self, whole: Path, source: Source) -> tuple[Subject, Course]:
        """Who is trained, and on what.

        Raises ModelFileError for a drafter that cannot be trained, UsageError where too little was
        said, StorageError.
        """
        check_gguf(whole)
        if is_trimmed(whole):
            raise UsageError(f"{whole.name} is trimmed", "give the model it was made from")
        read_form(GgufFile(whole))  # refuses what cannot be trained before anything takes time
        with ending_at_once():
            trimmed = self._trimmer.trimmed(whole, self.pass_ms)
        only_words = ModelOptions(vocabulary_only=True)
        with contextlib.ExitStack() as opened:
            with ending_at_once():
                target = opened.enter_context(Model(self._target, only_words))
                drafter = opened.enter_context(Model(whole, only_words))
            vocabularies = ByteTokenizer(target.vocab), ByteTokenizer(drafter.vocab)
            num_tokens = drafter.vocab.num_tokens
            info = read_trim_info(trimmed) if trimmed is not None else None
            kept = np.arange(num_tokens, dtype=np.int32) if info is None else info.kept
            key = VocabularyKey(vocabularies[0].fingerprint, target.vocab.num_tokens)
            course = self._course(vocabularies, drafter, key, source)
        fingerprints = (key.fingerprint, file_fingerprint(whole))
        return Subject(self._target, whole, trimmed, kept, num_tokens, fingerprints), course

    def _course(
        self,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        drafter: Model,
        key: VocabularyKey,
        source: Source,
    ) -> Course:
        render, course = Renderer(drafter), course_of(())
        if source != "corpus":
            course += course_of(self._recorded(vocabularies, render, key))
        if source != "recorded":
            corpus = Corpus(self._paths.corpora, file_fingerprint(self._target))
            reader = CorpusReader(vocabularies, render)
            course += course_of(map(reader.read, corpus.read(self._report)))
        if course.num_answers < LEAST_ANSWERS:
            raise UsageError(
                f"{course.num_answers} answers of {self._target.stem} are kept,"
                " too few to learn from",
                f"chat on until there are {LEAST_ANSWERS}, or run `edgespec learn corpus`",
            )
        return course

    def _recorded(
        self,
        vocabularies: tuple[ByteTokenizer, ByteTokenizer],
        render: Callable[[Prompt], list[int]],
        key: VocabularyKey,
    ) -> list[Answered]:
        """What was said to this user."""
        conversations = Conversations(self._database.connection)
        reader = SessionReader(
            vocabularies,
            render,
            lambda name: [(t.role, t.content, t.before) for t in conversations.turns(name)],
        )
        try:
            latest = latest_answers(self._database.connection, key)
            answers = list(itertools.islice(latest, MOST_ANSWERS))[::-1]
            read = [reader.read(each.tokens, each.context, each.conversation) for each in answers]
        except DAMAGE as error:
            raise StorageError(
                f"the database cannot be read ({error})", "run `edgespec db check`"
            ) from error
        return [each for each in read if each is not None]

    def pass_ms(self) -> Mapping[int, float]:
        """T(r) of the target if it was measured."""
        words = ModelOptions(self._options.use_extra_buffers, vocabulary_only=True)
        with Model(self._target, words) as model:
            known = self._facts.get(MODEL, model_key(model, self._machine))
        facts = ModelFacts.from_json(known) if known is not None else None
        return (
            USUAL_PASS_MS if facts is None else pass_costs(CostModel(facts.table, facts.max_rows))
        )
