"""From what is asked for to a running completer."""
