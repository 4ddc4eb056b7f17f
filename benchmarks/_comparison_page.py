"""The page of the comparison: tables and a picture of what was trained, and a statement of what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._comparison_picture import draw
from benchmarks._comparison_pieces import Comparison, Record, best_trials
from orchestrator.common.units import size
from orchestrator.selection.evidence import Evidence, MethodSample, gather
from orchestrator.selection.tied_set import ranks
from orchestrator.tasks import TASK_TYPES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).with_name("comparison")
PUBLISHED = FOLDER / "records.parquet"
PAGE, PICTURE = ROOT / "docs" / "comparison.md", ROOT / "docs" / "comparison.svg"
LEVEL = 0.95
HEAD = """# Comparison of methods

Written by `python -m benchmarks.comparison --page`; `python -m benchmarks.comparison` trains what is missing. The
backbone is MiniLM in NF4, the tasks are described in `benchmarks/_recorded_tasks.py`.
"""
RULES = """Each configuration is one trial of {steps} steps: a method's default, or a random one from its search space,
trained once and scored on validation rows. *Tuned by* is how much better the best of a method's trials is than its
default, on those rows: the best of several is chosen by its score, so that it is too high by chance, as its test score
shows where it was trained anew.

The best configurations of the finalists were trained anew with {seeds} other seeds and scored on the test rows. Test
scores are means over seeds. Their intervals cover rows and seeds, and hold for all retrained methods of a task together
(95 %, Bonferroni); which are tied is by multiple comparison with the best, as in a sweep. They do not cover how well a
method was tuned, and other tasks, backbones and numbers of steps may order the methods differently.

Sizes, memory and time are of the first retraining, or of the trial if there is none, and empty where they were not
recorded: the adapter's file, the parameters that train without the head, the most memory that training took beside the
backbone, and the CPU time of a step on one thread.
"""


@dataclass(frozen=True)
class Final:
    """A finalist's result on the test rows.

    Args:
        score: Mean over the seeds.
        interval: Its simultaneous interval.
        gap: Lower bound of the distance to the best finalist; 0 if it is tied with it.
    """

    score: float
    interval: tuple[float, float]
    gap: float


def publish_page(records: Sequence[Record], plan: Comparison, tasks: Sequence[str]) -> None:
    """Write the tables, the page and the picture."""
    FOLDER.mkdir(exist_ok=True)
    write_tables(records, FOLDER)
    PAGE.write_text(page(records, plan, tasks), encoding="utf-8")
    PICTURE.write_text(draw({task: scores(records, plan, task) for task in tasks}), encoding="utf-8")


def write_tables(records: Sequence[Record], folder: Path) -> None:
    """Write the pieces that no other table holds, and the learning curves of their trials."""
    import json

    new = [record for record in records if not record.get("recorded")]
    names = ("kind", "task", "method", "config_id", "steps", "seed", "score", "cpu_seconds")
    rows = [{name: record.get(name) for name in names} | {"record": json.dumps(record)} for record in new]
    pq.write_table(pa.Table.from_pylist(rows), folder / "records.parquet", compression="zstd")
    curves = [
        {name: record[name] for name in ("task", "method", "config_id", "standard_error")}
        | {"params": json.dumps(record["params"], sort_keys=True), **point}
        for record in new
        if record["kind"] == "trial" and record["score"] is not None
        for point in record["curve"]
    ]
    if curves:
        pq.write_table(pa.Table.from_pylist(curves), folder / "curves.parquet", compression="zstd")


def compare_finals(records: Sequence[Record], plan: Comparison, task: str) -> dict[str, Final]:
    """Return the results of the methods whose best trial was trained anew with all seeds, the best first."""
    described = next((r for r in records if r["kind"] == "task" and r["task"] == task), None)
    by_method = {
        method: runs
        for method, trial in best_trials(records, task, plan.steps).items()
        if len(runs := _finals_of(records, trial)) >= plan.seeds
    }
    if described is None or not by_method:
        return {}
    kind = TASK_TYPES["classification"]
    metric = kind.metric(described["metric"])
    samples = [
        MethodSample(
            tuple(run["score"] for run in runs),
            tuple(partial(kind.score_many, metric.name, predictions(described, run)) for run in runs),
        )
        for runs in by_method.values()
    ]
    evidence = gather(samples, len(described["truth"]), seed=0)
    gaps = [rank.gap for rank in ranks(evidence, metric, level=LEVEL)]
    results = {
        method: Final(float(evidence.means[k]), simultaneous(evidence, k, metric.bounds), gaps[k])
        for k, method in enumerate(by_method)
    }
    return dict(sorted(results.items(), key=lambda item: -item[1].score))


def simultaneous(evidence: Evidence, method: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of a mean that holds for all means together."""
    return evidence.interval(method, level=1 - (1 - LEVEL) / len(evidence.means), bounds=bounds)


