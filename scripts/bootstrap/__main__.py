"""Entry point: `python3 scripts/bootstrap`; this file alone must run on any Python 3."""

# ruff: noqa: UP031, UP036, PTH100, PTH120
import os
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "edgespec: error: Python 3.11 or newer is needed, this is %s; install one and name it, "
        "as in: make PYTHON=python3.12 setup" % sys.version.split()[0]
    )

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from bootstrap.main import main

sys.exit(main(sys.argv[1:]))
