"""The live display of a running sweep. It fits 80 columns and is readable without colour."""

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

from orchestrator.cli.output.final_progress import final_line, final_table
from orchestrator.common.trial_types import TrialRecord
from orchestrator.common.units import counted, duration
from orchestrator.config import Budget
from orchestrator.planning.plan import SweepPlan, TaskPlan
from orchestrator.sweep.status import Phase, Snapshot

LINE_INTERVAL_S = 10.0
OPEN_STATES = ("running", "paused")


class SweepDisplay:
    """Shows the status of a sweep: live on a terminal, elsewhere as a line every ten seconds.

    Args:
        name: the sweep's name.
        plan: its plan.
        stream: stream to write to.
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
        self.restore_terminal()

    def restore_terminal(self) -> None:
        """End the live display, and show the cursor again."""
        if self._console.is_terminal:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show a status."""
        if self._console.is_terminal:
            self._live.update(self._table_view(snapshot), refresh=True)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            self._console.print(self._line(snapshot), soft_wrap=True)

    def _label(self, name: str) -> str:
        """Return the name of a study or a job, without the task where there is one task only."""
        return name if len(self._plan.tasks) > 1 else name.partition("/")[2]

    def _line(self, snapshot: Snapshot) -> str:
        if snapshot.final:
            methods = final_line(snapshot.final, self._label)
        else:
            methods = ", ".join(f"{name} {best}" for name, best, *_ in self._methods(snapshot.trials) if best != "-")
        parts = [self._name, snapshot.doing, self._progress(snapshot), methods, _preemptions(snapshot)]
        return " · ".join(part for part in parts if part)

    def _table_view(self, snapshot: Snapshot) -> RenderableType:
        head, budget = Table.grid(padding=(0, 1)), self._plan.config.budget
        head.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=1.0, completed=fraction_spent(snapshot, budget, self._plan.rungs[-1]), width=24),
            self._progress(snapshot),
        )
        final = snapshot.final
        table = final_table(final, self._label) if final else self._table(snapshot.trials)
        return Group(head, Text(f"  {snapshot.doing}"), self._lanes(snapshot), table)

    def _progress(self, snapshot: Snapshot) -> str:
        budget = self._plan.config.budget
        ended = sum(trial.state not in OPEN_STATES for trial in snapshot.trials)
        trials = f"{ended}/{budget.trials} trials" if budget.trials else f"{ended} trials"
        parts = [trials, f"{duration(snapshot.elapsed)} elapsed"]
        spent = fraction_spent(snapshot, budget, self._plan.rungs[-1])
        seconds_left = snapshot.final.seconds_left if snapshot.final else None
        if snapshot.phase is Phase.SEARCHING and spent > 0.1:
            seconds_left = snapshot.elapsed * (1 - spent) / spent
        if seconds_left is not None:
            parts.append(f"about {duration(seconds_left)} left")
        return " · ".join(parts)

    def _lanes(self, snapshot: Snapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        for lane, status in snapshot.lanes.items():
            working = " + ".join(f"{self._label(job)} {done}/{total}" for job, (done, total) in status.working.items())
            table.add_row(f"  lane {lane}", working or "idle", f"{status.busy:.0%} busy")
        missing = snapshot.expected_lanes - len(snapshot.lanes)
        if missing > 0:
            table.add_row("", f"{missing} of {snapshot.expected_lanes} lanes are starting", "")
        if preemptions := _preemptions(snapshot):
            table.add_row("", preemptions, "")
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
            sign = task.type.optimized.sign
            for method in task.available:
                records = [trial for trial in trials if trial.key.study == f"{name}/{method}"]
                rows.append((_best(records, sign), self._label(f"{name}/{method}"), records))
        rows.sort(key=lambda row: -row[0])
        return [(label, *_method_cells(records, abs(best))) for best, label, records in rows]


def _preemptions(snapshot: Snapshot) -> str:
    nodes, jobs = snapshot.drained_nodes, snapshot.moved_jobs
    return f"{counted(nodes, 'node')} taken back, {counted(jobs, 'training')} moved" if nodes else ""


def _best(trials: list[TrialRecord], sign: int) -> float:
    return max((sign * trial.value for trial in trials if math.isfinite(trial.value)), default=-math.inf)


def _method_cells(trials: list[TrialRecord], best: float) -> tuple[str, str, str, str, str]:
    states = Counter(trial.state for trial in trials)
    return (
        f"{best:.4f}" if math.isfinite(best) else "-",
        str(len(trials)),
        str(states["running"]),
        str(states["pruned"] + states["failed"]),
        duration(sum(trial.lane_seconds for trial in trials)),
    )


def fraction_spent(snapshot: Snapshot, budget: Budget, steps: int) -> float:
    """Return the spent fraction of the tightest limit of a budget, in 0..1.

    Args:
        snapshot: status of the sweep.
        budget: its limits.
        steps: optimizer steps of a full training; an open trial counts by its steps up to its last rung.
    """
    fractions = [0.0]
    if budget.trials:
        done = sum(trial.step / steps if trial.state in OPEN_STATES else 1.0 for trial in snapshot.trials)
        fractions.append(done / budget.trials)
    if budget.wall_time:
        fractions.append(snapshot.elapsed / budget.wall_time)
    if budget.lane_seconds:
        fractions.append(snapshot.lane_seconds / budget.lane_seconds)
    return min(1.0, max(fractions))


def task_line(name: str, task: TaskPlan) -> str:
    """Return a line on a task: type, rows by split, classes, and rows that were left out."""
    data = task.data
    rows = {split: f"{count:,}" for split, count in data.rows.items()}
    total, samples = sum(data.rows.values()), sum(table.num_rows for table in data.splits.values())
    parts = [
        name,
        task.type.name,
        f"{total:,} rows ({rows['train']} train, {rows['validation']} validation, {rows['test']} test)",
    ]
    if samples > total:
        parts.append(f"{samples:,} samples, one for each of the assistant's turns")
    if data.majority is not None:
        parts += [f"{len(data.labels)} classes", f"majority class {data.majority:.0%}"]
    elif data.baseline is not None:
        label = task.type.metric(task.type.baseline_metric).label
        parts.append(f"{task.type.baseline_name}: {label} {data.baseline:.3f}")
    elif data.labels:
        parts.append(f"{len(data.labels)} labels")
    if data.duplicates_removed:
        parts.append(f"{data.duplicates_removed:,} duplicates removed")
    if data.dropped:
        parts.append(f"{data.dropped:,} unusable rows removed")
    return " · ".join(parts)
