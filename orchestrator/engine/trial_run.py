"""One trial in training: its method on its view, its optimizer, its place in the data."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, Hyperparameters
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job
from orchestrator.config import Training
from orchestrator.engine.data_parallel import dropout_stream, share
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.memory import MemoryGauge, held_bytes
from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.micro_batches import parts
from orchestrator.engine.optimizers import make_optimizer, optimizer_tensors, restore_optimizer
from orchestrator.engine.random_stream import RandomStream
from orchestrator.engine.skip_prefix import SkipPrefix
from orchestrator.engine.source_batches import source_batches
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks import Evaluation


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""


class TrialRun:
    """A trial between two steps.

    Nothing in it is shared with other trials but the frozen tensors: it has its own head, random stream, optimizer
    and position in the data, so that it does the same alone, in a pack, or continued from a checkpoint elsewhere.

    Args:
        job: the work to do first; later jobs of the same trial continue where it ended.
        backbone: what to attach to.
        rows: the task's tokenized rows.
        training: limits.
        sources: the rows of the tasks that it may learn from before its own, by name.
        prefix: what the lane knows of the blocks that the method leaves alone, if it is to be used.
        micro_batch_memory: what the lane knows of its memory.

    Raises:
        MethodError: if the method cannot be attached.
    """

    def __init__(
        self,
        job: Job,
        backbone: SharedBackbone,
        rows: TaskDataset,
        training: Training,
        sources: Mapping[str, TaskDataset] = MappingProxyType({}),
        prefix: FrozenPrefix | None = None,
        micro_batch_memory: MicroBatchMemory | None = None,
    ) -> None:
        begin = time.perf_counter()
        self._memory = MemoryGauge()
        self.job, self.rows, self.step = job, rows, 0
        self.tokens, self.alone_bytes = 0, 0.0
        self._training, self._sources = training, tuple(sources.values())
        self._parts: deque[tuple[dict[str, Tensor], float]] = deque()
        self._micro_batches, self._micro_batch_memory = 1, micro_batch_memory or MicroBatchMemory()
        self._scored: dict[str, Evaluation] = {}
        spec = methods.get(job.trial.method)
        self.trains = spec.trains
        self.params: Hyperparameters = spec.params_type.from_dict(job.params)
        with torch.random.fork_rng():
            torch.manual_seed(job.seed)
            context = replace(
                backbone.context,
                text=rows.text,
                sources=tuple(sources),
                source_labels=tuple(len(source.names) for source in sources.values()),
            )
            view = backbone.view(job.seed)
            self.attached: Attached = spec.attach(view, self.params, context)
            self._random = self._before = RandomStream.here()
        self._optimizer = self._make_optimizer()
        self._prefix, self._prefix_bytes = prefix, prefix.held_bytes if prefix else 0
        self._skip_prefix = SkipPrefix.above(prefix, view, self.attached.active) if prefix else None
        self.measurements: dict[str, float] = {
            "trainable_parameters": float(sum(p.numel() for p in self.attached.trainable().values())),
            "attach_seconds": time.perf_counter() - begin,
            "train_seconds": 0.0,
            "evaluation_seconds": 0.0,
            "peak_memory_bytes": 0.0,
            "micro_batches": 1.0,
            "mergeable": float(self.attached.merge is not None),
        }
        self._seek(0)

    def go_on(self) -> None:
        """Begin another job of the same trial: what others have left in memory since is not its own."""
        self._memory = MemoryGauge(held_bytes(self.attached, self._optimizer))
        self._prefix_bytes = self._prefix.held_bytes if self._prefix else 0

    def forward(self) -> Tensor:
        """The loss of the next batch, a scalar with gradient history.

        Where memory is short, that of its next part, by its weight: as long as the step is :attr:`unfinished`, the
        next part is to follow once this one's graph is gone.
        """
        if not self._parts:
            self._begin_step()
        batch, weight = self._parts.popleft()
        self._random.resume()
        self.attached.train(True)
        with self._skipping_prefix():
            loss = self.rows.type.loss(self.attached.module, batch)
        if self.attached.penalty:
            loss = loss + self.attached.penalty()
        self._random = RandomStream.here()
        self._note_memory()
        return loss if weight == 1 else loss * weight

    def prepare(self) -> None:
        """Fetch the next batch, and let the lane's trunk know its rows before several trials ask for them at once."""
        if not self._parts:
            self._begin_step()
        if self._skip_prefix:
            self._skip_prefix.prepare(self._parts[0][0])

    @property
    def unfinished(self) -> bool:
        """Whether parts of the batch are still to come."""
        return bool(self._parts)

    def halve(self) -> bool:
        """From the next step on, train a batch in twice as many parts. Returns whether it can be parted further."""
        if self._micro_batches >= self.params.batch_size:
            return False
        if self.tokens:
            self._micro_batch_memory.tell(self.job.trial.method, self.tokens // self._micro_batches)
        self._micro_batches *= 2
        return True

    def rewind(self) -> None:
        """Forget an unfinished step, so that it can be done again."""
        self._optimizer.zero_grad(set_to_none=True)
        self._parts.clear()
        self._random = self._before
        self._seek(self.step)

    def finish_step(self, loss: Tensor) -> None:
        """Clip, update and advance, once the gradients are there.

        Raises:
            DivergedError: if the loss or the gradient is not finite; the parameters are left as they were.
        """
        parameters, most = self.parameters, self._training.clip_norm
        norm = nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise DivergedError(f"the loss is {loss.item():g} at step {self.step + 1}")
        if norm > most:  # or all gradients would be multiplied by 1
            nn.utils.clip_grads_with_norm_(parameters, most, norm)
        factor = schedule(self.step, self.job.total, self.params.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._optimizer.step()
        self._scored.clear()
        self.step += 1
        self._before = self._random
        if self.attached.on_step:
            self.attached.on_step(self.step, self.job.total)
        self._note_memory()
        self._memory.end()
        self.alone_bytes = self.alone_bytes or self._memory.peak
        self._optimizer.zero_grad(set_to_none=True)

    def evaluate(self, split: str) -> Evaluation:
        """Score a split without gradients and without touching the trial's random stream.

        It is scored once, as long as no step comes in between.
        """
        if split in self._scored:
            return self._scored[split]
        begin = time.perf_counter()
        self._memory.begin()
        self.attached.train(False)
        with torch.random.fork_rng(), torch.no_grad(), self._skipping_prefix():
            evaluation = self.rows.evaluate(self.attached.module, split)
        self.measurements["evaluation_seconds"] += time.perf_counter() - begin
        if not self.trains:
            self._note_memory()
        self._scored[split] = evaluation
        return evaluation

    def evaluation_tokens(self, split: str) -> int:
        """Of a batch in which a split is scored, about."""
        return self.rows.evaluation_tokens(split)

    def save(self, folder: Path, resumable: bool) -> None:
        """Write the adapter and, for a trial that is not at its end, what continuing it needs."""
        adapter = folder / "adapter"
        adapter.mkdir(parents=True)
        self.attached.save(adapter)
        self.measurements["adapter_bytes"] = float(sum(f.stat().st_size for f in adapter.rglob("*") if f.is_file()))
        if self.step:
            self.measurements["seconds_per_step"] = self.measurements["train_seconds"] / self.step
        state = {"step": self.step, "measurements": self.measurements}
        (folder / "state.json").write_text(json.dumps(state))
        if resumable:
            tensors = {f"parameter:{name}": p.detach() for name, p in self.attached.trainable().items()}
            tensors |= {f"method:{name}": tensor for name, tensor in self.attached.state().items()}
            tensors |= optimizer_tensors(self._optimizer) | self._random.tensors()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")

    def restore(self, folder: Path) -> None:
        """Continue from what :meth:`save` wrote."""
        state = json.loads((folder / "state.json").read_text())
        # Release 0.1 called them facts.
        self.step, self.measurements = state["step"], state.get("measurements") or state["facts"]
        self._micro_batches = int(self.measurements.get("micro_batches", 1))
        tensors = load_file(folder / "state.safetensors") if (folder / "state.safetensors").exists() else {}
        if not tensors:
            self.attached.load(folder / "adapter")
            return
        with torch.no_grad():
            for name, parameter in self.attached.trainable().items():
                parameter.copy_(tensors[f"parameter:{name}"])
        own = {key.removeprefix("method:"): value for key, value in tensors.items() if key.startswith("method:")}
        self.attached.load_state(own)
        restore_optimizer(self._optimizer, tensors)
        self._random = RandomStream.from_tensors(tensors)
        self._seek(self.step)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that trains, group by group."""
        return [p for group in self.attached.groups for p in group.parameters]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": list(group.parameters), "initial_lr": self.params.learning_rate * group.multiplier}
            for group in self.attached.groups
        ]
        groups = groups or [
            {"params": [nn.Parameter(torch.zeros(0))], "initial_lr": 0.0}
        ]  # torch refuses an empty list
        own = self.params
        return make_optimizer(self.attached.optimizer, groups, own.learning_rate, own.weight_decay)

    def _skipping_prefix(self) -> AbstractContextManager[None]:
        return self._skip_prefix.active() if self._skip_prefix else nullcontext()

    def _begin_step(self) -> None:
        batch, weight = share(self._next_batch(), self.rows.ranks)
        self._before = self._random = dropout_stream(self.job.seed, self.step, self.rows.ranks, self._random)
        known, self.tokens = self.tokens, batch["input_ids"].numel()
        self._memory.begin(self.tokens)
        if not known:
            fitting = self._micro_batch_memory.parts(self.job.trial.method, self.tokens)
            self._micro_batches = max(self._micro_batches, fitting)
        count = min(self._micro_batches, self.params.batch_size)
        self._parts.extend((part, weight * own) for part, own in parts(batch, count))
        self.measurements["micro_batches"] = float(self._micro_batches)

    def _next_batch(self) -> dict[str, Tensor]:
        if self.step < self._source_steps:
            return next(self._source_batches)
        return self.rows.batch(next(self._batches))

    def _seek(self, step: int) -> None:
        """Go to the data of a step. The trial's own begin anew after those of its sources."""
        size, total = self.params.batch_size, self.job.total
        first = self._source_steps = self.attached.source_steps(total) if self._sources else 0
        self._source_batches = source_batches(self._sources, size, step, first)
        order = None if self.job.retraining is None else self.job.seed  # what another training would have changed
        self._batches = self.rows.training_batches(size, max(0, step - first), total - first, order)

    def _note_memory(self) -> None:
        self._memory.note()
        shared = (
            self._prefix.held_bytes - self._prefix_bytes if self._prefix else 0
        )  # of all trials, whoever asked first
        self.measurements["peak_memory_bytes"] = max(
            self.measurements["peak_memory_bytes"], self._memory.peak - max(0, shared)
        )


def schedule(step: int, total: int, warmup: float) -> float:
    """The learning rate's factor at a step: up linearly over the warm-up, then down linearly to 0 at ``total``."""
    rise = math.ceil(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return (total - step) / max(1, total - rise)
