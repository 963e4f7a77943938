"""Recorded token sequences: written behind an answer, looked up while the next is drafted."""
