"""Open a sweep that was stopped or whose driver died, and make its plan again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.section import Section
from orchestrator.common.storage import Storage
from orchestrator.common.uris import has_masked_secrets
from orchestrator.config import SweepConfig, config_of, load_config
from orchestrator.journal.folders import JOURNAL, find_sweep, is_remote, lock_folder, split_reference
from orchestrator.journal.remote import INPUTS, fetch_for_resuming
from orchestrator.journal.validity import require_valid
from orchestrator.sweep.inputs import with_copied_inputs
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.tracking.connection import SQLITE

if TYPE_CHECKING:
    from orchestrator.planning.plan import SweepPlan  # imports torch, which a damaged journal need not wait for


@contextmanager
def open_sweep(reference: str, storage: str, *, take_over: bool = False) -> Iterator[SavedSweep]:
    """Lock a sweep's folder, and read its journal; that of an object store is downloaded if it is newer.

    Args:
        reference: the sweep's name, a unique beginning of it, or its folder, which may be a URI.
        storage: ``storage`` in its configuration.
        take_over: whether to take the sweep from a driver on another machine that may be alive.

    Raises:
        InputError: if there is no such sweep, it is running, it was stopped before its first event, its folder was
            renamed, or a line of its journal is none that was ever written.
    """
    folder = find_sweep(reference, storage)
    with lock_folder(folder):
        require_valid(folder / JOURNAL)
        uri, _ = split_reference(reference, storage)
        uri = uri if is_remote(uri) else _recorded_storage(SavedSweep.of(folder))
        if uri:
            fetch_for_resuming(folder, Storage.at(uri).sub(folder.name), take_over=take_over)
            require_valid(folder / JOURNAL)
        saved = SavedSweep.of(folder, uri)
        if not saved.description:
            message = "was stopped before its first trial, so there is nothing to resume; run it again"
            raise InputError(saved.sweep, [Problem("", message)])
        # By its name its runs in MLflow and its files in the storage are found: under another, all would be double.
        if (name := saved.description["sweep"]) != saved.sweep:
            message = f"this folder was called {name} when the sweep began; rename it back, wherever it is now"
            raise InputError(str(folder), [Problem("", message)])
        yield saved


def resumed_plan(saved: SavedSweep, file: Path | None = None) -> SweepPlan:
    """Make a sweep's plan again, and check that it is the plan that the sweep started with.

    Args:
        saved: the sweep's recorded state.
        file: its configuration file, needed if that contains passwords, which the journal does not record.

    Raises:
        InputError: if data, checkpoint, chat template, plugins or search spaces have changed.
    """
    from orchestrator.planning.lane_device import LaneDevice
    from orchestrator.planning.plan import make_plan
    from orchestrator.sweep.manifest import changed_inputs, identity
    from orchestrator.warm_start import Prior

    config = _config_of_file(saved, file) if file else recorded_config(saved)
    # A cluster may have other GPUs now, and other methods would fit them; the sweep goes on with those it began with.
    device = LaneDevice.of_fields(saved.description["device"]) if "device" in saved.description else LaneDevice()
    plan = make_plan(config, Prior.of_events(saved.events) or Prior(), device)
    if problems := changed_inputs(saved.description["identity"], identity(plan)):
        raise InputError(
            saved.sweep,
            problems,
            "new results could not be compared with the recorded ones; restore these inputs, or run a new sweep",
        )
    return with_extension(_with_recorded_constants(plan, saved), saved)


def with_extension(plan: SweepPlan, saved: SavedSweep) -> SweepPlan:
    """Return the plan with the budget of the sweep's last extension: a number of trials, and no other limit."""
    if saved.extension is None:
        return plan
    limits = {"trials": saved.extension["limit"], "wall_time": None, "lane_hours": None, "money": None}
    budget = plan.config.budget.model_copy(update=limits)
    return replace(plan, config=plan.config.model_copy(update={"budget": budget}))


def _with_recorded_constants(plan: SweepPlan, saved: SavedSweep) -> SweepPlan:
    """Return a plan whose tasks have the constants that the sweep started with.

    The same rows give the same numbers, but an earlier release may have recorded fewer, and made other tokens of pairs.
    """
    tasks = {}
    for name, task in plan.tasks.items():
        constants = saved.description["tasks"][name].get("constants", task.data.constants)
        data, type_ = replace(task.data, constants=constants), replace(task.type, constants=constants)
        tasks[name] = replace(task, data=data, type=type_)
    return replace(plan, tasks=tasks)


