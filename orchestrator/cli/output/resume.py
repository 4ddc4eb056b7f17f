"""``peft-sweep resume``: continue a sweep with a live display, and its output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from orchestrator.cli.output.console import console, program
from orchestrator.cli.output.next_commands import recorded_config_option, recorded_reference
from orchestrator.cli.output.run import watch
from orchestrator.common.output_capture import no_library_noise
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.manifest import changed_versions
from orchestrator.sweep.resume import resumed_plan
from orchestrator.sweep.runner import resume_sweep
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Outcome


def watch_resumed(saved: SavedSweep, config: Path | None, cluster: Cluster) -> tuple[Outcome, SweepPlan]:
    """Continue a sweep whose folder is locked, with a live display. Ctrl-C stops it after the current step.

    Args:
        saved: its recorded state.
        config: its configuration file, needed if that contains passwords.
        cluster: a cluster whose context is entered; it need not be connected yet.

    Raises:
        InputError: if data, checkpoint, plugins or search spaces have changed.
        SweepError: if the sweep fails.
    """
    with no_library_noise():
        plan = resumed_plan(saved, config)
    for line in (*_warnings(saved), summary(saved, plan)):
        print(line, file=sys.stderr)
    outcome = watch(
        saved.sweep,
        plan,
        saved.folder,
        lambda show, stop: resume_sweep(plan, saved, cluster=cluster, watch=show, stop=stop),
    )
    return outcome, plan


def summary(saved: SavedSweep, plan: SweepPlan) -> str:
    """Return a line on how much of a resumed sweep is done."""
    trials = plan.config.budget.trials
    if saved.is_extended_now and saved.extension:
        return (
            f"extended: {saved.trials_done} trials are done, {saved.extension['trials']} more follow; this is look"
            f" {saved.look} at the test split"
        )
    done = f"{saved.trials_done} of {trials} trials are done" if trials else f"{saved.trials_done} trials are done"
    if saved.search_ended:
        scored = f", {len(saved.answers)} jobs of the final are done" if saved.answers else ""
        return f"resumed: the search has ended with {saved.trials_done} trials{scored}"
    verb = "continues from its checkpoint" if saved.trials_left == 1 else "continue from their checkpoints"
    open_trials = f", {saved.trials_left} {verb}" if saved.trials_left else ""
    return f"resumed: {done}{open_trials}"


def _warnings(saved: SavedSweep) -> list[str]:
    changed = changed_versions(saved.description["versions"])
    texts = [f"{name} {before or 'missing'} -> {now or 'missing'}" for name, (before, now) in changed.items()]
    return [f"package versions have changed since the sweep started: {', '.join(texts)}"] if texts else []


def print_finished(saved: SavedSweep) -> None:
    """Print that a sweep is finished, and the commands that use its result."""
    reference = recorded_reference(saved.folder, saved.description["config"])
    console.print(f"{saved.sweep} is finished; there is nothing to resume.")
    console.print(f"  report   {program()} report {reference}")
    console.print(f"  ask      {program()} select {reference} --max-size 1MB")
    console.print(f"  extend   {program()} extend {reference} --trials +20{recorded_config_option(saved)}")


def finished_json(saved: SavedSweep) -> dict[str, Any]:
    """Return a finished sweep as JSON values."""
    return {"sweep": saved.sweep, "reason": "finished", "folder": str(saved.folder), "trials": saved.trials_done}
