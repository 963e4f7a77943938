"""Drafting, planning, verifying: token ids in, token ids out, no I/O."""
