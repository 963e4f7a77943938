"""Vocabularies: the bridge between them, and heads trimmed to the tokens that matter."""
