"""Register what the final has recommended, task by task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.common.storage import Storage
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.saved_state import SavedSweep

if TYPE_CHECKING:
    from orchestrator.final.results import TaskOutcome
    from orchestrator.journal.events import Journal
    from orchestrator.lanes.pool import LanePool
    from orchestrator.tracking.mlflow_exporter import MlflowExporter

log = logging.getLogger(__name__)


def register_outcomes(
    outcomes: Mapping[str, TaskOutcome],
    *,
    plan: SweepPlan,
    saved: SavedSweep,
    backbones: Mapping[str, Any],
    pool: LanePool,
    storage: Storage,
    exporter: MlflowExporter,
    journal: Journal,
) -> None:
    """Register each task's recommended method and those tied with it. Tasks fail independently.

    Args:
        outcomes: outcomes of the final by task; each learns what was registered, or why nothing was.
        plan: plan of the sweep.
        saved: state of earlier attempts, whose registrations count.
        backbones: published backbone of each task.
        pool: lanes, one of which has the device and the packages that the models were trained with.
        storage: storage of the sweeps.
        exporter: knows the MLflow runs to link with.
        journal: gets a ``registered`` event for each task.
    """
    from orchestrator.common.uris import masked_first_line
    from orchestrator.final.register import Registrar
    from orchestrator.tracking.registry import Registered

    for name, outcome in outcomes.items():
        event = saved.registered.get(name)
        if event and not saved.unregistered_ties(name):
            outcome.registered = Registered(event["name"], event["version"], "".join(event["aliases"][:1]))
            continue
        try:
            registered = Registrar(
                plan=plan,
                sweep=saved.sweep,
                outcome=outcome,
                backbone=backbones[name],
                lane=pool.wait_for_lane(),
                storage=storage,
                run_id=exporter.parent_run_id(name),
                trial_run=exporter.run_id,
            ).register_all()
        except Exception as error:  # the sweep's result is still shown and reported
            log.exception("task %s was not registered", name)
            outcome.unregistered = masked_first_line(error)
            continue
        outcome.registered, *_ = registered.values()
        versions = {
            method: {"version": version.version, "alias": version.alias} for method, version in registered.items()
        }
        first = outcome.registered
        journal.append(
            "registered",
            task=name,
            name=first.name,
            version=first.version,
            aliases=[first.alias] if first.alias else [],
            methods=versions,
        )
