"""Ray Tune's view of the Search core.

Tune decides nothing here. Its searcher asks the core for trials, its scheduler hands results to the
core, its stopper ends the run when the core is done. Tune's own ways to end a trial overlap and leave
gaps (a stopper tells neither searcher nor scheduler; a result that says ``done`` skips the scheduler),
so each way that exists leads to the same idempotent calls; what is still open after a run ends with
:meth:`orchestrator.search.core.Search.close`.

A result has the keys ``status`` (``done``, ``failed``, ``cancelled``), ``step``, ``value``,
``lane_seconds``, ``metrics``, ``facts`` and ``reason``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.search.core import Search
from orchestrator.search.plans import Decision
from orchestrator.trials import TrialKey

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


_ERROR = "its Tune trial ended with an error"
_REMOVED = "Tune removed it before it ran"


class _Live:
    """Bound to a live search. Tune copies and pickles what it is given; such a copy must not search on its own."""

    _search: Search

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CoreSearcher(_Live, Searcher):
    """Asks the core for trials.

    A trial's Tune configuration is ``{"study", "number", "params", "seed"}``.

    Args:
        search: the core; its own budget bounds the number of trials, so give Tune ``num_samples=-1``.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search
        self._keys: dict[str, TrialKey] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Searcher.FINISHED
        """Start a trial; called by Tune's controller whenever it has room."""
        proposal = self._search.ask()
        if proposal is None:
            return Searcher.FINISHED if self._search.exhausted else None
        key = self._keys[trial_id] = proposal.key
        return {"study": key.study, "number": key.number, "params": proposal.params, "seed": proposal.seed}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """End the trial, if its last result has not."""
        key = self._keys[trial_id]
        if error:
            self._search.finish(key, "failed", _ERROR)
        elif result:
            if "step" in result:
                deliver(self._search, key, result)
            self._search.finish(key, "complete")
        else:
            self._search.finish(key, "killed", _REMOVED)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the truth is Optuna's storage and the journal. Without this Tune warns."""

    def restore(self, checkpoint_path: str) -> None:
        """A sweep is resumed by a new Tune run, never by Tune's own state.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a sweep is resumed from its journal")


class CoreScheduler(_Live, FIFOScheduler):
    """Hands each result to the core and does what it says; trials run in the order they came.

    Args:
        search: the core.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide what becomes of the trial."""
        decision = deliver(self._search, _key(trial), result)
        return TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Keep the error's last line, unless Tune is about to start the trial again."""
        if not trial.should_recover():
            self._search.finish(_key(trial), "failed", _last_line(trial))

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """End a trial that is stopped while it waits."""
        self._search.finish(_key(trial), "killed", _REMOVED)


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


def deliver(search: Search, key: TrialKey, result: Mapping[str, Any]) -> Decision:
    """Hand a result to the core; a second time changes nothing.

    Args:
        search: the core.
        key: whose result.
        result: as in the module's description, nested or flattened by Tune with slashes.
    """
    lane_seconds = float(result.get("lane_seconds", 0.0))
    reason = str(result.get("reason", ""))
    if result.get("status") == "failed":
        search.finish(key, "failed", reason, lane_seconds)
        return Decision.STOP
    if result.get("status") == "cancelled":
        search.finish(key, "killed", reason, lane_seconds)
        return Decision.STOP
    return search.report(
        key,
        int(result["step"]),
        float(result["value"]),
        lane_seconds,
        _part(result, "metrics"),
        _part(result, "facts"),
    )


def _part(result: Mapping[str, Any], name: str) -> dict[str, float]:
    if isinstance(part := result.get(name), Mapping):
        return dict(part)
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}


def _key(trial: Trial) -> TrialKey:
    return TrialKey(trial.config["study"], trial.config["number"])


def _last_line(trial: Trial) -> str:
    """What the error said, from the trial's error file: its end names the exception."""
    path = Path(trial.error_file or "")
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else _ERROR
