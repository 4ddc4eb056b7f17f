"""Which of Tune's trials is at work on which trial of the core.

A trial that pauses at a rung ends for Tune, and comes back as another Tune trial. Tune says how its trials end in
several ways, some of them late: what it says of a piece that is over must not touch the trial, which may have gone on.

A result has the keys ``status`` (``done``, ``failed``, ``cancelled``), ``step``, ``value``, ``metrics``, ``facts`` and
``reason``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.common.trial_types import Ending, TrialKey, lane_seconds
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal


class TuneBridge:
    """Hands Tune's news to the core, under the trial's own name and once.

    Args:
        search: the core.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._at_work: dict[str, TrialKey] = {}
        self._spent = {record.key: lane_seconds(record.measurements) for record in search.trials()}

    def begin(self, piece: str) -> Proposal | None:
        """A trial to start or to go on with, if there is one.

        Args:
            piece: Tune's name of the piece of work.
        """
        proposal = self._search.ask()
        if proposal is not None:
            self._at_work[piece] = proposal.key
        return proposal

    def deliver(self, piece: str, result: Mapping[str, Any]) -> Decision:
        """Hand a result to the core; a second time, or from a piece that is over, it changes nothing."""
        key = self._at_work.get(piece)
        if key is None:
            return Decision.STOP
        decision = self._decide(key, result)
        if decision is not Decision.CONTINUE:
            del self._at_work[piece]
        return decision

    def end(self, piece: str, state: Ending, reason: str = "") -> None:
        """A piece ended without a result that says so. A search that is closed has dealt with its trials itself."""
        key = self._at_work.pop(piece, None)
        if key is not None and not self._search.closed:
            self._search.finish(key, state, reason)

    def _decide(self, key: TrialKey, result: Mapping[str, Any]) -> Decision:
        measurements, reason = _part(result, "measurements"), str(result.get("reason", ""))
        spent = self._since_last(key, lane_seconds(measurements))
        if result.get("status") != "done":
            self._search.finish(key, "failed" if result.get("status") == "failed" else "killed", reason, spent)
            return Decision.STOP
        value = float(result["value"])
        return self._search.report(key, int(result["step"]), value, spent, _part(result, "metrics"), measurements)

    def _since_last(self, key: TrialKey, total: float) -> float:
        """Lane time since the last result. A trial whose checkpoint was lost counts from 0 again."""
        before = self._spent.get(key, 0.0)
        self._spent[key] = total or before
        return total - before if total >= before else total


def _part(result: Mapping[str, Any], name: str) -> dict[str, float]:
    """A mapping in a result, which Tune may have flattened with slashes."""
    if isinstance(part := result.get(name), Mapping):
        return dict(part)
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}