def predictions(described: Record, run: Record) -> pa.Table:
    """Return what a retraining answered, as its task's metrics read it."""
    given, true = (np.array(list(map(int, digits))) for digits in (run["predicted"], described["truth"]))
    chosen = np.eye(len(described["labels"]))[given]
    probabilities = pa.FixedSizeListArray.from_arrays(pa.array(chosen.ravel()), chosen.shape[1])
    return pa.table({"row": np.arange(len(true)), "label": true.astype(np.int32), "probabilities": probabilities})


def scores(records: Sequence[Record], plan: Comparison, task: str) -> list[dict[str, Any]]:
    """Return a row per method that has a trial: its validation score, and its final if it has one; the best first."""
    finals, best = compare_finals(records, plan, task), best_trials(records, task, plan.steps)
    rows = []
    for method in sorted(best, key=lambda name: -best[name]["score"]):
        trials = [r for r in records if r["kind"] == "trial" and (r["task"], r["method"]) == (task, method)
                  and r["steps"] == plan.steps]  # fmt: skip
        default = next((r["score"] for r in trials if r["config_id"] == 0), None)
        measured = next((r for r in (*_finals_of(records, best[method]), best[method]) if r.get("measurements")), {})
        row = {"method": method, "trials": len(trials), "validation": best[method]["score"], "default": default}
        rows.append({**row, "final": finals.get(method), "measured": measured})
    return sorted(rows, key=lambda row: -row["final"].score if row["final"] else 1.0)


