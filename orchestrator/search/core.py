"""The Search core: which trial starts next, which goes on, and what has become of each.

It holds the studies, the rungs, the allocation between methods and the budget, and it knows no Ray:
Tune, a simulator and a test drive the same object through the same few calls.

Whatever changes is an event that the journal gets first. So the journal's events, applied again, bring a search back
to where it was: that is how a sweep is resumed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from orchestrator.common.trial_types import Ending, TrialKey, TrialRecord
from orchestrator.search.allocation import Allocation, Rank
from orchestrator.search.allocation.turns import RoundRobin
from orchestrator.search.budget import Budget, Limits
from orchestrator.search.plans import Decision, EventLog, Proposal, StudyPlan
from orchestrator.search.prior_gate import PriorGate
from orchestrator.search.rungs import Halving
from orchestrator.search.settings import TrainingSettings
from orchestrator.search.state import CHANGES, SearchState
from orchestrator.search.studies import Study, open_storage

_HALVING = Halving()
_DECIDED = {"running": Decision.CONTINUE, "paused": Decision.PAUSE}


class Search:
    """One sweep's search. Every call is safe from any thread, but none from a signal handler.

    Args:
        plans: the studies; equals take their turns in this order.
        rungs: optimizer steps at which trials report; a full trial ends at the last.
        storage_path: Optuna's file; ``None`` for none.
        journal: gets every event first.
        halving: who goes on at a rung; ``None`` if all do.
        allocation: which method gets the next piece of work.
        sampler: of configurations, one of :data:`orchestrator.search.samplers.SAMPLERS`.
        budget: what all trials together may cost.
        clock: seconds, monotonic; wall time counts from here.
        seed: of parameters and trials.
        saved: the events of a journal, to go on from there.
    """

    def __init__(
        self,
        plans: Sequence[StudyPlan],
        rungs: Sequence[int],
        *,
        storage_path: Path | None,
        journal: EventLog,
        halving: Halving | None = _HALVING,
        allocation: Allocation | None = None,
        sampler: str = "tpe",
        budget: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        saved: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._storage = open_storage(storage_path)
        settings: dict[str, TrainingSettings] = defaultdict(TrainingSettings)
        trust: dict[str, PriorGate] = defaultdict(PriorGate)
        self._studies = {
            plan.study: Study(
                plan.study,
                plan.space,
                higher_is_better=plan.higher_is_better,
                storage=self._storage,
                seed=seed,
                sampler=sampler,
                prior=plan.prior,
                constraints=plan.constraints,
                settings=settings[TrialKey(plan.study, 0).task],
                trust=trust[TrialKey(plan.study, 0).task],
            )
            for plan in plans
        }
        self._allocation = allocation or RoundRobin()
        self._rungs = tuple(rungs)
        self._journal = journal
        self._budget = Budget(budget or Limits(), clock)
        self._state = SearchState(plans, rungs, halving, self._budget)
        self._seed = seed
        self._dropped: dict[str, Rank] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._left = self._replay(saved)

    def ask(self) -> Proposal | None:
        """Start a trial, or go on with one; what was under way when a resumed sweep died comes first.

        Returns:
            ``None`` if there is nothing to do now; :attr:`exhausted` tells whether there ever will be.
        """
        with self._lock:
            if self._over():
                return None
            if self._left:
                return self._proposal(self._left.pop(0))
            study = self._next_study()
            if study is None:
                return None
            number = self._state.progress[study].promotable(can_start=self._can_start(study))
            return self._start(study) if number is None else self._promote(TrialKey(study, number))

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Take a result and decide. A step that was reported before, and a trial that has ended, change nothing.

        Args:
            key: whose result.
            step: optimizer steps done; one of the rungs.
            value: the task's metric on validation.
            lane_seconds: lane time spent since the trial's last report.
            metrics: all metrics, for the journal.
            measurements: sizes and times, for the journal.

        Raises:
            ValueError: if the step is not a rung.
            KeyError: if there is no such trial.
        """
        with self._lock:
            record = self._state.records[key]
            if step in record.values:
                return _DECIDED.get(record.state, Decision.STOP)
            if record.state != "running":
                return Decision.STOP
            if step not in self._rungs:
                raise ValueError(f"{key} reported step {step}; the rungs are {', '.join(map(str, self._rungs))}")
            self._log(
                "rung",
                key,
                step=step,
                value=value,
                metrics=dict(metrics or {}),
                measurements=dict(measurements or {}),
                lane_seconds=lane_seconds,
            )
            self._studies[key.study].report(key.number, self._rungs.index(step), value)
            decision = self._verdict(key)
            self._carry_out(key, decision)
            return Decision.STOP if self._closed else decision

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial, unless it has ended, or waits at a rung.

        Args:
            key: which trial.
            state: how it ended. One that claims to be complete without a result at the last rung is
                pruned, or failed without any result.
            reason: one line.
            lane_seconds: lane time spent since the trial's last report.
        """
        with self._lock:
            record = self._state.records[key]
            if record.state != "running" or (self._closed and state == "killed"):
                return
            if state == "complete" and record.step != self._rungs[-1]:
                state, reason = ("pruned" if record.values else "failed"), reason or "ended before the last rung"
            self._end(key, state, reason, lane_seconds)

    def close(self, reason: str) -> tuple[TrialKey, ...]:
        """Start none any more. Unless the sweep may be resumed, every open trial ends here.

        Args:
            reason: ``interrupted`` and ``failed`` leave open what was; after anything else nothing goes on.

        Returns:
            The trials that were open.
        """
        with self._lock:
            self._closed = True
            left = self._open()
            if reason not in ("interrupted", "failed"):
                for record in [self._state.records[key] for key in left]:
                    decided = reason == "budget" or record.state == "paused"
                    self._end(record.key, "pruned" if decided else "killed", _why(record, reason))
            self._storage.flush()
            return left

    @property
    def exhausted(self) -> bool:
        """Nothing will ever start or go on again."""
        with self._lock:
            return self._over() or not (self._state.running or self._left or self._next_study())

    @property
    def closed(self) -> bool:
        """:meth:`close` was called."""
        return self._closed

    @property
    def wall_time_over(self) -> bool:
        """The budget's wall time is spent. A result tells a trial so; who waits for none can ask here."""
        return self._budget.wall_spent

    @property
    def lane_seconds(self) -> float:
        """Lane time that was reported so far."""
        return self._budget.lane_seconds

    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial, in the order they started."""
        with self._lock:
            return tuple(self._state.records.values())

    def open(self) -> tuple[TrialKey, ...]:
        """The trials that have not ended, those that wait at a rung included."""
        with self._lock:
            return self._open()

    def _over(self) -> bool:
        return self._closed or self._budget.spent

    def _can_start(self, study: str) -> bool:
        progress = self._state.progress[study]
        tried = self._studies[study].exhausted_by(progress.starts)
        return self._budget.trials_left and not (tried or progress.hopeless)

    def _has_work(self, study: str) -> bool:
        can_start = self._can_start(study)
        return can_start or self._state.progress[study].promotable(can_start=False) is not None

    def _next_study(self) -> str | None:
        ready = [study for study in self._studies if self._has_work(study)]
        return self._allocation.choose([one.arm() for one in self._state.progress.values()], ready)

    def _start(self, study: str) -> Proposal:
        number, params = self._studies[study].ask()
        key = TrialKey(study, number)
        self._log("trial", key, params=params, seed=self._seed)
        return self._proposal(key)

    def _promote(self, key: TrialKey) -> Proposal:
        self._log("promote", key, step=self._state.records[key].step)
        return self._proposal(key)

    def _proposal(self, key: TrialKey) -> Proposal:
        record = self._state.records[key]
        return Proposal(key, dict(record.params), self._seed, record.step)

    def _verdict(self, key: TrialKey) -> Decision:
        """What is to become of a trial that just came to a rung; it follows from the results that are there by then."""
        record = self._state.records[key]
        if not math.isfinite(record.value) or record.step == self._rungs[-1] or self._budget.spent:
            return Decision.STOP
        goes_on = self._state.progress[key.study].goes_on(record, can_start=self._can_start(key.study))
        return Decision.CONTINUE if goes_on else Decision.PAUSE

    def _carry_out(self, key: TrialKey, decision: Decision) -> None:
        record = self._state.records[key]
        if decision is Decision.PAUSE:
            self._log("pause", key, step=record.step)
        elif decision is Decision.STOP:
            self._stop(record)

    def _stop(self, record: TrialRecord) -> None:
        """End a trial at its rung, and say why."""
        if not math.isfinite(record.value):
            self._end(record.key, "pruned", f"the metric is {record.value} at step {record.step}")
        elif record.step < self._rungs[-1]:
            self._end(record.key, "pruned", "budget")
        else:
            self._end(record.key, "complete", "")
            self._note_drops()

    def _end(self, key: TrialKey, state: Ending, reason: str, lane_seconds: float = 0.0) -> None:
        self._log("end", key, state=state, reason=reason, lane_seconds=lane_seconds)
        self._studies[key.study].tell(key.number, state, self._state.records[key].value, reason)

    def _note_drops(self) -> None:
        """Write down who is out of the race, and who is in again."""
        now = self._allocation.dropped([one.arm() for one in self._state.progress.values()])
        for study in [study for study in self._dropped if study not in now]:
            self._journal.append("readmit", study=study)
            del self._dropped[study]
        for study, why in now.items():
            if study not in self._dropped:
                self._journal.append("drop", study=study, **asdict(why))
                self._dropped[study] = why

    def _open(self) -> tuple[TrialKey, ...]:
        return tuple(key for key, record in self._state.records.items() if record.state in ("running", "paused"))

    def _log(self, event: str, key: TrialKey, **what: Any) -> None:
        self._journal.append(event, trial=str(key), **what)
        self._state.apply(event, key, what)

    def _replay(self, saved: Iterable[Mapping[str, Any]]) -> list[TrialKey]:
        """Apply a journal's events, and what they had still to bring about.

        Every rung is judged by what was known when it was reached, so that a trial whose pause or end was not written
        any more gets it now, and one that went on goes on.

        Returns:
            The trials that were under way.
        """
        last: Mapping[str, Any] = {}
        owed: dict[TrialKey, Decision] = {}
        for event in saved:
            if event["event"] in CHANGES:
                key, last = TrialKey.parse(event["trial"]), event
                self._state.apply(event["event"], key, event)
                owed.pop(key, None)
                if event["event"] == "rung":
                    owed[key] = self._verdict(key)
            elif event["event"] == "drop":
                self._dropped[event["study"]] = Rank(**{name.name: event[name.name] for name in fields(Rank)})
            elif event["event"] == "readmit":
                self._dropped.pop(event["study"], None)
        self._restore_studies()
        if last and self._state.records[TrialKey.parse(last["trial"])].state == "complete":
            self._note_drops()
        for key, decision in owed.items():
            self._carry_out(key, decision)
        return list(self._state.running)

    def _restore_studies(self) -> None:
        for name, study in self._studies.items():
            study.restore([record for key, record in self._state.records.items() if key.study == name], self._rungs)


def _why(record: TrialRecord, reason: str) -> str:
    return f"behind the others of its method at step {record.step}" if record.state == "paused" else reason
