"""The command line: arguments, and the composition root that wires everything."""
