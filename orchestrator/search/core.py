"""The search core: which trial starts next, which trials continue, and how each ends.

It holds the studies, the rungs, the allocation between methods and the budget, and it knows no Ray: Tune, a simulator
and a test drive the same object through the same few calls.

Every change is an event that is written to the journal before it takes effect. So applying the journal's events again
restores a search: that is how a sweep is resumed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from orchestrator.common.trial_types import Curve, Ending, TrialKey, TrialRecord
from orchestrator.search.allocation import Allocation, Arm, Elimination
from orchestrator.search.allocation.turns import RoundRobin
from orchestrator.search.budget import Budget, SpendingLimits
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import Decision, EventLog, Proposal, StudyPlan
from orchestrator.search.prior_gate import PriorGate
from orchestrator.search.shared_settings import SharedSettings
from orchestrator.search.state import STATE_EVENTS, SearchState
from orchestrator.search.studies import Study, open_storage

_HALVING = Halving()
_DECISIONS = {"running": Decision.CONTINUE, "paused": Decision.PAUSE}


class Search:
    """One sweep's search. Every call is safe from any thread, but none from a signal handler, which could deadlock.

    Args:
        plans: The studies; ties between them are broken by this order.
        rungs: Optimizer steps at which trials report; a full trial ends at the last.
        storage_path: Optuna's file; ``None`` for none.
        journal: The journal, which gets every event first.
        halving: Which trials continue at a rung; ``None`` if all do. See :mod:`orchestrator.search.early_stopping`.
        allocation: The rule that decides which method gets the next piece of work; without it methods take turns.
        sampler: The sampler of configurations, one of :data:`orchestrator.search.samplers.SAMPLERS`.
        budget: What all trials together may cost; without it there is no limit.
        clock: Monotonic seconds; wall time counts from this call.
        seed: Seed of parameters and trials.
        saved: The events of a journal, to continue from there.
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
        budget: SpendingLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        saved: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._storage = open_storage(storage_path)
        settings: dict[str, SharedSettings] = defaultdict(SharedSettings)
        prior_gates: dict[str, PriorGate] = defaultdict(PriorGate)
        self._studies = {
            plan.study: Study(
                plan.study,
                plan.space,
                higher_is_better=plan.higher_is_better,
                metric=plan.metric,
                storage=self._storage,
                seed=seed,
                sampler=sampler,
                prior=plan.prior,
                constraints=plan.constraints,
                settings=settings[plan.task],
                prior_gate=prior_gates[plan.task],
            )
            for plan in plans
        }
        self._allocation = allocation or RoundRobin()
        self._rungs = tuple(rungs)
        self._journal = journal
        self._budget = Budget(budget or SpendingLimits(), clock)
        self._state = SearchState(plans, rungs, halving, self._budget)
        self._seed = seed
        self._dropped: dict[str, Elimination] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._interrupted = self._replay(saved)

    def ask(self) -> Proposal | None:
        """Start or continue a trial; the trials that were running when a resumed sweep was interrupted come first.

        Returns:
            ``None`` if there is no work now; :attr:`exhausted` tells whether there will be any later.
        """
        with self._lock:
            if self._is_over():
                return None
            if self._interrupted:
                return self._proposal(self._interrupted.pop(0))
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
        curve: Curve | None = None,
    ) -> Decision:
        """Record a result and decide about its trial. A repeated step, or a trial that has ended, changes nothing.

        Args:
            key: The trial.
            step: Optimizer steps done; one of the rungs.
            value: The task's metric on validation.
            lane_seconds: Lane time since the trial's last report, in seconds.
            metrics: All metrics, for the journal.
            measurements: Sizes and times, for the journal.
            curve: Points of the training curve since the last report, for the journal.

        Raises:
            ValueError: If the step is not a rung.
            KeyError: If there is no such trial.
        """
        with self._lock:
            record = self._state.records[key]
            if step in record.values:
                return _DECISIONS.get(record.state, Decision.STOP)
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
                **_curve_field(curve),
            )
            self._studies[key.study].report(key.number, self._rungs.index(step), value)
            decision = self._decide(key)
            self._apply_decision(key, decision)
            return Decision.STOP if self._closed else decision

    def finish(
        self,
        key: TrialKey,
        state: Ending,
        reason: str = "",
        lane_seconds: float = 0.0,
        curve: Curve | None = None,
    ) -> None:
        """End a trial, unless it has ended or waits at a rung.

        Args:
            key: The trial.
            state: How it ended. A complete trial without a result at the last rung is recorded as pruned, and as failed
                without any result.
            reason: The reason, in one line.
            lane_seconds: Lane time since the trial's last report, in seconds.
            curve: Points of the training curve since the last report, for the journal.
        """
        with self._lock:
            record = self._state.records[key]
            if record.state != "running" or (self._closed and state == "killed"):
                return
            if state == "complete" and record.step != self._rungs[-1]:
                state, reason = ("pruned" if record.values else "failed"), reason or "ended before the last rung"
            self._end(key, state, reason, lane_seconds, curve)

    def close(self, reason: str) -> tuple[TrialKey, ...]:
        """Start no more trials and, unless the sweep may be resumed, end every open trial.

        Args:
            reason: Why the search ends; ``interrupted`` and ``failed`` leave trials open for a resume.

        Returns:
            The trials that were open.
        """
        with self._lock:
            self._closed = True
            open_trials = self._open()
            if reason not in ("interrupted", "failed"):
                for record in [self._state.records[key] for key in open_trials]:
                    pruned = reason == "budget" or record.state == "paused"
                    self._end(record.key, "pruned" if pruned else "killed", _end_reason(record, reason))
            self._storage.flush()
            return open_trials

    @property
    def exhausted(self) -> bool:
        """Whether no trial will start or continue any more."""
        with self._lock:
            return self._is_over() or not (self._state.running or self._interrupted or self._next_study())

    @property
    def most_at_once(self) -> int | None:
        """Most trials that may be at work at once from now on; ``None`` while new ones may start."""
        with self._lock:
            if not self._is_over() and any(self._can_start(study) for study in self._studies):
                return None
            return len(self._open())

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def wall_time_over(self) -> bool:
        """Whether the budget's wall time is over, for callers that cannot wait until the next result says so."""
        return self._budget.wall_spent

    @property
    def lane_seconds(self) -> float:
        """Lane time that was reported so far, in seconds."""
        return self._budget.lane_seconds

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return every trial, in the order of their start."""
        with self._lock:
            return tuple(self._state.records.values())

    def open(self) -> tuple[TrialKey, ...]:
        """Return the trials that have not ended, including those that wait at a rung."""
        with self._lock:
            return self._open()

    def next_trials(self, count: int) -> dict[str, int]:
        """Return how many of the next trials would go to each study if the budget allowed them, most first.

        Their results are not known: every method is taken to keep its best value while its cost grows.
        """
        with self._lock:
            arms = {arm.study: arm for arm in self._arms()}
            ready = [study for study in self._studies if not self._exhausted(study)]
            shares: Counter[str] = Counter()
            for _ in range(count):
                if (study := self._allocation.choose(list(arms.values()), ready)) is None:
                    break
                arm = arms[study]
                arms[study] = replace(arm, starts=arm.starts + 1, cost=arm.cost + arm.full_cost)
                shares[study] += 1
            return dict(shares.most_common())

    def _is_over(self) -> bool:
        return self._closed or self._budget.spent

    def _can_start(self, study: str) -> bool:
        return self._budget.trials_left and not self._exhausted(study)

    def _exhausted(self, study: str) -> bool:
        """Return whether a study has no configuration left, or none that would have a result."""
        progress = self._state.progress[study]
        return self._studies[study].exhausted_by(progress.starts) or progress.hopeless

    def _has_work(self, study: str) -> bool:
        can_start = self._can_start(study)
        return can_start or self._state.progress[study].promotable(can_start=False) is not None

    def _next_study(self) -> str | None:
        ready = [study for study in self._studies if self._has_work(study)]
        return self._allocation.choose(self._arms(), ready)

    def _arms(self) -> list[Arm]:
        return [progress.arm() for progress in self._state.progress.values()]

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

    def _decide(self, key: TrialKey) -> Decision:
        """Return what happens to a trial that has just reported; see :mod:`orchestrator.search.early_stopping`."""
        return self._state.progress[key.study].decide(
            self._state.records[key], can_start=self._can_start(key.study), budget_spent=self._budget.spent
        )

    def _apply_decision(self, key: TrialKey, decision: Decision) -> None:
        record = self._state.records[key]
        if decision is Decision.PAUSE:
            self._log("pause", key, step=record.step)
        elif decision is Decision.STOP:
            self._end_at_rung(record)

    def _end_at_rung(self, record: TrialRecord) -> None:
        """End a trial at its rung, with the reason."""
        if not math.isfinite(record.value):
            self._end(record.key, "pruned", f"the metric is {record.value} at step {record.step}")
        elif record.step < self._rungs[-1]:
            self._end(record.key, "pruned", "budget")
        else:
            self._end(record.key, "complete", "")
            self._log_drops()

    def _end(
        self, key: TrialKey, state: Ending, reason: str, lane_seconds: float = 0.0, curve: Curve | None = None
    ) -> None:
        self._log("end", key, state=state, reason=reason, lane_seconds=lane_seconds, **_curve_field(curve))
        self._studies[key.study].tell(key.number, state, self._state.records[key].value, reason)

    def _log_drops(self) -> None:
        """Log the studies that the allocation rule has dropped since the last call, and those it has readmitted."""
        dropped = self._allocation.dropped(self._arms())
        for study in [study for study in self._dropped if study not in dropped]:
            self._journal.append("readmit", study=study)
            del self._dropped[study]
        for study, elimination in dropped.items():
            if study not in self._dropped:
                self._journal.append("drop", study=study, **asdict(elimination))
                self._dropped[study] = elimination

    def _open(self) -> tuple[TrialKey, ...]:
        return tuple(key for key, record in self._state.records.items() if record.state in ("running", "paused"))

    def _log(self, event: str, key: TrialKey, **values: Any) -> None:
        """Write an event to the journal, then apply it: the other order would lose what a crash interrupts."""
        self._journal.append(event, trial=str(key), **values)
        self._state.apply(event, key, values)

    def _replay(self, saved: Iterable[Mapping[str, Any]]) -> list[TrialKey]:
        """Apply a journal's events, and the decisions that were not written before the interruption.

        The decision about a result is made with the results that were there at the time, so that a trial whose pause or
        end is missing from the journal gets it now, and a trial that continued still does.

        Returns:
            The trials that were running.
        """
        last: Mapping[str, Any] = {}
        pending: dict[TrialKey, Decision] = {}
        for event in saved:
            if event["event"] in STATE_EVENTS:
                key, last = TrialKey.parse(event["trial"]), event
                self._state.apply(event["event"], key, event)
                pending.pop(key, None)
                if event["event"] == "rung":
                    pending[key] = self._decide(key)
            elif event["event"] == "drop":
                numbers = {field.name: event[field.name] for field in fields(Elimination)}
                self._dropped[event["study"]] = Elimination(**numbers)
            elif event["event"] == "readmit":
                self._dropped.pop(event["study"], None)
        self._restore_studies()
        if last and self._state.records[TrialKey.parse(last["trial"])].state == "complete":
            self._log_drops()
        for key, decision in pending.items():
            self._apply_decision(key, decision)
        return list(self._state.running)

    def _restore_studies(self) -> None:
        for name, study in self._studies.items():
            study.restore([record for key, record in self._state.records.items() if key.study == name], self._rungs)


def _curve_field(curve: Curve | None) -> dict[str, Curve]:
    """Return a training curve as a field of an event; none where there is none, as in the journals of 0.1."""
    return {"curve": curve} if curve else {}


def _end_reason(record: TrialRecord, reason: str) -> str:
    return f"behind the others of its method at step {record.step}" if record.state == "paused" else reason
