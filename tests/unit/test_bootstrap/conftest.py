"""Makes the bootstrap importable: it lies in scripts/, outside every installed package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
