"""`edgespec bench`: the same prompts with and without speculation, side by side."""