def _recorded_storage(saved: SavedSweep) -> str:
    """Return the object store that a sweep's configuration names; empty for a folder, or a URI with a password."""
    uri = str(saved.description.get("config", {}).get("storage", ""))
    return uri if is_remote(uri) and not has_masked_secrets(uri) else ""


def recorded_config(saved: SavedSweep) -> SweepConfig:
    """Return the configuration that a sweep's journal records, with the copies of its inputs where it has them.

    Raises:
        InputError: if it contains passwords, or an input is missing.
    """
    values = with_copied_inputs(saved.description["config"], saved.folder)
    values = {**values, "storage": saved.storage} if saved.storage else values
    if has_masked_secrets(values):
        message = "its configuration contains passwords, which the journal does not record; add --config SWEEP.yaml"
        raise InputError(saved.sweep, [Problem("", message)])
    return _with_absolute_paths(config_of(values, saved.folder, saved.sweep), saved)


def _config_of_file(saved: SavedSweep, file: Path) -> SweepConfig:
    """Return the configuration of the user's file, if it equals the recorded one."""
    config = load_config(file)
    recorded, current = _with_new_keys(saved.description["config"], config), config.resolved()
    if "max_length" not in config.training.model_fields_set:
        # the plan lowers the default for a backbone with fewer positions, and the journal records the lowered value
        current["training"]["max_length"] = recorded["training"]["max_length"]
    # Files of another machine are elsewhere; whether they hold the same is checked when the plan is made.
    elsewhere = {"tasks", "plugins", "backbone"} if (saved.folder / INPUTS).is_dir() else set()
    if changed := [key for key in current if key not in elsewhere and current[key] != recorded.get(key)]:
        problems = [Problem(key, "differs from the configuration that the sweep started with") for key in changed]
        hint = "undo these changes to resume it, or start another sweep with peft-sweep run"
        raise InputError(str(file), problems, hint)
    return _with_absolute_paths(config, saved)


def _with_new_keys(recorded: dict[str, Any], config: SweepConfig) -> dict[str, Any]:
    """Return a recorded configuration with the defaults of the keys that an earlier release did not have."""
    values = dict(recorded)
    values["tasks"] = {
        name: {**_defaults(type(config.tasks[name])), **task} if name in config.tasks else task
        for name, task in recorded["tasks"].items()
    }
    for name, field in SweepConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            values[name] = {**_defaults(field.annotation), **values.get(name, {})}
    return values


def _defaults(section: type[Section]) -> dict[str, Any]:
    return section.model_construct().model_dump(mode="json")


def _with_absolute_paths(config: SweepConfig, saved: SavedSweep) -> SweepConfig:
    """Return the configuration with absolute paths, which do not depend on the first driver's working directory."""
    changes: dict[str, Any] = {}
    storage = Storage.at(config.storage)
    if storage.is_local and Path(storage.root) != saved.folder.parent:
        changes["storage"] = str(saved.folder.parent)
    directory = Path(saved.description["directory"])
    if directory != Path.cwd() and directory.is_dir():
        uris = {
            key: _absolute_uri(directory, uri)
            for key, uri in config.mlflow.model_dump().items()
            if key.endswith("_uri")
        }
        changes["mlflow"] = config.mlflow.model_copy(update=uris)
    for uri in (config.mlflow.tracking_uri, config.mlflow.registry_uri or ""):
        if uri.startswith(f"{SQLITE}/") and not (folder := Path(uri.removeprefix(SQLITE)).parent).is_dir():
            message = f"there is no {folder} on this machine; bring the file there, or make the folder for a new one"
            raise InputError("mlflow", [Problem(uri, message)])
    return config.model_copy(update=changes)


def _absolute_uri(directory: Path, uri: str | None) -> str | None:
    """Return the URI of a sqlite file with its absolute path; other URIs unchanged."""
    if uri is None or not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{directory / uri.removeprefix(SQLITE)}"
