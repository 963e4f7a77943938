"""Vocabularies: the byte bridge between a target's and a drafter's, n-gram cache, trimmed heads.

Every token of either vocabulary is a byte string, so a draft in drafter tokens is a byte string
with cut points, and what the target said is bytes to the drafter (OmniDraft, arXiv 2507.02659).
"""
