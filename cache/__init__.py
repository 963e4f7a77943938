"""The SQLite database (`edgespec.cache`): what EdgeSpec remembers between runs."""
