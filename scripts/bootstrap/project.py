"""What pyproject.toml pins: the one place where versions and requirements are written."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import BootstrapError

_TABLES = ("build-system", "project", "dependency-groups")


@dataclass(frozen=True, slots=True)
class Project:
    """The facts of pyproject.toml that an environment is made from."""

    root: Path
    llama_version: str
    dev_requirements: tuple[str, ...]
    digest: str


def read_project(root: Path) -> Project:
    """Read `root`/pyproject.toml; raises BootstrapError if it is missing or has no pin."""
    path = root / "pyproject.toml"
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BootstrapError(
            f"cannot read {path}: {error}", "restore it from the repository"
        ) from error
    dev = tables.get("dependency-groups", {}).get("dev", [])
    return Project(root, _llama_pin(path, tables), tuple(dev), _digest(tables))


def _llama_pin(path: Path, tables: dict[str, object]) -> str:
    """The version in the requirement `llama-cpp-python==VERSION`."""
    project = tables.get("project")
    requirements = project.get("dependencies", []) if isinstance(project, dict) else []
    for requirement in requirements:
        match = re.fullmatch(r"llama[-_.]cpp[-_.]python\s*==\s*([\w.]+)", requirement)
        if match:
            return match[1]
    raise BootstrapError(
        f"{path} does not pin llama-cpp-python", 'add "llama-cpp-python==VERSION" to dependencies'
    )


def _digest(tables: dict[str, object]) -> str:
    """A hash of what an installation depends on; the settings of the linters are not part of it."""
    tool = tables.get("tool")
    parts = {name: tables.get(name) for name in _TABLES}
    parts["setuptools"] = tool.get("setuptools") if isinstance(tool, dict) else None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
