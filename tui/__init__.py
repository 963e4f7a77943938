"""The Textual chat app (`edgespec.tui`): shows a completer, never builds one."""
