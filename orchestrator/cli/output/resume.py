"""``peft-sweep resume``: a sweep that goes on under a person's eyes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from orchestrator.cli.output.console import console, program
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
    """Go on with a sweep whose folder is held; live display, and Ctrl-C ends it in good order.

    Args:
        saved: its earlier lives.
        config: its configuration, where that holds passwords.
        cluster: that was entered; it need not be connected yet.

    Raises:
        InputError: if data, checkpoint, plugins or search spaces are not what they were.
        SweepError: if it fails.
    """
    with no_library_noise():
        plan = resumed_plan(saved, config)
    for line in (*_warnings(saved), summary(saved, plan)):
        print(line, file=sys.stderr)
    outcome = watch(
        saved.sweep,
        plan,
        saved.folder,
        lambda see, stop: resume_sweep(plan, saved, cluster=cluster, watch=see, stop=stop),
    )
    return outcome, plan


def summary(saved: SavedSweep, plan: SweepPlan) -> str:
    """What was there when it went on."""
    trials = plan.config.budget.trials
    done = f"{saved.trials_done} of {trials} trials were done" if trials else f"{saved.trials_done} trials were done"
    if saved.search_ended:
        scored = f", {len(saved.answers)} scored in the final" if saved.answers else ""
        return f"resumed: the search had ended with {saved.trials_done} trials{scored}"
    goes = "goes" if saved.trials_left == 1 else "go"
    left = f", {saved.trials_left} {goes} on from their checkpoints" if saved.trials_left else ""
    return f"resumed: {done}{left}"


def _warnings(saved: SavedSweep) -> list[str]:
    changed = changed_versions(saved.description["versions"])
    told = ", ".join(
        f"{name} {then or 'missing'} then, {now or 'missing'} now" for name, (then, now) in changed.items()
    )
    return [f"other versions than the sweep began with: {told}"] if told else []


def print_finished(saved: SavedSweep, storage: str) -> None:
    """That nothing is left to do, and what to type instead."""
    place = saved.sweep if storage == "sweeps" else saved.folder
    console.print(f"{saved.sweep} is finished; nothing is left to resume.")
    console.print(f"  report   {program()} report {place}")
    console.print(f"  ask      {program()} select {place} --max-size 1MB")


def finished_json(saved: SavedSweep) -> dict[str, Any]:
    """The same, for machines."""
    return {"sweep": saved.sweep, "reason": "finished", "folder": str(saved.folder), "trials": saved.trials_done}
