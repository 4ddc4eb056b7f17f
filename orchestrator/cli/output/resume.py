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
from orchestrator.sweep.saved_state import Past
from orchestrator.sweep.status import Outcome


def watch_resumed(past: Past, config: Path | None, cluster: Cluster) -> tuple[Outcome, SweepPlan]:
    """Go on with a sweep whose folder is held; live display, and Ctrl-C ends it in good order.

    Args:
        past: its earlier lives.
        config: its configuration, where that holds passwords.
        cluster: that was entered; it need not be connected yet.

    Raises:
        InputError: if data, checkpoint, plugins or search spaces are not what they were.
        SweepError: if it fails.
    """
    with no_library_noise():
        plan = resumed_plan(past, config)
    for line in (*_warnings(past), summary(past, plan)):
        print(line, file=sys.stderr)
    outcome = watch(
        past.sweep,
        plan,
        past.folder,
        lambda see, stop: resume_sweep(plan, past, cluster=cluster, watch=see, stop=stop),
    )
    return outcome, plan


def summary(past: Past, plan: SweepPlan) -> str:
    """What was there when it went on."""
    trials = plan.config.budget.trials
    done = f"{past.trials_done} of {trials} trials were done" if trials else f"{past.trials_done} trials were done"
    if past.search_ended:
        scored = f", {len(past.answers)} scored in the final" if past.answers else ""
        return f"resumed: the search had ended with {past.trials_done} trials{scored}"
    goes = "goes" if past.trials_left == 1 else "go"
    left = f", {past.trials_left} {goes} on from their checkpoints" if past.trials_left else ""
    return f"resumed: {done}{left}"


def _warnings(past: Past) -> list[str]:
    changed = changed_versions(past.description["versions"])
    told = ", ".join(
        f"{name} {then or 'missing'} then, {now or 'missing'} now" for name, (then, now) in changed.items()
    )
    return [f"other versions than the sweep began with: {told}"] if told else []


def print_finished(past: Past, storage: str) -> None:
    """That nothing is left to do, and what to type instead."""
    place = past.sweep if storage == "sweeps" else past.folder
    console.print(f"{past.sweep} is finished; nothing is left to resume.")
    console.print(f"  report   {program()} report {place}")
    console.print(f"  ask      {program()} select {place} --max-size 1MB")


def finished_json(past: Past) -> dict[str, Any]:
    """The same, for machines."""
    return {"sweep": past.sweep, "reason": "finished", "folder": str(past.folder), "trials": past.trials_done}
