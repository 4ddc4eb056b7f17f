"""Ray Tune's view of the Search core.

Tune decides nothing here. Its searcher asks the core for pieces of work, its scheduler hands results to the core, its
stopper ends the run when the core is done. Tune's own ways to end a trial overlap and leave gaps (a stopper tells
neither searcher nor scheduler; a result that says ``done`` skips the scheduler), so each way that exists leads to the
same calls of :class:`orchestrator.search.tune_bridge.TuneBridge`, where only the first counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.search.core import Search
from orchestrator.search.plans import Decision
from orchestrator.search.tune_bridge import TuneBridge

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


_ERROR = "its Tune trial ended with an error"
_REMOVED = "Tune removed it before it ran"


class _Live:
    """Bound to a live search. Tune copies and pickles what it is given; such a copy must not search on its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoreSearcher(_Live, Searcher):
    """Asks the core for pieces of work.

    A piece's Tune configuration is ``{"study", "number", "params", "seed", "start"}``.

    Args:
        search: the core; its own budget bounds the number of trials, so give Tune ``num_samples=-1``.
        bridge: of the search; the scheduler's too.
    """

    def __init__(self, search: Search, bridge: TuneBridge) -> None:
        super().__init__()
        self._search, self._bridge = search, bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Searcher.FINISHED
        """Begin a piece; called by Tune's controller whenever it has room."""
        proposal = self._bridge.begin(trial_id)
        if proposal is None:
            return Searcher.FINISHED if self._search.exhausted else None
        trial = {"study": proposal.key.study, "number": proposal.key.number}
        return {**trial, "params": proposal.params, "seed": proposal.seed, "start": proposal.start}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """End the piece, if its last result has not."""
        if error:
            self._bridge.end(trial_id, "failed", _ERROR)
        elif not result:
            self._bridge.end(trial_id, "killed", _REMOVED)
        else:
            if "step" in result:
                self._bridge.deliver(trial_id, result)
            self._bridge.end(trial_id, "complete")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the truth is the journal. Without this Tune warns."""

    def restore(self, checkpoint_path: str) -> None:
        """A sweep is resumed by a new Tune run, never by Tune's own state.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a sweep is resumed from its journal")


class CoreScheduler(_Live, FIFOScheduler):
    """Hands each result to the core and does what it says; pieces run in the order they came.

    Args:
        bridge: of the search; the searcher's too.
    """

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide what becomes of the piece; a trial that pauses ends for Tune."""
        decision = self._bridge.deliver(trial.trial_id, result)
        return TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Keep the error's last line, unless Tune is about to start the piece again."""
        if not trial.should_recover():
            self._bridge.end(trial.trial_id, "failed", _last_line(trial))

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """End a piece that is stopped while it waits."""
        self._bridge.end(trial.trial_id, "killed", _REMOVED)


class CoreStopper(_Live, Stopper):
    """Ends the run as soon as the core is closed or its wall time is over, in the middle of a rung too.

    Args:
        search: the core; closed with reason ``budget`` when its wall time is over.
    """

    def __init__(self, search: Search) -> None:
        self._search = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Single trials are the scheduler's."""
        return False

    def stop_all(self) -> bool:
        """Asked after every event."""
        if self._search.wall_time_over and not self._search.closed:
            self._search.close("budget")
        return self._search.closed


def _last_line(trial: Trial) -> str:
    """What the error said, from the trial's error file: its end names the exception."""
    path = Path(trial.error_file or "")
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else _ERROR
