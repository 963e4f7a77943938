"""What this machine can do: a sound library, batch invariance, the cost of a pass, bandwidth."""