def page(records: Sequence[Record], plan: Comparison, tasks: Sequence[str]) -> str:
    """Return the page, with what it covers first."""
    parts = [HEAD, "## What it covers", coverage(records, plan, tasks)]
    parts += ["![Scores by method and task](comparison.svg)", RULES.format(steps=plan.steps, seeds=plan.seeds)]
    for task in tasks:
        if rows := scores(records, plan, task):
            described = next((r for r in records if r["kind"] == "task" and r["task"] == task), {})
            parts += [f"## {task}", _described(described, rows), _table(rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def coverage(records: Sequence[Record], plan: Comparison, tasks: Sequence[str]) -> str:
    """Return what was trained and what was not, as a table and a list of methods without any trial."""
    lines = [f"| task | methods with a trial, of {len(plan.methods)} | trials, of "
             f"{len(plan.methods) * plan.configurations:,} | retrained methods | refused or diverged |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    tried: dict[str, int] = dict.fromkeys(plan.methods, 0)
    for task in tasks:
        trials = [r for r in records if (r["kind"], r["task"], r.get("steps")) == ("trial", task, plan.steps)]
        names = {record["method"] for record in trials}
        tried |= {name: tried[name] + 1 for name in names if name in tried}
        retrained = compare_finals(records, plan, task)
        failed = sorted({record["method"] for record in trials if record["score"] is None})
        cells = (task, len(names), len(trials), f"{len(retrained)} of {plan.finalists}", ", ".join(failed) or "none")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    new = [record for record in records if record["kind"] != "task" and not record.get("recorded")]
    hours = sum(record["cpu_seconds"] for record in new) / 3600
    before = sum(bool(record.get("recorded")) for record in records)
    said = [
        "\n".join(lines),
        f"{before:,} of the trials are those of `benchmarks/curves`, which `python -m benchmarks.record_curves` trained"
        f" by the same rules; what else was trained ({len(new):,} runs) took {hours:.2f} CPU hours on one thread.",
    ]
    if new and (left := _left(records, plan, tasks)):
        needed = hours / len(new) * left
        said.append(
            f"{left:,} runs are missing, about {needed:.0f} CPU hours at the mean of those; slow types take more."
        )
    if missing := [f"`{name}`" for name, count in tried.items() if not count]:
        said.append(f"**Not compared at all** ({len(missing)} of {len(plan.methods)}): {', '.join(missing)}.")
    if any(0 < count < len(tasks) for count in tried.values()):
        some = [f"`{name}`" for name, count in tried.items() if 0 < count < len(tasks)]
        said.append(f"Compared on some of the tasks only: {', '.join(some)}.")
    return "\n\n".join(said)


def _left(records: Sequence[Record], plan: Comparison, tasks: Sequence[str]) -> int:
    """Return the runs that are missing: all trials, and the finals of as many methods as are to be retrained."""
    trials = 0
    for task in tasks:
        tried = {(r["method"], r["config_id"]) for r in records
                 if (r["kind"], r["task"], r.get("steps")) == ("trial", task, plan.steps)}  # fmt: skip
        trials += sum((name, k) not in tried for name in plan.methods for k in range(plan.configurations))
    retrained = sum(min(plan.finalists, len(compare_finals(records, plan, task))) for task in tasks)
    return trials + (plan.finalists * len(tasks) - retrained) * plan.seeds


def _finals_of(records: Sequence[Record], trial: Record) -> list[Record]:
    same = ("task", "method", "config_id", "steps")
    return [
        record
        for record in records
        if record["kind"] == "final" and record["score"] is not None and all(record[k] == trial[k] for k in same)
    ]


def _described(described: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if not described:
        return "Scores are macro-F1 on validation rows; nothing was scored on the test rows."
    trivial = ", ".join(f"{score:.3f} {name}" for name, score in described["trivial"].items())
    finals = [row["method"] for row in rows if row["final"]]
    tied = [f"`{row['method']}`" for row in rows if row["final"] and not row["final"].gap]
    found = f"Of the {len(finals)} that were retrained, {', '.join(tied)} may be the best." if len(finals) > 1 else ""
    return f"{described['metric']} on {described['rows']['test']:,} test rows; trivial predictors: {trivial}. {found}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| method | trials | validation | tuned by | test [interval] | result | file | trains | memory | step |",
             "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    is_alone = sum(bool(row["final"]) for row in rows) == 1
    for row in rows:
        gain = "" if row["default"] is None or row["trials"] < 2 else f"{row['validation'] - row['default']:+.3f}"
        cells = (
            f"`{row['method']}`",
            str(row["trials"]),
            f"{row['validation']:.3f}",
            gain,
            *_result(row["final"], is_alone),
        )
        lines.append(f"| {' | '.join((*cells, *_costs(row['measured'])))} |")
    return "\n".join(lines)


def _result(final: Final | None, is_alone: bool) -> tuple[str, str]:
    """Return a method's test score and how it compares; ``is_alone`` if no other method was retrained."""
    if final is None:
        return "", "not retrained"
    low, high = final.interval
    compared = "no other was retrained" if is_alone else f"at least {final.gap:.3f} worse" if final.gap else "tied"
    return f"{final.score:.3f} [{low:.3f}, {high:.3f}]", compared


def _costs(measured: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if not measured:
        return "", "", "", ""
    values = measured["measurements"]
    trained = values["trainable_parameters"] - values["head_parameters"]
    step = measured["train_cpu_seconds"] / measured["steps"]
    return size(values["adapter_bytes"]), f"{trained:,.0f}", size(values["peak_memory_bytes"]), f"{step:.2f} s"
