"""A method's best configuration in the final: what lanes answered, and what was predicted there."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, TrialRecord
from orchestrator.final.results import Scored

TEST_FILE = "test.parquet"


@dataclass(frozen=True)
class Candidate:
    """A method's best configuration and what lanes said of it.

    Args:
        record: the trial.
        answers: by retraining, ``None`` for the trial's own checkpoint.
        reason: why it was not in contention; empty for a finalist.
        note: what went wrong.
    """

    record: TrialRecord
    answers: Mapping[int | None, Answer]
    reason: str = ""
    note: str = ""

    @property
    def method(self) -> str:
        """Its name."""
        return self.record.key.method

    @property
    def scored(self) -> dict[int | None, Answer]:
        """The answers that hold a score."""
        return {n: one for n, one in self.answers.items() if one.status == "done" and one.checkpoint is not None}

    @property
    def failure(self) -> str:
        """Why there is no score."""
        return next((one.reason for one in self.answers.values() if one.reason), self.note or "it was cancelled")


def median_measurements(runs: Sequence[Scored]) -> dict[str, float]:
    """Medians over the seeds, and how far their scores spread."""
    names = dict.fromkeys(name for run in runs for name in run.measurements)
    found = {
        name: statistics.median(run.measurements[name] for run in runs if name in run.measurements) for name in names
    }
    spread = {"seed_spread": float(np.std([run.score for run in runs], ddof=1))} if len(runs) > 1 else {}
    return {**found, **spread}


def read_predictions(storage: Storage, checkpoint: str) -> pa.Table:
    """What a finalist predicted for every test row."""
    with tempfile.TemporaryDirectory() as folder:
        storage.download(f"{checkpoint}/{TEST_FILE}", Path(folder) / TEST_FILE)
        return parquet.read_table(Path(folder) / TEST_FILE)
