"""Known models, downloads, checksums (`edgespec.models`): files only, no inference."""
