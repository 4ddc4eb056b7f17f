"""The Search core: which trial starts next, which goes on, and what has become of each.

It holds the studies, the rungs, the allocation between methods and the budget, and it knows no Ray:
Tune, a simulator and a test drive the same object through the same few calls.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.search.budget import Budget, Limits
from orchestrator.search.plans import Decision, EventLog, Halving, Proposal, StudyPlan
from orchestrator.search.studies import Study, open_storage
from orchestrator.trials import Ending, TrialKey, TrialRecord

HOPELESS = 3


class Search:
    """One sweep's search. Every call is safe from any thread, but none from a signal handler.

    Args:
        plans: the studies; equals take their turns in this order.
        rungs: optimizer steps at which trials report; a full trial ends at the last.
        storage_path: Optuna's file.
        journal: gets every event first.
        settings: when trials are stopped.
        budget: what all trials together may cost.
        clock: seconds, monotonic; wall time counts from here.
        seed: of parameters and trials.
    """

    def __init__(
        self,
        plans: Sequence[StudyPlan],
        rungs: Sequence[int],
        *,
        storage_path: Path,
        journal: EventLog,
        settings: Halving | None = None,
        budget: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        storage = open_storage(storage_path)
        self._studies = {
            plan.study: Study(
                plan.study, plan.space, higher_is_better=plan.higher_is_better, storage=storage, seed=seed
            )
            for plan in plans
        }
        self._rungs = tuple(rungs)
        self._journal = journal
        self._halving = settings or Halving()
        self._budget = Budget(budget or Limits(), clock)
        self._seed = seed
        self._records: dict[TrialKey, TrialRecord] = {}
        self._results: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._closed = False
        self._lock = threading.Lock()

    def ask(self) -> Proposal | None:
        """Start a trial, or ``None`` if none may start; :attr:`exhausted` tells whether one ever may."""
        with self._lock:
            study = self._next_study()
            if study is None:
                return None
            number, params = study.ask()
            key = TrialKey(study.name, number)
            self._budget.trials += 1
            self._records[key] = TrialRecord(key=key, params=params)
            self._journal.append("trial", trial=str(key), params=params, seed=self._seed)
            return Proposal(key, params, self._seed)

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        facts: Mapping[str, float] | None = None,
    ) -> Decision:
        """Take a result and decide. A step that was reported before, and a trial that has ended, change nothing.

        Args:
            key: whose result.
            step: optimizer steps done; one of the rungs.
            value: the task's metric on validation.
            lane_seconds: lane time spent since the trial's last report.
            metrics: all metrics, for the journal.
            facts: sizes and times, for the journal.

        Raises:
            ValueError: if the step is not a rung.
            KeyError: if there is no such trial.
        """
        with self._lock:
            record = self._records[key]
            if record.state != "running":
                return Decision.STOP
            if step in record.values:
                return Decision.CONTINUE
            if step not in self._rungs:
                raise ValueError(f"{key} reported step {step}; the rungs are {', '.join(map(str, self._rungs))}")
            record = self._add(record, step, value, lane_seconds, metrics or {}, facts or {})
            verdict = self._judge(record)
            if verdict is None:
                return Decision.CONTINUE
            self._end(record, *verdict)
            return Decision.STOP

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial, unless it has ended.

        Args:
            key: which trial.
            state: how it ended. One that claims to be complete without a result at the last rung is
                pruned, or failed without any result.
            reason: one line.
            lane_seconds: lane time spent since the trial's last report.
        """
        with self._lock:
            record = self._records[key]
            if record.state != "running":
                return
            self._budget.lane_seconds += lane_seconds
            record = replace(record, lane_seconds=record.lane_seconds + lane_seconds)
            if state == "complete" and record.step != self._rungs[-1]:
                state, reason = ("pruned" if record.values else "failed"), reason or "ended before the last rung"
            self._end(record, state, reason)

    def close(self, reason: str) -> tuple[TrialKey, ...]:
        """End every open trial, pruned if the budget is the reason and killed otherwise; start none any more.

        Returns:
            The trials that were open.
        """
        with self._lock:
            self._closed = True
            ended = self._open()
            for key in ended:
                self._end(self._records[key], "pruned" if reason == "budget" else "killed", reason)
            return ended

    @property
    def exhausted(self) -> bool:
        """No trial will ever start again."""
        with self._lock:
            return self._next_study() is None

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
            return tuple(self._records.values())

    def open(self) -> tuple[TrialKey, ...]:
        """The trials that have not ended."""
        with self._lock:
            return self._open()

    def best(self, study: str) -> TrialRecord | None:
        """The study's trial with the best value at the latest rung that any has reached."""
        higher = self._studies[study].higher_is_better
        scored = [r for r in self.trials() if r.key.study == study and math.isfinite(r.value)]
        return max(scored, key=lambda record: record.standing(higher_is_better=higher), default=None)

    def _next_study(self) -> Study | None:
        """Round robin over methods, and over tasks within a round."""
        if self._closed or self._budget.spent or not self._budget.trials_left:
            return None
        by_task = Counter({name.rpartition("/")[0]: 0 for name in self._studies})
        for study in self._studies.values():
            by_task[study.name.rpartition("/")[0]] += study.asked
        ready = [study for study in self._studies.values() if not (study.exhausted or self._hopeless(study.name))]
        return min(ready, key=lambda s: (s.asked, by_task[s.name.rpartition("/")[0]]), default=None)

    def _hopeless(self, study: str) -> bool:
        """Several trials failed and none came to a result: the next would fail as well, and cost nothing to say so."""
        own = [record for record in self._records.values() if record.key.study == study]
        failed = sum(record.state == "failed" for record in own)
        return failed >= HOPELESS and not any(record.values for record in own)

    def _add(
        self,
        record: TrialRecord,
        step: int,
        value: float,
        lane_seconds: float,
        metrics: Mapping[str, float],
        facts: Mapping[str, float],
    ) -> TrialRecord:
        self._journal.append(
            "rung",
            trial=str(record.key),
            step=step,
            value=value,
            metrics=dict(metrics),
            facts=dict(facts),
            lane_seconds=lane_seconds,
        )
        self._budget.lane_seconds += lane_seconds
        self._budget.steps += step - record.step
        self._results[record.key.study, step].append(value)
        self._studies[record.key.study].report(record.key.number, self._rungs.index(step), value)
        record = replace(
            record,
            values={**record.values, step: value},
            lane_seconds=record.lane_seconds + lane_seconds,
            facts=dict(facts),
        )
        self._records[record.key] = record
        return record

    def _judge(self, record: TrialRecord) -> tuple[Ending, str] | None:
        """How and why a trial ends after its last result, or ``None`` if it goes on."""
        if not math.isfinite(record.value):
            return "pruned", f"the metric is {record.value} at step {record.step}"
        if record.step == self._rungs[-1]:
            return "complete", ""
        if self._budget.spent:
            return "pruned", "budget"
        results = self._results[record.key.study, record.step]
        higher = self._studies[record.key.study].higher_is_better
        if self._halving.promotes(record.value, results, higher_is_better=higher):
            return None
        return "pruned", f"behind the others of its method at step {record.step}"

    def _end(self, record: TrialRecord, state: Ending, reason: str) -> None:
        self._records[record.key] = replace(record, state=state, reason=reason)
        self._journal.append("end", trial=str(record.key), state=state, reason=reason)
        self._studies[record.key.study].tell(record.key.number, state, record.value, reason)

    def _open(self) -> tuple[TrialKey, ...]:
        return tuple(key for key, record in self._records.items() if record.state == "running")
