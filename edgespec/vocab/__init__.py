"""The byte bridge between a target's vocabulary and a drafter's, and nothing else.

Every token of either vocabulary is a byte string, so a draft in drafter tokens is a byte string
with cut points, and what the target said is bytes to the drafter (OmniDraft, arXiv 2507.02659).
"""
