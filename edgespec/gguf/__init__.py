"""Model files: reading them, slicing rows out of them, re-typing them."""
