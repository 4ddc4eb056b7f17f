"""What a worker has in memory (backbones, datasets, paused trials), and how it begins and finishes a job with that."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TypeVar

import ray
import torch
from pyarrow import parquet
from safetensors import SafetensorError

from orchestrator.backbone.shared import SharedBackbone, assemble
from orchestrator.backbone.store import fetch
from orchestrator.backbone.stored import StoredBackbone, read_stored
from orchestrator.common.errors import describe_error
from orchestrator.common.retry import disk_error
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Curve, Job, checkpoint_path, partial_state_path
from orchestrator.engine.forgetting import NeutralText
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.measurements import LatencyCache, measure_if_possible, standard_error_measurement
from orchestrator.engine.memory import free_bytes
from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.out_of_memory import retry_with_released_memory
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.setup import LaneSetup
from orchestrator.lanes.step_watch import StepWatch, Subject, Work
from orchestrator.tasks import Evaluation

log = logging.getLogger(__name__)
STATE, STEP = "state.safetensors", "step"
PAUSED_MEMORY_FRACTION = 0.5
"""Most memory of paused trials, of what is free without them."""
ResultT = TypeVar("ResultT")


class BackboneWrittenError(RuntimeError):
    """A trial wrote to the shared backbone. Its lane ends, and a new one maps the file again."""


@dataclass(frozen=True)
class FinishedJob:
    """A finished job whose files are not in the storage yet.

    Args:
        answer: answer that holds once the files are there.
        folder: folder with the files; ``None`` if another worker of the lane has it.
        storage: the sweep's folder in the storage.
    """

    answer: Answer
    folder: TemporaryDirectory[str] | None
    storage: Storage

    def upload(self) -> Answer:
        """Upload the files and return the answer; may be called in any thread.

        Raises:
            StorageError: if the storage cannot be reached for minutes.
        """
        if self.folder:
            with self.folder as folder:
                self.storage.upload(Path(folder) / STEP, str(self.answer.checkpoint))
        return self.answer


class WorkerMemory:
    """What one worker of a lane has in memory: backbones and datasets of the tasks, and paused trials.

    Args:
        setup: setup of the sweep.
        device: device that computes.
        dtype: dtype of frozen products.
        ranks: this worker's rank in the lane; all workers begin and finish the same jobs in the same order.
        watch: notices when a trial's own code hangs. Waiting for the storage is no hang.
    """

    def __init__(
        self,
        setup: LaneSetup,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        watch: StepWatch | None = None,
    ) -> None:
        self.setup, self.device, self.dtype, self.ranks = setup, device, dtype, ranks
        self._watch = watch or StepWatch(setup.hangs)
        self._storage = Storage(setup.storage, setup.retry)
        self._stored: dict[str, StoredBackbone] = {}
        self._backbones: dict[str, SharedBackbone] = {}
        self._datasets: dict[str, TaskDataset] = {}
        self._prefixes: dict[str, FrozenPrefix] = {}
        self._micro_batch_memory = MicroBatchMemory(setup.token_limits)
        self._latencies = LatencyCache(self._watch.progress)
        self._paused: OrderedDict[str, TrialRun] = OrderedDict()
        self._neutral_texts: dict[str, NeutralText | None] = {}
        self.fingerprints: dict[str, int] = {}

    def begin(self, job: Job) -> TrialRun:
        """Return the trial of a job at its last known state.

        That is, in this order, the partial state that another lane saved during the same job, the trial paused in this
        memory, the job's checkpoint, or a new trial. A trial whose checkpoint is missing or damaged starts at step 0.
        """
        run = self._restore_or_start(job)
        self.ranks.broadcast_parameters(run.parameters)
        run.job = job
        if job.start or run.step:
            run.begin_job()
        if not run.trains:
            run.step = job.stop
        return run

    def save_partial_state(self, run: TrialRun) -> None:
        """Save a job's partial state if it is due, over the last one, for a lane that takes over the job."""
        every = run.job.partial_state_every
        if every and run.step < run.job.stop and run.step % every == 0:
            self.ranks.run_on_all_ranks(partial(self._upload_partial_state, run))

    def save_for_another_lane(self, run: TrialRun) -> bool:
        """Save a job's partial state, wherever it is.

        Returns:
            Whether there was one and it is in the storage. If not, the job is done again from its beginning.
        """
        if run.step == run.job.start or not run.trains:
            return False
        try:
            self.ranks.run_on_all_ranks(partial(self._upload_partial_state, run))
        except Exception as error:
            log.warning("trial %s goes on from step %d: %s", run.job.trial, run.job.start, describe_error(error))
            return False
        return True

    def _upload_partial_state(self, run: TrialRun) -> None:
        self._check_backbone(run.job.trial.task)
        if self.ranks.is_rank_zero:
            with self._write(run, lambda folder: run.save(folder / "state", resumable=True)) as folder:
                self._storage.upload(Path(folder) / "state", f"{self.setup.sweep}/{partial_state_path(run.job)}")

    def finish_job(self, run: TrialRun) -> FinishedJob:
        """Score and save a trial, and keep it in memory if it may continue."""
        job = run.job
        evaluation = self._evaluate(run, job.split) if job.split else None
        retrained = job.split == "test" and job.retraining is not None
        validation = self._evaluate(run, "validation").metrics if retrained else {}
        finished_job = self.ranks.run_on_all_ranks(lambda: self._measure_and_save(run, evaluation, validation))
        if run.step < job.total:
            self._keep(run)
        return finished_job

    def _evaluate(self, run: TrialRun, split: str) -> Evaluation:
        with self._watch.during(Work.scoring(split), [subject(run)]):
            return run.evaluate(split)

    def free(self) -> None:
        """Let go of paused trials, which have their checkpoints, and of cached activations."""
        self._paused.clear()
        for prefix in self._prefixes.values():
            prefix.clear()

    def _keep(self, run: TrialRun) -> None:
        """Keep a paused trial, so that it may go on without its checkpoint; drop the oldest where there are too many.

        On a GPU of 80 GB that trains 8 billion weights, a trial of ``last_layers`` holds 20 GB between two steps.
        """
        self._paused[run.job.name] = run
        held = {name: paused.held_bytes for name, paused in self._paused.items()}
        limit = PAUSED_MEMORY_FRACTION * (free_bytes(self.device) + sum(held.values()))
        while len(held) > self.setup.pack + 1 or sum(held.values()) > limit:
            name = next(iter(held))
            del held[name], self._paused[name]
        if self.device.type == "cuda":
            gc.collect()  # module trees are full of cycles, and Python does not know what they hold on a GPU

    def _measure_and_save(
        self, run: TrialRun, evaluation: Evaluation | None, validation: dict[str, float]
    ) -> FinishedJob:
        """Check the backbone, then measure and save the trial, which rank 0 does for all."""
        job = run.job
        self._check_backbone(job.trial.task)
        folder = self._save(run, evaluation) if self.ranks.is_rank_zero else None
        # A folder other than the rung's own: a rung that was cancelled late may still be uploading to that one.
        path = checkpoint_path(job.trial, run.step, job.retraining) + ("-test" if job.split == "test" else "")
        answer = Answer(
            status="done",
            step=run.step,
            metrics=evaluation.metrics if evaluation else {},
            validation=validation,
            checkpoint=path,
            measurements=dict(run.measurements),
            curve=curve_of_job(run),
        )
        return FinishedJob(answer, folder, self._storage.sub(self.setup.sweep))

    def _save(self, run: TrialRun, evaluation: Evaluation | None) -> TemporaryDirectory[str]:
        if measurements := self._measurements(run, evaluation):
            # Not at a rung that measures nothing: the watch would expect the measurements at the end to be as quick.
            with self._watch.during(Work.MEASURE, [subject(run)]):
                for name, measure in measurements.items():
                    run.measurements |= measure_if_possible(name, measure, run.job.trial, self.device)

        def write(folder: Path) -> None:
            target = folder / STEP
            target.mkdir()
            if evaluation and run.job.split == "test":
                parquet.write_table(evaluation.predictions, target / "test.parquet")
            run.save(target, resumable=run.step < run.job.total)

        return self._write(run, write)

    def _write(self, run: TrialRun, write: Callable[[Path], None]) -> TemporaryDirectory[str]:
        """Write a trial's files into a new folder; while the disk is full, wait and try again.

        Raises:
            StorageError: if the disk is full for minutes.
        """

        def attempt() -> TemporaryDirectory[str] | Exception:
            folder = TemporaryDirectory()
            try:
                with self._watch.during(Work.SAVE, [subject(run)]):
                    write(Path(folder.name))
            except Exception as error:
                folder.cleanup()
                if disk := disk_error(error):
                    raise disk from error
                return error  # the trial's own, which is not tried again
            return folder

        result = self.setup.retry.run(attempt, gettempdir())
        if isinstance(result, Exception):
            raise result
        return result

    def _measurements(self, run: TrialRun, evaluation: Evaluation | None) -> dict[str, Callable[[], dict[str, float]]]:
        """Return functions that measure a trial at its end, beside its score; one that fails costs no trial."""
        job, task = run.job, run.job.trial.task
        measurements: dict[str, Callable[[], dict[str, float]]] = {}
        if job.split == "test":
            measurements["forgetting"] = partial(self._forgetting, run)
        elif evaluation and run.step >= job.total:
            measurements["standard error"] = partial(standard_error_measurement, self.dataset(task), evaluation)
        if (run.step >= job.total or job.split == "test") and "latency_overhead_1" not in run.measurements:
            backbone, dataset = self.backbone(task), self.dataset(task)
            measurements["latency"] = partial(self._latencies.measure, run.attached, job, backbone, dataset)
        return measurements

    def backbone(self, task: str) -> SharedBackbone:
        """Return the backbone of a task, mapped at its first use."""
        if task not in self._backbones:
            task_setup = self.setup.tasks[task]
            original = fetch(task_setup.original, self._storage) if task_setup.original else None
            self._backbones[task] = assemble(
                self._stored_backbone(task_setup.backbone),
                task_setup.config.type,
                name=self.setup.model,
                labels=task_setup.labels,
                original=original,
                attention=self.setup.attention,
                gpu=self.setup.gpu,
            )
            self.fingerprints[task] = self._backbones[task].fingerprint()
        return self._backbones[task]

    def _stored_backbone(self, digest: str) -> StoredBackbone:
        """Return the tensors of a backbone, which all of its tasks share."""
        if digest not in self._stored:
            self._stored[digest] = read_stored(fetch(digest, self._storage), self.dtype, self.device)
        return self._stored[digest]

    def dataset(self, task: str) -> TaskDataset:
        """Return the dataset of a task, mapped at its first use."""
        if task not in self._datasets:
            task_setup = self.setup.tasks[task]
            tables = {split: ray.get(reference) for split, reference in task_setup.splits.items()}
            self._datasets[task] = TaskDataset(
                task_setup.config,
                tables,
                task_setup.pad,
                self.backbone(task).decoder,
                self.setup.training,
                self.setup.seed,
                self._storage.sub(self.setup.sweep),
                task_setup.names,
                self.ranks,
                task_setup.constants,
            )
        return self._datasets[task]

    def _forgetting(self, run: TrialRun) -> dict[str, float]:
        """Measure what the adapter changes on neutral text; the bare backbone's loss is computed once."""
        task = run.job.trial.task
        if task not in self._neutral_texts:
            self._neutral_texts[task] = NeutralText.for_backbone(self.backbone(task), self.dataset(task))
        neutral_text = self._neutral_texts[task]
        return {} if neutral_text is None else {"forgetting": neutral_text.forgetting(run.attached)}

    def _sources(self, task: str) -> dict[str, TaskDataset]:
        task_setup = self.setup.tasks.get(task)
        return {name: self.dataset(name) for name in task_setup.config.source_tasks} if task_setup else {}

    def _prefix(self, task: str) -> FrozenPrefix:
        if task not in self._prefixes:
            self._prefixes[task] = FrozenPrefix(self.backbone(task))
        return self._prefixes[task]

    def _restore_or_start(self, job: Job) -> TrialRun:
        """Return the trial from the first place where all workers of the lane find it at the same step."""
        for find in (self._from_partial_state, self._from_memory, self._from_checkpoint):
            run = self.ranks.run_on_all_ranks(partial(self._in_memory, partial(find, job)))
            steps = self.ranks.all_gather_object(run.step if run else None)
            if run and len(set(steps)) == 1:
                return run
        return self.ranks.run_on_all_ranks(partial(self._in_memory, partial(self._new_run, job)))

    def _in_memory(self, start: Callable[[], ResultT]) -> ResultT:
        """Start a trial, a second time with released memory if it does not fit; no rank waits for another meanwhile."""
        return retry_with_released_memory(start, self.free, self.device)

    def _from_partial_state(self, job: Job) -> TrialRun | None:
        """Restore the partial state that a lane saved during the same job."""
        path = partial_state_path(job)
        may_exist = job.has_partial_state or job.partial_state_every
        exists = may_exist and self._storage.exists(f"{self.setup.sweep}/{path}")
        return self._load(job, path) if exists else None

    def _from_memory(self, job: Job) -> TrialRun | None:
        run = self._paused.pop(job.name, None)
        return run if run and run.step == job.start and run.job.params == job.params else None

    def _from_checkpoint(self, job: Job) -> TrialRun | None:
        return self._load(job, job.checkpoint) if job.checkpoint else None

    def _new_run(self, job: Job, fresh: bool = True) -> TrialRun:
        task = job.trial.task
        backbone, dataset = self.backbone(task), self.dataset(task)
        training, sources, prefix = self.setup.training, self._sources(task), self._prefix(task)
        with self._watch.during(Work.ATTACH, [Subject(job.name, task, job.start + 1)]):
            return TrialRun(
                job,
                backbone,
                dataset,
                training,
                sources,
                prefix,
                self._micro_batch_memory,
                fresh=fresh,
                free_memory=self.free,
                on_pass=self._watch.progress,
            )

    def _load(self, job: Job, checkpoint: str) -> TrialRun | None:
        """Restore a trial from a checkpoint; ``None`` if that is missing or damaged."""
        run = self._new_run(job, fresh=False)
        try:
            self._restore(run, checkpoint)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = describe_error(error)
            step = job.start if job.checkpoint and checkpoint != job.checkpoint else 0
            log.warning("trial %s starts again at step %d: %s cannot be used (%s)", job.trial, step, checkpoint, reason)
            return None
        return run

    def _restore(self, run: TrialRun, checkpoint: str) -> None:
        path = f"{self.setup.sweep}/{checkpoint}"
        if self._storage.is_local:
            _restore_from(run, self._storage.local(path))
            return
        with TemporaryDirectory() as folder:
            self._storage.download(path, Path(folder) / STEP)
            _restore_from(run, Path(folder) / STEP)

    def _check_backbone(self, task: str) -> None:
        if self._backbones[task].fingerprint() != self.fingerprints[task]:
            raise BackboneWrittenError("the trial wrote to the shared backbone")


def _restore_from(run: TrialRun, folder: Path) -> None:
    # Without this check, a trial whose optimizer state was lost would restore its adapter and train on with a new one.
    if run.job.start < run.job.total and not (folder / STATE).is_file():
        raise FileNotFoundError(f"there is no {STATE}")
    run.restore(folder)


def curve_of_job(run: TrialRun) -> Curve:
    """Return the points of a trial's curve since its job began; none of a retraining, which has no run in MLflow."""
    return run.curve.since(run.job.start) if run.job.retraining is None else {}


def subject(run: TrialRun) -> Subject:
    """Return a trial as what is watched, at its next step."""
    step_s = run.measurements["train_seconds"] / run.step if run.step else None
    return Subject(run.job.name, run.job.trial.task, run.step + 1, step_s)
