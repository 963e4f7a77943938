"""Which guesses are verified: the cost of a pass, what drafters may spend, one objective."""
