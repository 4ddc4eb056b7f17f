"""The commands that continue a sweep, as they are printed to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.cli.output.console import program
from orchestrator.common.uris import has_masked_secrets
from orchestrator.config import SweepConfig
from orchestrator.journal.folders import is_remote
from orchestrator.sweep.saved_state import SavedSweep

STORAGE = "sweeps"
"""Where commands look for a sweep that is given by its name."""


def resume_hint(folder: Path, config: SweepConfig) -> str:
    """Return the command that resumes a sweep; empty where there is nothing to resume."""
    return resume_command(folder, config) if SavedSweep.of(folder).can_resume else ""


def resume_command(folder: Path, config: SweepConfig) -> str:
    """Return the command that resumes a sweep, whether or not its journal has begun."""
    return f"continue with: {program()} resume {sweep_reference(folder, config)}{config_option(config)}"


def sweep_reference(folder: Path, config: SweepConfig) -> str:
    """Return what commands find a sweep by: its name, or its folder in another storage than the default."""
    return folder.name if config.storage == STORAGE else shlex.quote(str(folder))


def recorded_reference(folder: Path, config: Mapping[str, Any]) -> str:
    """Return what commands find a sweep and its adapters by from the working directory, wherever its folder is now.

    Args:
        folder: folder of its journal.
        config: its configuration as its journal has it, which says what storage it was written to; may be empty.
    """
    storage = str(config.get("storage", STORAGE))
    if is_remote(storage):
        return folder.name if "?" in storage or has_masked_secrets(storage) else f"{storage.rstrip('/')}/{folder.name}"
    if Path(STORAGE, folder.name).resolve() == folder.resolve():
        return folder.name
    return shlex.quote(str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder))


def config_option(config: SweepConfig) -> str:
    """Return the option with the file of a configuration whose passwords the journal lacks; empty without passwords."""
    return f" --config {shlex.quote(str(config.file))}" if config.file and has_masked_secrets(config.resolved()) else ""


def recorded_config_option(saved: SavedSweep) -> str:
    """Return the same for a sweep of which only the journal is known, with a placeholder for the file."""
    return " --config SWEEP.yaml" if has_masked_secrets(saved.description.get("config")) else ""
