"""What look-up drafters are made of: a suffix automaton, copies that go on after a change."""
