"""The default drafter trimmed as at its first use: small, found again, and saying the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgespec.cache.database import open_in_memory
from edgespec.cache.facts import Facts
from edgespec.forms import search as trim_choice
from edgespec.forms.counts import ranked
from edgespec.forms.trimmer import Trimmer
from edgespec.forms.trimming import AS_SHIPPED, Parent, Workshop, read_parent
from edgespec.forms.weighing import OpenDrafter, read_text, samples, whole_head
from edgespec.gguf.embeddings import EmbeddingTable
from edgespec.gguf.trim import read_trim_info
from edgespec.llama.context import Context, ContextOptions
from edgespec.llama.model import Model, ModelOptions
from edgespec.machine.identity import this_machine

KEPT = 16_384
OPTIONS = ContextOptions(num_context=256, num_threads=this_machine().num_threads)


@pytest.fixture(scope="module")
def parent(drafter_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    shop = Workshop(tmp_path_factory.mktemp("shop"), ModelOptions(), OPTIONS.num_threads)
    return read_parent(drafter_path, shop)


@pytest.fixture(scope="module")
def trimmer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trimmer]:
    with open_in_memory() as database:
        folder = tmp_path_factory.mktemp("trimmed")
        yield Trimmer(folder, Facts(database), this_machine(), ModelOptions())


@pytest.fixture(scope="module")
def as_shipped(
    drafter_path: Path, trimmer: Trimmer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A third of the head, nothing re-typed."""
    out = tmp_path_factory.mktemp("out") / "as-shipped.gguf"
    return trimmer.trim(drafter_path, KEPT, AS_SHIPPED, out=out)[0]


def test_the_shipped_words_cover_what_was_held_out(parent: Parent) -> None:
    """Nearly every token of the samples, which were not counted, is among those that are kept."""
    kept = set(ranked(parent.counts, parent.always)[:KEPT].tolist())
    said = [token for text in parent.texts for token in text.answer]
    assert np.mean([token in kept for token in said]) > 0.9
    assert parent.counts.coverage(KEPT) > 0.95
    assert parent.counts.coverage(4096) < parent.counts.coverage(KEPT)


def test_logits_are_the_whole_drafters_at_the_kept_tokens(
    drafter_path: Path, as_shipped: Path, parent: Parent
) -> None:
    tokens = list(parent.texts[0].answer)[:40]
    table = EmbeddingTable(drafter_path)
    info = read_trim_info(as_shipped)
    assert info is not None
    with Model(drafter_path) as whole, Context(whole, OPTIONS) as context:
        context.decode(tokens, 0, num_outputs=len(tokens))
        expected = np.array([context.logits(row)[info.kept] for row in range(len(tokens))])
    with Model(as_shipped) as trimmed, Context(trimmed, OPTIONS) as context:
        context.decode(table.rows(tokens), 0, num_outputs=len(tokens))
        found = np.array([context.logits(row).copy() for row in range(len(tokens))])
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_it_drafts_what_the_whole_drafter_drafts(
    drafter_path: Path, as_shipped: Path, parent: Parent
) -> None:
    table = EmbeddingTable(drafter_path)
    shares = []
    for path in (drafter_path, as_shipped):
        with OpenDrafter(path, table, ModelOptions(), OPTIONS.num_threads) as drafter:
            read = [read_text(drafter, text, whole_head(drafter))[0] for text in parent.texts[:4]]
        shares.append(np.concatenate([text.hits for text in read]).mean())
    whole, trimmed = shares
    assert whole > 0.5
    assert trimmed > whole - 0.05
    assert as_shipped.stat().st_size < 0.85 * drafter_path.stat().st_size


def test_the_first_use_trims_and_the_second_finds(
    drafter_path: Path, trimmer: Trimmer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything measured; on a machine too busy to measure, the usual form."""
    path = trimmer.trimmed(drafter_path)
    assert path is not None
    info = read_trim_info(path)
    assert info is not None
    form = trimmer.decision(drafter_path)
    assert form is not None
    assert 8192 <= info.num_kept == form.num_kept <= 49_152
    if form.is_sure:
        agreements = [row.agreement for row in form.tried if row.agreement is not None]
        assert min(agreements) > 0.4
        monkeypatch.delattr(trim_choice, "token_costs")
        assert trimmer.trimmed(drafter_path) == path


def test_samples_are_read_through_the_drafters_own_template(parent: Parent) -> None:
    assert len(parent.texts) == len(samples())
    assert min(len(text.before) for text in parent.texts) > 30, "with a system message of its own"
    assert parent.num_tokens == 49_152
