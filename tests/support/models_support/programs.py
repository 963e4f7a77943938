"""Starting the driver as a program of its own, with its own folders and sources."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from edgespec.models.registry import KnownModel

DRIVER = Path(__file__).with_name("driver.py")
NO_HUB = "http://127.0.0.1:9"
"""An endpoint where nobody listens (the discard port)."""


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without any setting of pip or of the Hub, files below `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "HF_", "EDGESPEC_"))}
    return kept | {
        "EDGESPEC_HOME": str(home),
        "HF_HOME": str(home / "hf-home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


def start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """The driver, running; in a session of its own as a terminal would give it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(DRIVER), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(
    arguments: list[str], environment: dict[str, str], prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The driver, run to its end; `prefix` is put before the command (a limit, say)."""
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", str(DRIVER), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_model(folder: Path, model: KnownModel) -> Path:
    """The model as JSON for the driver."""
    path = folder / "model.json"
    path.write_text(json.dumps(dataclasses.asdict(model)))
    return path
