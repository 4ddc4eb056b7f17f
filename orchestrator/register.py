"""From a task's champion to a version in the model registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

import methods
from orchestrator.backbone.checkpoint import Header
from orchestrator.backbone.store import fetch
from orchestrator.config import ClassificationTask
from orchestrator.final import TaskOutcome, read_predictions
from orchestrator.lanes.broker import LaneStatus
from orchestrator.plan import SweepPlan
from orchestrator.prepare import PreparedBackbone
from orchestrator.storage import Storage
from orchestrator.tracking.bundle import Bundle, BundleBackbone, Environment, evaluation_table, write_bundle
from orchestrator.tracking.modelcard import Compared, model_card
from orchestrator.tracking.registry import Registered, register


def register_champion(
    plan: SweepPlan,
    sweep: str,
    outcome: TaskOutcome,
    backbone: PreparedBackbone,
    lane: LaneStatus,
    storage: Storage,
    run_id: str,
) -> Registered:
    """Put the champion's bundle together and register it under the task's name.

    Args:
        plan: of the sweep.
        sweep: its name.
        outcome: what it found for the task.
        backbone: that the champion is attached to.
        lane: one that scored it; all are alike.
        storage: where backbones and the sweep's folder are.
        run_id: the task's MLflow run.
    """
    config, champion = plan.config, outcome.champion
    bundle = describe(plan, sweep, outcome, backbone, lane)
    own = storage.sub(sweep)
    file = fetch(backbone.quantized.digest, storage)
    rows = outcome.plan.data.splits["test"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        own.download(f"{champion.checkpoint}/adapter", folder / "adapter")
        own.download("tokenizer", folder / "tokenizer")
        write_bundle(
            folder / "bundle",
            bundle,
            adapter=folder / "adapter",
            tokenizer=folder / "tokenizer",
            config=Header.read(file).config,
            evaluation=evaluation_table(rows, read_predictions(own, champion.checkpoint)),
            card=model_card(bundle, compared(outcome), peft=methods.get(bundle.method).peft),
            backbone=None if plan.source.portable else file,
        )
        return register(
            folder / "bundle",
            run_id=run_id,
            tracking_uri=config.mlflow.tracking_uri,
            registry_uri=config.mlflow.registry_uri,
        )


def describe(plan: SweepPlan, sweep: str, outcome: TaskOutcome, backbone: PreparedBackbone, lane: LaneStatus) -> Bundle:
    """Everything that is recorded of the champion."""
    config, champion, data = plan.config, outcome.champion, outcome.plan.data
    task = data.config
    settings = config.backbone
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
        higher_is_better=outcome.plan.type.higher_is_better(task.metric),
        score=champion.own_score,
        interval=champion.interval,
        metrics=champion.metrics,
        majority=data.majority,
        rows={split: table.num_rows for split, table in data.splits.items()},
        data_digest=data.digest,
        sweep=sweep,
        trial=str(champion.record.key),
        method=champion.record.key.method,
        params=dict(champion.record.params),
        facts=champion.facts,
    )


def compared(outcome: TaskOutcome) -> list[Compared]:
    """The finalists as the model card lists them."""
    return [
        Compared(
            method=one.record.key.method + (" (untuned)" if one.role == "default" else ""),
            trials=1 if one.role == "default" else outcome.trials_of(one.record.key.method),
            validation=one.record.value,
            test=one.score,
            interval=one.interval,
        )
        for one in outcome.finalists
    ]
