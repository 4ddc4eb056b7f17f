"""The commands that continue a sweep, as they are printed to be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestrator.cli.output.console import program
from orchestrator.common.uris import has_masked_secrets
from orchestrator.config import SweepConfig
from orchestrator.sweep.saved_state import SavedSweep


def resume_hint(folder: Path, config: SweepConfig) -> str:
    """Return the command that resumes a sweep; empty where there is nothing to resume."""
    return resume_command(folder, config) if SavedSweep.of(folder).can_resume else ""


def resume_command(folder: Path, config: SweepConfig) -> str:
    """Return the command that resumes a sweep, whether or not its journal has begun."""
    return f"continue with: {program()} resume {sweep_reference(folder, config)}{config_option(config)}"


def sweep_reference(folder: Path, config: SweepConfig) -> str:
    """Return what commands find a sweep by: its name, or its folder in another storage than the default."""
    return folder.name if config.storage == "sweeps" else shlex.quote(str(folder))


def config_option(config: SweepConfig) -> str:
    """Return the option with the file of a configuration whose passwords the journal lacks; empty without passwords."""
    return f" --config {shlex.quote(str(config.file))}" if config.file and has_masked_secrets(config.resolved()) else ""


def recorded_config_option(saved: SavedSweep) -> str:
    """Return the same for a sweep of which only the journal is known, with a placeholder for the file."""
    return " --config SWEEP.yaml" if has_masked_secrets(saved.description.get("config")) else ""
