"""Ray Tune's searcher, scheduler and stopper, over the search core.

Tune decides nothing here. Its searcher asks the core for pieces of work, its scheduler reports results to the core, and
its stopper ends the run when the core has ended. Tune's own ways to end a trial overlap and leave gaps: a stopper
informs neither searcher nor scheduler, and a result with ``done: true`` skips the scheduler. So every way to end leads
to the same calls of :class:`orchestrator.lanes.tune_bridge.TuneBridge`, where only the first call counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.lanes.endings import RESTARTS, Cause
from orchestrator.lanes.tune_bridge import TuneBridge
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


def keep_keys_from_trials() -> None:
    """Leave this process's AWS keys out of the environments that Tune gives to its trials' processes.

    Ray writes these environments into its logs. The processes reach no storage: lanes do, which get nothing from Tune.
    """
    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}


class _BoundToSearch:
    """Cannot be copied or pickled with its search. Tune does both; a second search would start trials of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoreSearcher(_BoundToSearch, Searcher):
    """Asks the core for pieces of work.

    The Tune configuration of a piece is ``{"study", "number", "params", "seed", "start"}``.

    Args:
        search: the core. Its own budget bounds the number of trials, so Tune gets ``num_samples=-1``.
        bridge: the bridge that the scheduler uses as well.
    """

    def __init__(self, search: Search, bridge: TuneBridge) -> None:
        super().__init__()
        self._search, self._bridge = search, bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Searcher.FINISHED
        """Begin a piece; Tune's controller calls this whenever it has room for another trial."""
        proposal = self._bridge.begin(trial_id)
        if proposal is None:
            return Searcher.FINISHED if self._search.exhausted else None
        trial = {"study": proposal.key.study, "number": proposal.key.number}
        return {**trial, "params": proposal.params, "seed": proposal.seed, "start": proposal.start}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """End the piece, unless its last result has ended it."""
        if error:
            self._bridge.end(trial_id, Cause.PROCESS_DIED, Cause.PROCESS_DIED.value, restarts=RESTARTS)
            return
        if result and "step" in result:
            self._bridge.deliver(trial_id, result)
        self._bridge.end(trial_id, Cause.TUNE_ENDED, Cause.TUNE_ENDED.value)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the source of truth is the journal. Without this method Tune warns."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a sweep is resumed by a new Tune run, never from Tune's own state.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a sweep is resumed from its journal")


class CoreScheduler(_BoundToSearch, FIFOScheduler):
    """Reports each result to the core and follows its decision; pieces run in the order of their start.

    Args:
        bridge: the bridge that the searcher uses as well.
    """

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the piece continues; a trial that pauses ends for Tune.

        Should the process of a piece that continues die, the next one begins with the piece's configuration.
        """
        decision = self._bridge.deliver(trial.trial_id, result)
        if decision is not Decision.CONTINUE:
            return TrialScheduler.STOP
        trial.config["start"] = result["step"]
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Drop Tune's statistics of a piece's numbers, which nothing reads: Tune keeps every piece to the end."""
        trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps = {}, {}

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """End the piece with the error's last line, unless Tune is about to start it again."""
        restarts = 0 if trial.should_recover() else RESTARTS
        self._bridge.end(trial.trial_id, Cause.PROCESS_DIED, _last_line(trial), restarts=restarts)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """End a piece that is stopped before it ran."""
        self._bridge.end(trial.trial_id, Cause.TUNE_ENDED, Cause.TUNE_ENDED.value)


class CoreStopper(_BoundToSearch, Stopper):
    """Ends the run as soon as the core is closed or its wall time is over, also between two rungs.

    Args:
        search: the core, which is closed with reason ``budget`` when its wall time is over.
    """

    def __init__(self, search: Search) -> None:
        self._search = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return ``False``: the scheduler ends single trials."""
        return False

    def stop_all(self) -> bool:
        """Return whether the run ends; Tune calls this after every event."""
        if self._search.wall_time_over and not self._search.closed:
            self._search.close("budget")
        return self._search.closed


def _last_line(trial: Trial) -> str:
    """Return the last line of a trial's error file, which names the exception."""
    path = Path(trial.error_file or "")
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else Cause.PROCESS_DIED.value
