"""`python -m edgespec`: the same as the `edgespec` command."""

from edgespec.cli.main import main

main()
