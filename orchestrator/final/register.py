"""From what a sweep found for a task to versions in the model registry."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import methods
from orchestrator.backbone.checkpoint import Header
from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.backbone.store import fetch
from orchestrator.common.storage import Storage
from orchestrator.final.bundle_fields import compared, describe
from orchestrator.final.retrain import Finalist, TaskOutcome, read_predictions
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.tracking.bundle import evaluation_table, write_bundle
from orchestrator.tracking.connection import masked_first_line
from orchestrator.tracking.modelcard import model_card
from orchestrator.tracking.registry import Registered, register

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Registrar:
    """Registers what a sweep found for one task.

    Args:
        plan: of the sweep.
        sweep: its name.
        outcome: what it found.
        backbone: that the adapters are attached to.
        lane: one that scored them; all are alike.
        storage: where backbones and the sweep's folder are.
        run_id: the task's MLflow run.
    """

    plan: SweepPlan
    sweep: str
    outcome: TaskOutcome
    backbone: PreparedBackbone
    lane: LaneStatus
    storage: Storage
    run_id: str

    def register_all(self) -> dict[str, Registered]:
        """The recommended method, and the best of each that is tied with it, under the task's name.

        The recommended one comes first: versions of one sweep do not challenge each other. A tied one that cannot be
        registered is noted in the outcome, and no reason to lose the others.

        Returns:
            By method, the recommended first.

        Raises:
            SweepError: if the recommended one cannot be registered.
        """
        champion = self.outcome.champion
        made = {champion.record.key.method: self.register(champion)}
        for one in self.outcome.tied:
            if one is champion:
                continue
            method = one.record.key.method
            try:
                made[method] = self.register(one)
            except Exception as error:  # whatever it is, the champion is there already
                log.exception("%s, tied with the champion, was not registered", method)
                self.outcome.notes.append(f"{method}, tied with it, was not registered: {masked_first_line(error)}")
        return made

    def register(self, one: Finalist) -> Registered:
        """Put a finalist's bundle together, and register it.

        Raises:
            SweepError: if MLflow refuses, or is away for minutes.
        """
        config = self.plan.config
        with tempfile.TemporaryDirectory() as place:
            return register(
                self._bundle(one, Path(place)),
                run_id=self.run_id,
                tracking_uri=config.mlflow.tracking_uri,
                registry_uri=config.mlflow.registry_uri,
            )

    def _bundle(self, one: Finalist, place: Path) -> Path:
        bundle = describe(self.plan, self.sweep, self.outcome, one, self.backbone, self.lane)
        own = self.storage.sub(self.sweep)
        file = fetch(self.backbone.quantized.digest, self.storage)
        rows = self.outcome.plan.data.splits["test"]
        own.download(f"{one.checkpoint}/adapter", place / "adapter")
        own.download("tokenizer", place / "tokenizer")
        write_bundle(
            place / "bundle",
            bundle,
            adapter=place / "adapter",
            tokenizer=place / "tokenizer",
            config=Header.read(file).config,
            evaluation=evaluation_table(rows, read_predictions(own, one.checkpoint)),
            card=model_card(bundle, compared(self.outcome), peft=methods.get(bundle.method).peft),
            backbone=None if self.plan.source.portable else file,
        )
        return place / "bundle"
