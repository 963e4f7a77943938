"""What `edgespec doctor` finds out, before anybody words it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgespec.cache.database import DAMAGE, Database, open_database
from edgespec.cache.facts import Facts
from edgespec.cache.schema import NAMES
from edgespec.cache.upkeep.backup import backups
from edgespec.cache.upkeep.check import problems
from edgespec.cache.upkeep.quarantine import unread
from edgespec.errors import EdgeSpecError, NativeLibraryError
from edgespec.machine.identity import Machine, build_record, read_bandwidth, this_machine
from edgespec.models.resolve import LocalFile, resolve
from edgespec.models.store import ModelStore
from edgespec.models.trials import Trials
from edgespec.paths import Paths
from edgespec.runtime.host import try_again
from edgespec.signals import ending_at_once


@dataclass(slots=True)
class Examination:
    """Findings by subject, JSON values throughout, and the problems with what to do about each."""

    machine: dict[str, Any] = field(default_factory=dict)
    library: dict[str, Any] = field(default_factory=dict)
    database: dict[str, Any] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def examine(reference: str | None, paths: Paths, *, anew: bool, verbose: bool) -> Examination:
    """Examine machine, library, database, and one model or all on disk."""
    found, machine = Examination(), this_machine()
    bandwidth = read_bandwidth(machine.num_threads)
    found.machine = {
        "cpu": machine.cpu,
        "system": machine.system,
        "threads": machine.num_threads,
        "memory_bytes": machine.memory_bytes,
        "read_bandwidth_bytes_per_second": bandwidth,
    }
    with open_database(paths.database) as database:
        store = Facts(database)
        if anew:
            store.forget("soundness")
            store.forget("model")
        _examine_database(found, database)
        if _examine_library(found, store, machine, verbose):
            for name, path in _models(reference, paths, found):
                about = _examine_model(found, name, path, paths, store, machine, bandwidth)
                found.models.append(about)
    return found


def _examine_database(found: Examination, database: Database) -> None:
    path = database.path
    try:
        integrity = " ".join(next(iter(problems(database.connection)), "ok").split())
    except DAMAGE as error:  # locked, or the disk fails
        integrity = str(error)
    found.database = {
        "path": str(path or "in memory"),
        "bytes": path.stat().st_size if path else 0,
        "schema": len(NAMES),
        "integrity": integrity,
        "backups": len(backups(path)) if path else 0,
    }
    if database.notice:
        found.problems.append(database.notice)
    if integrity != "ok":
        found.problems.append(
            f"the database is damaged ({integrity}): run `edgespec db check --repair`"
        )
    if path is not None and not database.notice:
        found.problems += [
            f"{damaged.name} holds what the database does not: run `edgespec db check --repair`"
            for damaged in unread(path)
        ]


def _examine_library(found: Examination, store: Facts, machine: Machine, verbose: bool) -> bool:
    """True if models can be loaded."""
    record = build_record()
    found.library = {
        "version": "not loaded",
        "build": "",
        "compiler": record.get("compiler", "an unknown compiler (not by `make setup`)"),
        "features": [],
        "findings": [],
        "record": record,
    }
    try:
        from edgespec.llama import library  # loads the native library, which may fail
        from edgespec.machine.facts import known_soundness

        library.set_verbose(verbose)
        found.library["version"] = library.binding_version()
        found.library["build"] = library.build_id()
        found.library["features"] = list(library.build_features())
        soundness = known_soundness(store, machine)
    except NativeLibraryError as error:
        found.problems.append(str(error))
        return False
    found.library["findings"] = list(soundness.findings)
    found.library["extra_buffers"] = soundness.use_extra_buffers
    found.problems += soundness.findings
    return True


def _models(reference: str | None, paths: Paths, found: Examination) -> list[tuple[str, Path]]:
    store = ModelStore(paths)
    if reference is not None:
        target = resolve(reference)
        if isinstance(target, LocalFile):
            return [(target.path.stem, target.path.expanduser().absolute())]
        stored = store.find(reference)
        if stored is None:
            found.problems.append(f"{reference} is not on disk: run `edgespec pull {reference}`")
            return []
        return [(stored.name, stored.path)]
    on_disk = [(stored.name, stored.path) for stored in store.list()]
    if not on_disk:
        found.problems.append("there is no model on disk: run `edgespec pull`")
    return on_disk


def _examine_model(
    found: Examination,
    name: str,
    path: Path,
    paths: Paths,
    store: Facts,
    machine: Machine,
    bandwidth: float,
) -> dict[str, Any]:
    """Facts of one model, measured now unless remembered; one that killed the engine is tried."""
    from edgespec.machine.facts import MAX_SPREAD, known_model_facts
    from edgespec.models.gguf_check import check_gguf
    from edgespec.runtime.target import open_model, pass_bytes

    about: dict[str, Any] = {"name": name, "path": str(path), "bytes": 0}
    try:
        check_gguf(path)
        about["bytes"] = path.stat().st_size
        if Trials(paths.trials).is_marked(path):
            try_again(path, paths)
        with open_model(path, store, machine, lambda _line: None) as model:
            with ending_at_once():
                facts = known_model_facts(model, store, machine, lambda _line: None)
            num_bytes = pass_bytes(model)
    except EdgeSpecError as error:
        found.problems.append(str(error))
        return {**about, "error": str(error)}
    plain_ms = facts.table.long_ms[1]
    if facts.spread > MAX_SPREAD:
        found.problems.append(f"{name}: the machine was too busy to be timed; try again when idle")
    reference, _rows, _margin, reference_ms = facts.tried[0]
    if facts.exactness != "identical":
        found.problems.append(
            f"{name}: no setting gives the same bytes with speculation on this build; answers are"
            f" equal up to near-ties ({facts.margin:.2g}); --no-speculation is exact"
        )
    return {
        **about,
        "invariance": {
            "exactness": facts.exactness,
            "rows": facts.max_rows,
            "kv_cache": facts.setting.name,
            "flash_attention": True,
            "margin": facts.margin,
            "cost": plain_ms / reference_ms - 1 if reference == "f16" else None,
            "tried": [
                {"kv_cache": setting, "rows": rows, "margin": margin, "one_row_ms": one_row_ms}
                for setting, rows, margin, one_row_ms in facts.tried
            ],
        },
        "plain_token_ms": plain_ms,
        "roofline_share": num_bytes / (plain_ms / 1e3) / bandwidth,
        "pass_ms": {
            str(facts.table.short_context): _by_rows(facts.table.short_ms),
            str(facts.table.long_context): _by_rows(facts.table.long_ms),
        },
        "measured_in_s": facts.measured_in_s,
        "spread": facts.spread,
    }


def _by_rows(costs: Any) -> dict[str, float]:  # noqa: ANN401
    return {str(rows): round(ms, 2) for rows, ms in sorted(costs.items())}
