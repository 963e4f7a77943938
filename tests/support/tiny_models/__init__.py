"""Tiny random models that llama.cpp loads like real ones."""

from tiny_models.spec import (
    Architecture,
    Quantization,
    TinySpec,
    VocabularyKind,
)
from tiny_models.vocabulary import Vocabulary, build_vocabulary
from tiny_models.writer import write_tiny_model

__all__ = [
    "Architecture",
    "Quantization",
    "TinySpec",
    "Vocabulary",
    "VocabularyKind",
    "build_vocabulary",
    "write_tiny_model",
]
