"""Maps Ray Tune's trials to the search's trials.

A trial that pauses at a rung ends for Tune, and continues as another Tune trial. Below, the work of one Tune trial is a
*piece*. Tune reports the end of its trials in several ways, some of them late: a late report about a piece that is over
must not touch the search's trial, which may have continued in another piece.

A result has the keys ``status`` (``done``, ``failed`` or ``cancelled``), ``step``, ``value``, ``metrics``,
``measurements``, ``curve`` and ``reason``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.common.trial_types import Curve, TrialKey, lane_seconds
from orchestrator.lanes.endings import Cause, Verdict, verdict
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal


class TuneBridge:
    """Passes Tune's reports to the search, each once and under the name of the search's trial.

    Attributes:
        fault: why the sweep has to stop although no trial is at fault; empty while it need not.

    Args:
        search: the search core.
    """

    def __init__(self, search: Search) -> None:
        self.fault = ""
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

    def end(self, piece: str, cause: Cause, reason: str, restarts: int = 0) -> None:
        """End a piece without a result; what that means for its trial is decided in :mod:`.endings`.

        Args:
            piece: Tune's name of the piece.
            cause: why it has ended.
            reason: the same in one line.
            restarts: how often Tune has started the piece again.
        """
        key = self._trials.get(piece)
        if key is None or self._conclude(key, cause, reason, restarts=restarts) is Verdict.GO_ON:
            return
        del self._trials[piece]

    def _conclude(
        self,
        key: TrialKey,
        cause: Cause,
        reason: str,
        seconds: float = 0.0,
        *,
        restarts: int = 0,
        curve: Curve | None = None,
    ) -> Verdict:
        follows = verdict(cause, stopped=self._search.closed, restarts=restarts)
        if follows is Verdict.END_TRIAL:
            self._search.finish(key, "failed", reason, seconds, curve)
        elif follows is Verdict.STOP_SWEEP:
            self.fault = self.fault or f"trial {key} could not go on, by no fault of its own: {reason}"
            self._search.close("failed")
        return follows

    def _report(self, key: TrialKey, result: Mapping[str, Any]) -> Decision:
        measurements, reason = _pairs(result, "measurements"), str(result.get("reason", ""))
        seconds, curve = self._seconds_since_last_result(key, lane_seconds(measurements)), _pairs(result, "curve")
        if result.get("status") != "done":
            cause = Cause.FAILED if result.get("status") == "failed" else Cause.CANCELLED
            self._conclude(key, cause, reason or cause.value, seconds, curve=curve)
            return Decision.STOP
        step, value, metrics = int(result["step"]), float(result["value"]), _pairs(result, "metrics")
        return self._search.report(key, step, value, seconds, metrics, measurements, curve)

    def _seconds_since_last_result(self, key: TrialKey, total: float) -> float:
        """Return the lane time since the trial's last result.

        Lanes report the time since the trial's first step. A trial whose checkpoint was lost starts again, and its time
        begins at 0 again.
        """
        before = self._lane_seconds.get(key, 0.0)
        self._lane_seconds[key] = total or before
        return total - before if total >= before else total


def _pairs(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return by name what is pairs in a result."""
    return dict(result.get(name, ()))
