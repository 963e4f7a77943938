"""`edgespec serve`: OpenAI-compatible HTTP over one completer."""
