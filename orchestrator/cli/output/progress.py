"""What a person sees: the plan, a running sweep, and what came out of it. Reads without colour, in 80 columns."""

from __future__ import annotations

import math
import time
from collections import Counter
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.common.trial_types import TrialRecord
from orchestrator.common.units import duration
from orchestrator.config import Budget
from orchestrator.planning.plan import SweepPlan, TaskPlan
from orchestrator.sweep.status import Snapshot

PLAIN_INTERVAL = 10.0
UNDER_WAY = ("running", "paused")


class SweepDisplay:
    """Shows snapshots: live on a terminal, as a line every ten seconds elsewhere.

    Args:
        name: of the sweep.
        plan: what it does.
        stream: where to.
    """

    def __init__(self, name: str, plan: SweepPlan, stream: TextIO) -> None:
        self._name, self._plan = name, plan
        self._console = Console(file=stream, highlight=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last_line = -math.inf

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how the sweep stands."""
        if self._console.is_terminal:
            self._live.update(self._picture(snapshot), refresh=True)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            self._console.print(self._line(snapshot), soft_wrap=True)

    def _line(self, snapshot: Snapshot) -> str:
        best = ", ".join(f"{study} {value}" for study, value, *_ in self._methods(snapshot.trials) if value != "-")
        parts = [self._name, snapshot.phase, self._progress(snapshot), best]
        return " · ".join(part for part in parts if part)

    def _picture(self, snapshot: Snapshot) -> RenderableType:
        head, budget = Table.grid(padding=(0, 1)), self._plan.config.budget
        head.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=1.0, completed=fraction_spent(snapshot, budget, self._plan.rungs[-1]), width=24),
            self._progress(snapshot),
        )
        return Group(head, Text(f"  {snapshot.phase}"), self._lanes(snapshot), self._table(snapshot.trials))

    def _progress(self, snapshot: Snapshot) -> str:
        budget = self._plan.config.budget
        ended = sum(r.state not in UNDER_WAY for r in snapshot.trials)
        trials = f"{ended}/{budget.trials} trials" if budget.trials else f"{ended} trials"
        parts = [trials, f"{duration(snapshot.elapsed)} elapsed"]
        spent = fraction_spent(snapshot, budget, self._plan.rungs[-1])
        if snapshot.phase == "searching" and spent > 0.1:
            parts.append(f"about {duration(snapshot.elapsed * (1 - spent) / spent)} left")
        return " · ".join(parts)

    def _lanes(self, snapshot: Snapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        for lane, status in snapshot.lanes.items():
            working = " + ".join(f"{trial} {done}/{total}" for trial, (done, total) in status.working.items())
            table.add_row(f"  lane {lane}", working or "waiting", f"{status.busy:.0%} busy")
        missing = snapshot.expected_lanes - len(snapshot.lanes)
        if missing > 0:
            table.add_row("", f"{missing} of {snapshot.expected_lanes} lanes are starting", "")
        return table

    def _table(self, trials: tuple[TrialRecord, ...]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="")
        table.add_column("  method")
        for column in ("best", "trials", "running", "stopped", "lane time"):
            table.add_column(column, justify="right")
        for row in self._methods(trials):
            table.add_row(f"  {row[0]}", *row[1:])
        return table

    def _methods(self, trials: tuple[TrialRecord, ...]) -> list[tuple[str, str, str, str, str, str]]:
        rows = []
        for name, task in self._plan.tasks.items():
            sign = 1 if task.type.metric(task.data.config.metric).higher_is_better else -1
            for method in task.available:
                own = [r for r in trials if r.key.study == f"{name}/{method}"]
                label = method if len(self._plan.tasks) == 1 else f"{name}/{method}"
                rows.append((_best(own, sign), label, own))
        rows.sort(key=lambda row: -row[0])
        return [(label, *_method_row(own, abs(best))) for best, label, own in rows]


def _best(own: list[TrialRecord], sign: int) -> float:
    return max((sign * r.value for r in own if math.isfinite(r.value)), default=-math.inf)


def _method_row(own: list[TrialRecord], best: float) -> tuple[str, str, str, str, str]:
    states = Counter(r.state for r in own)
    return (
        f"{best:.4f}" if math.isfinite(best) else "-",
        str(len(own)),
        str(states["running"]),
        str(states["pruned"] + states["failed"]),
        duration(sum(r.lane_seconds for r in own)),
    )


def fraction_spent(snapshot: Snapshot, budget: Budget, steps: int) -> float:
    """How much of the tightest limit is spent, in 0..1; a trial under way counts by its last rung of ``steps``."""
    shares = [0.0]
    if budget.trials:
        done = sum(r.step / steps if r.state in UNDER_WAY else 1.0 for r in snapshot.trials)
        shares.append(done / budget.trials)
    if budget.wall_time:
        shares.append(snapshot.elapsed / budget.wall_time)
    if budget.lane_seconds:
        shares.append(snapshot.lane_seconds / budget.lane_seconds)
    return min(1.0, max(shares))


def task_line(name: str, task: TaskPlan) -> str:
    """What a task is made of."""
    data = task.data
    rows = {split: f"{table.num_rows:,}" for split, table in data.splits.items()}
    total = sum(table.num_rows for table in data.splits.values())
    parts = [
        name,
        task.type.name,
        f"{total:,} rows ({rows['train']} train, {rows['validation']} validation, {rows['test']} test)",
    ]
    if data.labels:
        parts += [f"{len(data.labels)} classes", f"majority {data.majority:.2f}"]
    if data.duplicates_removed:
        parts.append(f"{data.duplicates_removed:,} duplicates left out")
    if data.dropped:
        parts.append(f"{data.dropped:,} unusable rows left out")
    return " · ".join(parts)
