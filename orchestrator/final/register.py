"""Registration of a task's methods in the model registry."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import methods
from orchestrator.backbone.checkpoint import Header
from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.backbone.store import fetch
from orchestrator.common.storage import Storage
from orchestrator.common.uris import masked_first_line
from orchestrator.final.bundle_fields import describe
from orchestrator.final.peft_agreement import peft_agreement
from orchestrator.final.results import TaskOutcome, read_predictions
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.results import MethodResult
from orchestrator.tracking.bundle import Bundle, write_bundle
from orchestrator.tracking.error_tables import ErrorTables
from orchestrator.tracking.evaluation import with_digests, with_rows
from orchestrator.tracking.modelcard import model_card
from orchestrator.tracking.registry import Registered, register

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Registrar:
    """Registers the methods that a sweep found for one task.

    Args:
        plan: plan of the sweep.
        sweep: name of the sweep.
        outcome: outcome of the task.
        backbone: backbone that the adapters are attached to.
        lane: status of any lane; all have the same device, dtype and number of threads.
        storage: storage of backbones and of the sweep's folder.
        run_id: MLflow run of the task.
        trial_run: function that returns the MLflow run of a trial, to which its model belongs; ``None`` where there is
            none, and the model belongs to the task's.
    """

    plan: SweepPlan
    sweep: str
    outcome: TaskOutcome
    backbone: PreparedBackbone
    lane: LaneStatus
    storage: Storage
    run_id: str
    trial_run: Callable[[str], str | None] = lambda _: None

    def register_all(self) -> dict[str, Registered]:
        """Register the recommended method, and each method that is tied with it, under the task's name.

        The recommended one comes first: versions of one sweep do not challenge each other. A tied one that cannot be
        registered is noted in the outcome, and the others are registered all the same.

        Returns:
            Versions by method, the recommended one first.

        Raises:
            SweepError: if the recommended one cannot be registered.
        """
        champion, *tied = self.outcome.tied
        versions = {champion.method: self.register(champion)}
        for result in tied:
            try:
                versions[result.method] = self.register(result)
            except Exception as error:  # of any kind: the champion is registered already
                log.exception("%s, tied with the champion, was not registered", result.method)
                why = masked_first_line(error)
                again = f"peft-sweep resume {self.sweep} tries again"
                self.outcome.notes.append(f"{result.method} (tied) was not registered: {why}; {again}")
        return versions

    def register(self, result: MethodResult) -> Registered:
        """Write a method's bundle, and register it.

        Raises:
            SweepError: if MLflow refuses, or cannot be reached for minutes.
        """
        config = self.plan.config
        with tempfile.TemporaryDirectory() as folder:
            return register(
                self._write_bundle(result, Path(folder)),
                run_id=self.trial_run(result.trial) or self.run_id,
                parent_run_id=self.run_id,
                tracking_uri=config.mlflow.tracking_uri,
                registry_uri=config.mlflow.registry_uri,
            )

    def _write_bundle(self, result: MethodResult, folder: Path) -> Path:
        assert result.checkpoint is not None
        bundle = describe(self.plan, self.sweep, self.outcome, result, self.backbone, self.lane)
        sweep_storage, checkpoint = self.storage.sub(self.sweep), result.checkpoint.checkpoint
        file = fetch(self.backbone.quantized.digest, self.storage)
        rows = self.outcome.plan.data.splits["test"]
        sweep_storage.download(f"{checkpoint}/adapter", folder / "adapter")
        sweep_storage.download("tokenizer", folder / "tokenizer")
        predictions = read_predictions(sweep_storage, checkpoint)
        if methods.get(bundle.method).peft:
            agreement = peft_agreement(self.plan, self.outcome.plan, folder / "adapter", predictions)
            bundle = bundle.model_copy(update={"peft_agreement": agreement})
        errors = ErrorTables.of(bundle.task_type, rows, predictions)
        evaluation = with_rows if self.plan.config.mlflow.keep_test_rows else with_digests
        write_bundle(
            folder / "bundle",
            bundle,
            adapter=folder / "adapter",
            tokenizer=folder / "tokenizer",
            config=Header.read(file).config,
            evaluation=evaluation(rows, predictions),
            card=self._card(bundle, errors),
            tables=errors.files(),
            backbone=None if self.plan.source.portable else file,
        )
        return folder / "bundle"

    def _card(self, bundle: Bundle, errors: ErrorTables) -> str:
        outcome = self.outcome
        results = [result for role, result in outcome.results() if role != "default"]
        return model_card(
            bundle,
            results,
            trials={result.method: outcome.trials_of(result.method) for result in results},
            untuned=outcome.untuned,
            peft=methods.get(bundle.method).peft,
            errors=errors,
        )
