"""Maps Ray Tune's trials to the search's trials.

A trial that pauses at a rung ends for Tune, and continues as another Tune trial. Below, the work of one Tune trial is a
*piece*. Tune reports the end of its trials in several ways, some of them late: a late report about a piece that is over
must not touch the search's trial, which may have continued in another piece.

A result has the keys ``status`` (``done``, ``failed`` or ``cancelled``), ``step``, ``value``, ``metrics``,
``measurements`` and ``reason``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.common.trial_types import Ending, TrialKey, lane_seconds
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal


class TuneBridge:
    """Passes Tune's reports to the search, each once and under the name of the search's trial.

    Args:
        search: the search core.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._trials: dict[str, TrialKey] = {}
        self._lane_seconds = {record.key: lane_seconds(record.measurements) for record in search.trials()}

    def begin(self, piece: str) -> Proposal | None:
        """Return a trial to start or to continue, if there is one.

        Args:
            piece: Tune's name of the piece.
        """
        proposal = self._search.ask()
        if proposal is not None:
            self._trials[piece] = proposal.key
        return proposal

    def deliver(self, piece: str, result: Mapping[str, Any]) -> Decision:
        """Report a result to the search; a repeated result, or one of a piece that is over, changes nothing."""
        key = self._trials.get(piece)
        if key is None:
            return Decision.STOP
        decision = self._report(key, result)
        if decision is not Decision.CONTINUE:
            del self._trials[piece]
        return decision

    def end(self, piece: str, state: Ending, reason: str = "") -> None:
        """End the trial of a piece that ended without a result. A closed search has ended its trials already."""
        key = self._trials.pop(piece, None)
        if key is not None and not self._search.closed:
            self._search.finish(key, state, reason)

    def _report(self, key: TrialKey, result: Mapping[str, Any]) -> Decision:
        measurements, reason = _mapping(result, "measurements"), str(result.get("reason", ""))
        seconds = self._seconds_since_last_result(key, lane_seconds(measurements))
        if result.get("status") != "done":
            self._search.finish(key, "failed" if result.get("status") == "failed" else "killed", reason, seconds)
            return Decision.STOP
        value = float(result["value"])
        return self._search.report(key, int(result["step"]), value, seconds, _mapping(result, "metrics"), measurements)

    def _seconds_since_last_result(self, key: TrialKey, total: float) -> float:
        """Return the lane time since the trial's last result.

        Lanes report the time since the trial's first step. A trial whose checkpoint was lost starts again, and its time
        begins at 0 again.
        """
        before = self._lane_seconds.get(key, 0.0)
        self._lane_seconds[key] = total or before
        return total - before if total >= before else total


def _mapping(result: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return a mapping in a result, which Tune may have flattened with slashes."""
    if isinstance(mapping := result.get(name), Mapping):
        return dict(mapping)
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}
