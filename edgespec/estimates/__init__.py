"""How probable it is that a guess is kept, learned from evidence."""
