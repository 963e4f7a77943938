"""EdgeSpec: local language models, faster, byte for byte the same."""

__version__ = "0.1.0"
