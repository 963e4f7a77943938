"""One file per drafting strategy; the file's name is the strategy's name."""
