"""Fill in the bundle of a registered method from the sweep's plan and results."""

from __future__ import annotations

from orchestrator.backbone.licence import licence_of
from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.final.results import TaskOutcome
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection
from orchestrator.tracking.bundle import Bundle, BundleBackbone, BundleBaseline, BundleSelection, Environment


def describe(
    plan: SweepPlan,
    sweep: str,
    outcome: TaskOutcome,
    result: MethodResult,
    backbone: PreparedBackbone,
    lane: LaneStatus,
) -> Bundle:
    """Return the bundle of a method.

    Args:
        plan: plan of the sweep.
        sweep: name of the sweep.
        outcome: outcome of the task.
        result: result of the method, with its kept checkpoint.
        backbone: backbone that the adapter is attached to.
        lane: status of any lane; all have the same device, dtype and number of threads.
    """
    config, data = plan.config, outcome.plan.data
    task, settings, metric = data.config, config.backbone, outcome.selection.metric
    assert result.checkpoint is not None
    return Bundle(
        task=data.name,
        type=task.type,
        labels=data.labels,
        constants=dict(data.constants),
        columns=task.input_columns,
        max_length=config.training.max_length,
        evaluation_batch=config.training.evaluation_batch,
        max_new_tokens=task.generated_tokens,
        sampling=task.sampled,
        backbone=BundleBackbone(
            model=config.resolved()["backbone"]["model"],
            revision=plan.source.revision,
            quantization=settings.quantization,
            double_quantization=settings.double_quantization,
            compute_dtype=lane.dtype,
            digest=backbone.quantized.digest,
            checksum=backbone.checksum,
            licence=licence_of(plan.source),
        ),
        environment=Environment.here(
            lane.threads, lane.device, **lane.gpu, trainable_products=config.gpu.trainable_products
        ),
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        mean_score=result.mean_score,
        checkpoint_score=result.checkpoint_score,
        seed_scores=result.seed_scores,
        interval=result.interval,
        selection=bundle_selection(outcome.selection),
        metrics=result.checkpoint.metrics,
        other_scores={name: (mean, low, high) for name, (mean, low, high) in result.other_scores.items()},
        majority=data.majority,
        baseline=data.baseline,
        rows=data.rows,
        trivial=bundle_baseline(outcome.selection, result),
        collapsed_seeds=result.collapsed_seeds,
        data_digest=data.digest,
        sweep=sweep,
        trial=result.trial,
        method=result.method,
        params=dict(outcome.record(result).params),
        measurements={**result.measurements, "backbone_bytes": float(backbone.quantized.size)},
    )


def bundle_baseline(selection: Selection, result: MethodResult) -> BundleBaseline | None:
    """Return what a bundle records of the best trivial predictor; ``None`` where there is none."""
    if selection.baseline is None or result.baseline_lead is None:
        return None
    (lead, low), baseline = result.baseline_lead, selection.baseline
    return BundleBaseline(name=baseline.name, score=baseline.score, interval=baseline.interval, lead=lead, lead_low=low)


def bundle_selection(selection: Selection) -> BundleSelection:
    """Return what a bundle records of the sweep's selection."""
    runner_up = next((result for result in selection.scored if result.method != selection.recommended), None)
    return BundleSelection(
        recommended=selection.recommended,
        reason=selection.reason,
        tied=selection.tied,
        probability=selection.probability,
        look=selection.look,
        runner_up=runner_up.method if runner_up else "",
        runner_up_reason=why_not_recommended(runner_up, selection) if runner_up else "",
    )


def why_not_recommended(result: MethodResult, selection: Selection) -> str:
    """Return why a method is not the recommended one, a clause."""
    low, high = result.interval
    score = f"{result.mean_score:.3f} [{low:.3f}, {high:.3f}]"
    if result.tied:
        return f"{score}, tied with {selection.recommended}; prefer: {selection.prefer} decided"
    if behind := selection.behind(result):
        return f"{score}, {behind}"
    if result.cut:
        return f"{score}, {result.reason}"
    return f"{score}, eliminated by the validation screening: {result.reason}"
