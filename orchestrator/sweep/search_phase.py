"""The search phase of a sweep: make the search for a plan, and let Ray Tune run it over the lanes."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray import tune

from orchestrator.common.errors import SweepError
from orchestrator.journal.remote import OPTUNA_FILE
from orchestrator.lanes.endings import RESTARTS
from orchestrator.lanes.pool import LanePool
from orchestrator.lanes.proxy import TrialProxy, Work
from orchestrator.lanes.tune import CoreScheduler, CoreSearcher, CoreStopper, keep_keys_from_trials
from orchestrator.lanes.tune_bridge import TuneBridge
from orchestrator.planning.plan import SweepPlan
from orchestrator.search.allocation import ALLOCATIONS
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import EventLog
from orchestrator.search.reserve import FinalEstimate
from orchestrator.sweep.saved_state import SavedSweep


def make_search(plan: SweepPlan, saved: SavedSweep, journal: EventLog, *, lanes: int, elapsed: float) -> Search:
    """Make a sweep's search in the state that its journal records.

    Args:
        plan: plan of the sweep.
        saved: its recorded state.
        journal: its journal.
        lanes: number of lanes.
        elapsed: wall time that is spent already, in seconds.
    """
    budget, settings, selection = plan.config.budget, plan.config.search, plan.config.selection
    return Search(
        plan.studies,
        plan.rungs,
        storage_path=saved.folder / OPTUNA_FILE,
        journal=journal,
        halving=Halving(reduction_factor=settings.reduction_factor, min_results=settings.min_results)
        if settings.early_stopping
        else None,
        allocation=ALLOCATIONS[settings.allocation](),
        sampler=settings.sampler,
        budget=SpendingLimits(
            trials=budget.trials,
            wall_seconds=None if budget.wall_time is None else max(budget.wall_time, elapsed + 1.0),
            elapsed=elapsed,
            lane_seconds=budget.lane_seconds,
            final=FinalEstimate(contenders=selection.contenders, seeds=selection.seeds, steps=plan.rungs[-1]),
            lanes=lanes,
        ),
        seed=plan.config.seed,
        saved=saved.events,
    )


def tune_search(search: Search, plan: SweepPlan, pool: LanePool, folder: str) -> None:
    """Run a search to its end with Ray Tune; see :mod:`orchestrator.lanes.tune`.

    Args:
        search: the search, which makes all decisions.
        plan: plan of the sweep.
        pool: the lanes that train.
        folder: folder for Tune's own state, which is not read again.

    Raises:
        SweepError: if trials cannot go on, by no fault of their own.
    """
    metrics = {name: task.type.optimized.name for name, task in plan.tasks.items()}
    work = Work(pool.broker, plan.rungs, metrics)
    bridge = TuneBridge(search)
    # Tune writes no metrics of trials here (TUNE_DISABLE_AUTO_CALLBACK_LOGGERS). When it ends it looks for them all the
    # same, and would warn of each trial without any.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    # It also warns of each of its own operations that takes half a second, as some do while lanes use all cores.
    logging.getLogger("ray.tune.utils.util").setLevel(logging.ERROR)
    keep_keys_from_trials()
    tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialProxy, work=work), _proxy_resources()),
        tune_config=tune.TuneConfig(
            search_alg=CoreSearcher(search, bridge),
            scheduler=CoreScheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=pool.jobs,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=folder,
            name="tune",
            verbose=0,
            stop=CoreStopper(search),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    if bridge.fault:
        raise SweepError(bridge.fault)


def _proxy_resources() -> Any:
    """Return the resources of a trial's proxy: a tiny fraction of the driver's node, since Tune refuses zero.

    The node is named by its id: two Ray nodes of one machine share their address, and one of them may be taken back.
    """
    address, node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()
    bundle = {f"node:{address}": 0.0001}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[{"ray.io/node-id": node}])
