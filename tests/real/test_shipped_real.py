"""What ships with EdgeSpec teaches the default drafter: it serves from the first day."""

from __future__ import annotations

from pathlib import Path

from edgespec.learning.lora import read_about
from edgespec.learning.trained import serving
from edgespec.learning.trainings import TrainingStore
from edgespec.llama.model import Model
from edgespec.machine.facts import file_fingerprint
from edgespec.models.registry import DEFAULT_TARGET
from edgespec.runtime.form import Form, Trainings
from edgespec.vocab.tokenizer import ByteTokenizer

MOST_BYTES = 10_000_000


def test_what_ships_serves_the_default_pair(
    vocabularies: dict[str, Model], drafter_path: Path, tmp_path: Path
) -> None:
    vocabulary = ByteTokenizer(vocabularies[DEFAULT_TARGET].vocab).fingerprint
    store = TrainingStore(tmp_path / "adaptations")
    path = serving(store, vocabulary, file_fingerprint(drafter_path))
    assert path is not None and path in store.shipped_loras()
    assert path.stat().st_size <= MOST_BYTES
    about = read_about(path)
    assert about.share_trained >= about.share_alone + 0.02
    assert about.num_judged > 2000

    lines: list[str] = []
    trainings = Trainings(vocabulary, store.folder, lines.append, own=False)
    form = trainings.of(Form(drafter_path))
    assert form.merged is not None and lines == []
    assert form.merged.stat().st_size == drafter_path.stat().st_size
