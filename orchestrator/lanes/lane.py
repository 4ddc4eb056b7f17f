"""What a lane has in memory: backbones, rows, and the trials that it may soon go on with."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import torch
from pyarrow import parquet
from safetensors import SafetensorError

from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.store import fetch
from orchestrator.common.errors import describe_error
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job, checkpoint_path, partial_state_path
from orchestrator.engine.forgetting import NeutralText
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.measurements import Latencies, standard_error_measurement
from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.setup import LaneSetup
from orchestrator.tasks import Evaluation

log = logging.getLogger(__name__)
STATE, STEP = "state.safetensors", "step"


class BackboneWrittenError(RuntimeError):
    """A trial wrote to what all share. Its lane ends, and starts again from the file."""


@dataclass(frozen=True)
class Ended:
    """A job that is done but for bringing what it saved to the storage.

    Args:
        answer: true once that is there.
        folder: what was saved; ``None`` where another worker of the lane has it.
        storage: of the sweep.
    """

    answer: Answer
    folder: TemporaryDirectory[str] | None
    storage: Storage

    def write(self) -> Answer:
        """Bring it there; may be called in any thread.

        Raises:
            OSError: if the storage does not take it.
        """
        if self.folder:
            with self.folder as folder:
                self.storage.upload(Path(folder) / STEP, str(self.answer.checkpoint))
        return self.answer


class Lane:
    """What one lane has in memory.

    Args:
        setup: of the sweep.
        device: where it computes.
        dtype: what frozen layers multiply in.
        ranks: this worker's place in the lane; all workers begin and end the same jobs in the same order.
    """

    def __init__(self, setup: LaneSetup, device: torch.device, dtype: torch.dtype, ranks: Ranks = ALONE) -> None:
        self.setup, self.device, self.dtype, self.ranks = setup, device, dtype, ranks
        self._storage = Storage(setup.storage)
        self._backbones: dict[str, SharedBackbone] = {}
        self._rows: dict[str, TaskDataset] = {}
        self._prefixes: dict[str, FrozenPrefix] = {}
        self._micro_batch_memory = MicroBatchMemory()
        self._latencies = Latencies()
        self._warm: OrderedDict[str, TrialRun] = OrderedDict()
        self._neutral: dict[str, NeutralText | None] = {}
        self.fingerprints: dict[str, int] = {}

    def begin(self, job: Job) -> TrialRun:
        """The trial of a job, where it was left off: under way, still warm, from its checkpoint, or fresh.

        One whose checkpoint is missing or damaged begins anew: the whole way to where the job ends.
        """
        run = self._left_off(job)
        self.ranks.broadcast_parameters(run.parameters)
        run.job = job
        if job.start or run.step:
            run.go_on()
        if not run.trains:
            run.step = job.stop
        return run

    def keep(self, run: TrialRun) -> None:
        """Save a trial on its way, if its job says so, in the place of what was kept before."""
        every = run.job.keep_every
        if every and run.step < run.job.stop and run.step % every == 0:
            self.ranks.run_on_all_ranks(partial(self._keep, run))

    def _keep(self, run: TrialRun) -> None:
        self._prove_unchanged(run.job.trial.task)
        if self.ranks.is_rank_zero:
            with TemporaryDirectory() as folder:
                run.save(place := Path(folder) / "state", resumable=True)
                self._storage.upload(place, f"{self.setup.sweep}/{partial_state_path(run.job)}")

    def end(self, run: TrialRun) -> Ended:
        """Score, save, and keep warm what may go on soon."""
        job = run.job
        evaluation = run.evaluate(job.split) if job.split else None
        retrained = job.split == "test" and job.retraining is not None
        validation = run.evaluate("validation").metrics if retrained else {}
        ended = self.ranks.run_on_all_ranks(lambda: self._settle(run, evaluation, validation))
        if run.step < job.total:
            self._warm[job.name] = run
            while len(self._warm) > self.setup.pack + 1:
                self._warm.popitem(last=False)
        return ended

    def _settle(self, run: TrialRun, evaluation: Evaluation | None, validation: dict[str, float]) -> Ended:
        """See that the backbone is as it was, then measure and save, which the first worker does for all."""
        job = run.job
        self._prove_unchanged(job.trial.task)
        folder = self._saved(run, evaluation) if self.ranks.is_rank_zero else None
        # Apart from the rung's own: a rung that was cancelled late may still be writing there.
        path = checkpoint_path(job.trial, run.step, job.retraining) + ("-test" if job.split == "test" else "")
        metrics, measurements = evaluation.metrics if evaluation else {}, dict(run.measurements)
        answer = Answer(
            status="done",
            step=run.step,
            metrics=metrics,
            validation=validation,
            checkpoint=path,
            measurements=measurements,
        )
        return Ended(answer, folder, self._storage.sub(self.setup.sweep))

    def _saved(self, run: TrialRun, evaluation: Evaluation | None) -> TemporaryDirectory[str]:
        folder = TemporaryDirectory()
        place = Path(folder.name) / STEP
        place.mkdir()
        self._measure(run, evaluation)
        if evaluation and run.job.split == "test":
            parquet.write_table(evaluation.predictions, place / "test.parquet")
        run.save(place, resumable=run.step < run.job.total)
        return folder

    def _measure(self, run: TrialRun, evaluation: Evaluation | None) -> None:
        """What is told of a trial at its end beside its score."""
        job, task = run.job, run.job.trial.task
        if job.split == "test":
            run.measurements |= self._forgetting(run)
        elif evaluation and run.step >= job.total:
            run.measurements |= standard_error_measurement(self.rows(task), evaluation)
        if (run.step >= job.total or job.split == "test") and "latency_overhead_1" not in run.measurements:
            run.measurements |= self._latencies.measurements(run.attached, job, self.backbone(task), self.rows(task))

    def backbone(self, task: str) -> SharedBackbone:
        """The task's backbone, mapped at its first use."""
        if task not in self._backbones:
            own = self.setup.tasks[task]
            self._backbones[task] = load(
                fetch(own.backbone, self._storage),
                own.config.type,
                name=self.setup.model,
                dtype=self.dtype,
                labels=own.labels,
                device=self.device.type,
                original=fetch(own.original, self._storage) if own.original else None,
            )
            self.fingerprints[task] = self._backbones[task].fingerprint()
        return self._backbones[task]

    def rows(self, task: str) -> TaskDataset:
        """The task's tokenized rows, mapped at their first use."""
        if task not in self._rows:
            own = self.setup.tasks[task]
            tables = {split: ray.get(reference) for split, reference in own.splits.items()}
            decoder = self.backbone(task).decoder
            self._rows[task] = TaskDataset(
                own.config,
                tables,
                own.pad,
                decoder,
                self.setup.training,
                self.setup.seed,
                self._storage.sub(self.setup.sweep),
                own.names,
                self.ranks,
            )
        return self._rows[task]

    def _forgetting(self, run: TrialRun) -> dict[str, float]:
        """What the adapter does to neutral text, against the bare backbone, which is read once."""
        task = run.job.trial.task
        if task not in self._neutral:
            self._neutral[task] = NeutralText.of(self.backbone(task), self.rows(task))
        neutral = self._neutral[task]
        return {} if neutral is None else {"forgetting": neutral.forgetting(run.attached)}

    def _sources(self, task: str) -> dict[str, TaskDataset]:
        own = self.setup.tasks.get(task)
        return {name: self.rows(name) for name in own.config.source_tasks} if own else {}

    def _prefix(self, task: str) -> FrozenPrefix:
        if task not in self._prefixes:
            self._prefixes[task] = FrozenPrefix(self.backbone(task))
        return self._prefixes[task]

    def _left_off(self, job: Job) -> TrialRun:
        """From the first of the places where all workers of the lane find it."""
        for find in (self._kept, self._remembered, self._restored):
            run = self.ranks.run_on_all_ranks(partial(find, job))
            steps = self.ranks.all_gather_object(run.step if run else None)
            if run and len(set(steps)) == 1:
                return run
        return self.ranks.run_on_all_ranks(partial(self._fresh, job))

    def _remembered(self, job: Job) -> TrialRun | None:
        run = self._warm.pop(job.name, None)
        return run if run and run.step == job.start and run.job.params == job.params else None

    def _fresh(self, job: Job) -> TrialRun:
        task = job.trial.task
        backbone, rows = self.backbone(task), self.rows(task)
        training, sources = self.setup.training, self._sources(task)
        return TrialRun(job, backbone, rows, training, sources, self._prefix(task), self._micro_batch_memory)

    def _restored(self, job: Job) -> TrialRun | None:
        """Where the job's checkpoint left off, if it has one that can be used."""
        return self._resumed(job, job.checkpoint) if job.checkpoint else None

    def _kept(self, job: Job) -> TrialRun | None:
        """Where a lane that did the same job had come to."""
        path = partial_state_path(job)
        there = job.keep_every and self._storage.exists(f"{self.setup.sweep}/{path}")
        return self._resumed(job, path) if there else None

    def _resumed(self, job: Job, checkpoint: str) -> TrialRun | None:
        run = self._fresh(job)
        try:
            self._restore(run, checkpoint)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("trial %s begins anew: %s cannot be used (%s)", job.trial, checkpoint, describe_error(error))
            return None
        return run

    def _restore(self, run: TrialRun, checkpoint: str) -> None:
        path = f"{self.setup.sweep}/{checkpoint}"
        if self._storage.is_local:
            _restore(run, self._storage.local(path))
            return
        with TemporaryDirectory() as folder:
            self._storage.download(path, Path(folder) / STEP)
            _restore(run, Path(folder) / STEP)

    def _prove_unchanged(self, task: str) -> None:
        if self._backbones[task].fingerprint() != self.fingerprints[task]:
            raise BackboneWrittenError("it wrote to the shared backbone")


def _restore(run: TrialRun, folder: Path) -> None:
    """Only a trial at its end can do without the optimizer's state."""
    if run.job.start < run.job.total and not (folder / STATE).is_file():
        raise FileNotFoundError(f"there is no {STATE}")
    run.restore(folder)
