"""The command: find out what is missing, and make it."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bootstrap.build import WheelBuilder, build_files_digest
from bootstrap.cache import WheelCache, WheelKey, build_variables, cache_folder
from bootstrap.command import Console, Runner, stderr_console
from bootstrap.environment import Environment
from bootstrap.errors import BootstrapError, DiskFullError, from_os_error
from bootstrap.machine import Machine, describe_machine, find_compilers, platform_tag
from bootstrap.project import Project, read_project
from bootstrap.recipes import Recipe, recipes

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_ROOT = Path(__file__).resolve().parents[2]


class Bootstrap:
    """Brings one clone's environment to what its pyproject.toml and this machine ask for."""

    def __init__(
        self,
        project: Project,
        machine: Machine,
        environment: Environment,
        cache: WheelCache,
        builder: WheelBuilder,
        console: Console,
        variables: tuple[tuple[str, str], ...],
    ) -> None:
        """`machine` comes with its compilers; `variables` are those of the user's that count."""
        self._project = project
        self._machine = machine
        self._environment = environment
        self._cache = cache
        self._builder = builder
        self._console = console
        self._variables = variables

    def run(self, inputs: str, dev: bool) -> None:
        """Make the environment; raises BootstrapError, and OSError for files it cannot write."""
        started = time.monotonic()
        dev = dev or self._environment.has_dev
        self._environment.begin()
        try:
            recipe = self.install_llama()
            self._console.say("installing EdgeSpec and what it needs")
            self._environment.install_project(self._project, dev)
        except BootstrapError:
            self._environment.leave()
            raise
        self._environment.finish(inputs, dev)
        seconds = time.monotonic() - started
        self._console.say(f"ready in {seconds:.0f} s (llama.cpp built with {recipe.label})")

    def install_llama(self) -> Recipe:
        """Install the first build that can be had and loads; returns its recipe.

        Raises BootstrapError if there is none, and at once if the disk is full.
        """
        choices = recipes(self._machine)
        for recipe, following in zip(choices, (*choices[1:], None), strict=True):
            try:
                self._try(recipe)
            except DiskFullError:
                raise
            except BootstrapError as error:
                if following is None and self._machine.compilers:
                    raise
                after = f"; trying {following.label} instead" if following else ""
                self._console.say(f"{error}{after}")
            else:
                return recipe
        raise no_compiler(self._machine.system)

    def _try(self, recipe: Recipe) -> None:
        """Install a build by `recipe` that loads; a cached one that does not is built again."""
        key = self._key(recipe)
        wheel = self._cache.find(key)
        if wheel is not None:
            self._cache.mark_used(key)
            if not self._install(key, wheel):
                return
        self._cache.drop(key)
        self._console.say(f"building llama.cpp with {recipe.label}; this takes a minute or more")
        with self._cache.workspace() as workspace:
            built = self._builder.build(recipe, self._project.llama_version, workspace)
            wheel = self._cache.add(key, built)
        problem = self._install(key, wheel)
        if problem:
            self._cache.drop(key)
            raise BootstrapError(
                f"llama.cpp built with {recipe.label} is of no use: {problem}",
                "the output is in build/bootstrap.log",
            )
        self._cache.prune()

    def _install(self, key: WheelKey, wheel: Path) -> str:
        """Install and try a wheel; an empty text, or what is wrong with it."""
        self._environment.install_wheel(wheel, self._cache.record(key))
        return self._environment.try_llama(key.recipe)

    def _key(self, recipe: Recipe) -> WheelKey:
        return WheelKey(
            llama_version=self._project.llama_version,
            python_tag=f"cp{sys.version_info.major}{sys.version_info.minor}",
            platform=platform_tag(),
            cpu_id=self._machine.cpu_id,
            recipe=recipe,
            build_files=build_files_digest(),
            variables=self._variables,
        )


def no_compiler(system: str) -> BootstrapError:
    """The error for a machine without a C/C++ compiler that will do."""
    if system == "Darwin":
        return BootstrapError("no C/C++ compiler found", "run `xcode-select --install` first")
    return BootstrapError(
        "no C/C++ compiler found (clang 15 or GCC 9 and newer will do)",
        "install one (Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++)",
    )


def digest_of_inputs(project: Project, machine: Machine, variables: object) -> str:
    """A hash of all that an environment is made from; as long as it is the same, nothing is to do.

    Compilers are left out: a new one does not make an installed library worse.
    """
    sources = b"".join(
        path.read_bytes() for path in sorted(Path(__file__).parent.iterdir()) if path.is_file()
    )
    facts = (project.digest, str(project.root), machine.cpu_id, sys.version, repr(variables))
    return hashlib.sha256("\n".join(facts).encode() + sources).hexdigest()


@contextlib.contextmanager
def _alone(folder: Path, console: Console) -> Iterator[None]:
    """Hold the clone's lock; waits, and says so, while another process has it."""
    folder.mkdir(exist_ok=True)
    with (folder / "bootstrap.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            console.say("another setup of this clone is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def setup(root: Path, env: Mapping[str, str], dev: bool, console: Console) -> None:
    """Bring the clone at `root` up to date; a few milliseconds if nothing changed."""
    project = read_project(root)
    machine = describe_machine()
    variables = build_variables(env)
    inputs = digest_of_inputs(project, machine, variables)
    log = root / "build" / "bootstrap.log"
    runner = Runner(log, console)
    pip_env = {**env, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    environment = Environment(root / ".venv", runner, pip_env)
    if environment.satisfies(inputs, dev):
        return
    with _alone(log.parent, console):
        if environment.satisfies(inputs, dev):
            return
        log.unlink(missing_ok=True)
        compilers = find_compilers(env.get("PATH", os.defpath))
        machine = Machine(
            machine.system, machine.arch, machine.cpu_model, machine.cpu_flags, compilers
        )
        cache = WheelCache(cache_folder(env, machine.system, Path.home()))
        builder = WheelBuilder(environment.pip, runner, pip_env)
        Bootstrap(project, machine, environment, cache, builder, console, variables).run(
            inputs, dev
        )


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="bootstrap", description=__doc__)
    parser.add_argument("--dev", action="store_true", help="install the development tools too")
    dev: bool = parser.parse_args(arguments).dev
    console = stderr_console()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        setup(_ROOT, os.environ, dev, console)
    except BootstrapError as error:
        console.say(f"error: {error}")
        return EXIT_FAILED
    except OSError as error:
        console.say(f"error: {from_os_error(error)}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.say("interrupted; run it again to go on")
        return EXIT_INTERRUPTED
    return 0
