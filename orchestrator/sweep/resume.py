"""How a sweep that was stopped, or whose driver died, is taken up again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.storage import Storage
from orchestrator.config import SweepConfig, config_of, load_config
from orchestrator.planning.plan import SweepPlan, make_plan
from orchestrator.sweep.manifest import departures, identity
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.tracking.connection import SQLITE
from orchestrator.tracking.sweeps import find_sweep, lock_folder
from orchestrator.warm_start import Prior


@contextmanager
def open_sweep(reference: str, storage: str) -> Iterator[SavedSweep]:
    """Hold a sweep's folder, and read what happened there.

    Args:
        reference: the sweep's name, the beginning of one, or its folder.
        storage: where sweeps are.

    Raises:
        InputError: if there is no such sweep, it is running, or it was stopped before anything began.
    """
    folder = find_sweep(reference, storage)
    with lock_folder(folder):
        saved = SavedSweep.of(folder)
        if not saved.description:
            message = "was stopped before its first trial, so that there is nothing to resume; run it again"
            raise InputError(saved.sweep, [Problem("", message)])
        yield saved


def resumed_plan(saved: SavedSweep, file: Path | None = None) -> SweepPlan:
    """The plan that a sweep began with, made again and compared with what the journal says of it.

    Args:
        saved: of the sweep.
        file: its configuration, where that holds passwords: the journal keeps none.

    Raises:
        InputError: if data, checkpoint, plugins or search spaces are not what they were.
    """
    config = _given(saved, file) if file else _recorded(saved)
    plan = make_plan(config, Prior.of_events(saved.events) or Prior())
    if problems := departures(saved.description["identity"], identity(plan)):
        raise InputError(saved.sweep, problems, "what it found could not be compared with what it would find now")
    return plan


def _recorded(saved: SavedSweep) -> SweepConfig:
    values = saved.description["config"]
    if re.search(r"\*\*\*@|=\*\*\*", json.dumps(values)):  # as they are masked
        message = "its configuration has passwords, which the journal does not keep; add --config SWEEP.yaml"
        raise InputError(saved.sweep, [Problem("", message)])
    return _at_its_places(config_of(values, saved.folder, saved.sweep), saved)


def _given(saved: SavedSweep, file: Path) -> SweepConfig:
    """The user's own file, if it says what the journal says."""
    config = load_config(file)
    then, now = saved.description["config"], config.resolved()
    if "max_length" not in config.training.model_fields_set:
        now["training"]["max_length"] = then["training"]["max_length"]  # a backbone with fewer positions had lowered it
    if changed := [key for key in now if now[key] != then.get(key)]:
        problems = [Problem(key, "is not what the sweep began with") for key in changed]
        raise InputError(str(file), problems, "a sweep is resumed as it began; another one begins with peft-sweep run")
    return _at_its_places(config, saved)


def _at_its_places(config: SweepConfig, saved: SavedSweep) -> SweepConfig:
    """The configuration with places that were relative to the first driver's folder as they are from here."""
    changes: dict[str, Any] = {}
    storage = Storage.at(config.storage)
    if storage.is_local and Path(storage.root) != saved.folder.parent:
        changes["storage"] = str(saved.folder.parent)
    directory = Path(saved.description["directory"])
    if directory != Path.cwd():
        uris = {key: _from(directory, uri) for key, uri in config.mlflow.model_dump().items() if key.endswith("_uri")}
        changes["mlflow"] = config.mlflow.model_copy(update=uris)
    return config.model_copy(update=changes)


def _from(directory: Path, uri: str | None) -> str | None:
    """A sqlite file by its absolute path; other places as they are."""
    if uri is None or not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{directory / uri.removeprefix(SQLITE)}"
