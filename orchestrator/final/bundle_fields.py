"""What is recorded of a method in the registry: its bundle's facts, and its place beside the others."""

from __future__ import annotations

from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.config import ClassificationTask
from orchestrator.final.results import Finalist, TaskOutcome
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.recommend import amount, cost
from orchestrator.selection.selection import Entry, Selection
from orchestrator.tracking.bundle import Bundle, BundleBackbone, Comparison, Environment
from orchestrator.tracking.modelcard import Compared


def describe(
    plan: SweepPlan, sweep: str, outcome: TaskOutcome, one: Finalist, backbone: PreparedBackbone, lane: LaneStatus
) -> Bundle:
    """Everything that is recorded of a finalist.

    Args:
        plan: of the sweep.
        sweep: its name.
        outcome: what it found for the task.
        one: of its finalists.
        backbone: that it is attached to.
        lane: one that scored it; all are alike.
    """
    config, data = plan.config, outcome.plan.data
    task, settings = data.config, config.backbone
    return Bundle(
        task=data.name,
        type=task.type,
        labels=data.labels,
        column=task.text if isinstance(task, ClassificationTask) else "prompt",
        max_length=config.training.max_length,
        evaluation_batch=config.training.evaluation_batch,
        max_new_tokens=32 if isinstance(task, ClassificationTask) else task.max_new_tokens,
        backbone=BundleBackbone(
            model=config.resolved()["backbone"]["model"],
            revision=plan.source.revision,
            quantization=settings.quantization,
            double_quantization=settings.double_quantization,
            compute_dtype=lane.dtype,
            digest=backbone.quantized.digest,
            checksum=backbone.checksum,
        ),
        environment=Environment.here(lane.threads, lane.device),
        metric=task.metric,
        higher_is_better=outcome.plan.type.metric(task.metric).higher_is_better,
        score=one.own_score,
        interval=one.interval,
        comparison=comparison(outcome.selection, one),
        metrics=one.metrics,
        majority=data.majority,
        rows={split: table.num_rows for split, table in data.splits.items()},
        data_digest=data.digest,
        sweep=sweep,
        trial=str(one.record.key),
        method=one.record.key.method,
        params=dict(one.record.params),
        measurements=one.measurements,
    )


def comparison(selection: Selection, one: Finalist) -> Comparison:
    """What the sweep says of it beside the others."""
    second = next((entry for entry in selection.scored if entry.method != selection.recommended), None)
    return Comparison(
        score=one.score,
        scores=tuple(scored.score for scored in one.scored),
        recommended=selection.recommended,
        reason=selection.reason,
        tied=selection.tied,
        runner_up=second.method if second else "",
        runner_up_lost=lost(second, selection) if second else "",
    )


def lost(entry: Entry, selection: Selection) -> str:
    """Why a method is not the recommended one; a sentence."""
    low, high = entry.interval
    score = f"{entry.score:.3f} [{low:.3f}, {high:.3f}]"
    if entry.tied:
        return f"with {score} it cannot be told apart from {selection.recommended}; prefer: {selection.prefer} decided."
    if entry.gap is not None:
        return f"with {score} it is at least {entry.gap:.3f} behind the best."
    return f"with {score} it was not in contention: {entry.reason or 'behind on validation'}."


def compared(outcome: TaskOutcome) -> list[Compared]:
    """The finalists as the model card lists them."""
    return [_line(outcome, one) for one in outcome.finalists]


def _line(outcome: TaskOutcome, one: Finalist) -> Compared:
    method, untuned = one.record.key.method, one.role == "default"
    size, memory, latency = (amount(which, cost(one.measurements, which)) for which in ("size", "memory", "latency"))
    return Compared(
        method=f"{method} (untuned)" if untuned else method,
        trials=1 if untuned else outcome.trials_of(method),
        validation=one.record.value,
        test=one.score,
        interval=one.interval,
        seeds=max(1, len(one.scored)),
        verdict="" if untuned else _verdict(outcome.selection, method),
        costs=(size, memory, latency.removesuffix(" latency")),
    )


def _verdict(selection: Selection, method: str) -> str:
    entry = selection.entry(method)
    if method == selection.recommended:
        return "recommended"
    if entry.tied:
        return "tied"
    return "not in contention" if entry.gap is None else f"at least {entry.gap:.3f} behind"
