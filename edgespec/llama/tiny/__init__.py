"""Tiny random models that llama.cpp loads like real ones, for the self-check and the tests."""

from edgespec.llama.tiny.spec import (
    SELF_CHECK_SPECS,
    Architecture,
    Quantization,
    TinySpec,
    VocabularyKind,
)
from edgespec.llama.tiny.vocabulary import Vocabulary, build_vocabulary
from edgespec.llama.tiny.writer import write_tiny_model

__all__ = [
    "SELF_CHECK_SPECS",
    "Architecture",
    "Quantization",
    "TinySpec",
    "Vocabulary",
    "VocabularyKind",
    "build_vocabulary",
    "write_tiny_model",
]
