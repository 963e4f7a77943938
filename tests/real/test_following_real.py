"""The default drafter says what it read, and its head follows a user who is answered in German."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgespec.forms.counts import keep_tokens
from edgespec.forms.rows import RowChooser
from edgespec.forms.trimming import always_kept, count_shipped
from edgespec.forms.words import shipped_words
from edgespec.gguf.file import GgufFile
from edgespec.gguf.trim import write_other_rows, write_trimmed
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine
from edgespec.runtime.model_drafter import WholeTables, load_weights
from edgespec.vocab.tokenizer import ByteTokenizer

KEPT = 8192
OPTIONS = ContextOptions(num_context=512, num_threads=this_machine().num_threads)
SAID = (
    "Ein Vertrag ist eine Vereinbarung zwischen mindestens zwei Personen. Er entsteht durch "
    "Angebot und Annahme.",
    "Die Wärmepumpe entzieht der Umgebung Wärme und gibt sie an das Heizungswasser ab. Dafür "
    "braucht sie Strom.",
    "Die Kündigung des Mietvertrags muss schriftlich erfolgen; die Frist beträgt drei Monate.",
)
NEW = "Die Vereinbarung über die Wärmepumpe muss schriftlich erfolgen."


@pytest.fixture(scope="module")
def tokenizer(drafter_path: Path) -> Iterator[ByteTokenizer]:
    with Model(drafter_path, ModelOptions(vocabulary_only=True)) as model:
        yield ByteTokenizer(model.vocab)


@pytest.fixture(scope="module")
def trimmed(
    drafter_path: Path, tokenizer: ByteTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("trimmed") / "trimmed.gguf"
    counts = count_shipped(tokenizer)
    kept = keep_tokens(counts, KEPT, always_kept(tokenizer))
    write_trimmed(drafter_path, path, kept, counts.origin)
    return path


def test_what_was_read_is_guessed_as_by_the_whole_model(
    drafter_path: Path, trimmed: Path, tokenizer: ByteTokenizer
) -> None:
    tokens = tokenizer.encode(" ".join((*SAID, NEW, *SAID)).encode()).tokens
    with contextlib.ExitStack() as cleanup:
        whole = cleanup.enter_context(Model(drafter_path))
        target = cleanup.enter_context(Context(whole, OPTIONS))
        weights = load_weights(trimmed, target, WholeTables.of(drafter_path))
        cleanup.callback(weights.close)
        model, kept = weights.draft_model, set(weights.kept.tolist())
        assert model.spare is not None
        num_right = num_spared = 0
        for place, token in enumerate(tokens):
            target.decode([token], place)
            model.read([token])
            known = np.array(sorted({*kept, *tokens[: place + 1]}))
            found, _ = model.guess()
            num_right += found == known[int(target.logits(0)[known].argmax())]
            num_spared += found not in kept
    assert num_spared > 5
    assert num_right > 0.97 * len(tokens)  # but for near ties


def test_rows_chosen_by_german_answers_suit_german(
    drafter_path: Path, trimmed: Path, tokenizer: ByteTokenizer, tmp_path: Path
) -> None:
    body, own = GgufFile(trimmed), tmp_path / "own.gguf"
    before = keep_tokens(count_shipped(tokenizer), KEPT, always_kept(tokenizer))
    rows = RowChooser(tokenizer, shipped_words()).choose(SAID, before, lambda: None)
    assert len(rows.kept) == KEPT
    new = tokenizer.encode(NEW.encode()).tokens
    missing = [np.isin(new, kept, invert=True).sum() for kept in (before, rows.kept)]
    assert missing[1] < missing[0]
    write_other_rows(drafter_path, body, own, rows.kept, rows.origin, is_own=rows.is_own)
    with Model(own) as model, Context(model, OPTIONS) as context:
        assert model.vocab.num_tokens == KEPT
        context.decode([5], 0)
        assert np.isfinite(context.logits(0)).all()
