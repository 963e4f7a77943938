"""Deeper training: low-rank changes of a drafter's layers, learned from recorded answers."""
