"""One trial in training: its method on its view of the backbone, its optimizer, its position in the data."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, Hyperparameters
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.checkpoint_parameters import places_in_adapter, read_places
from orchestrator.engine.checkpointed_blocks import block_names, checkpoint_blocks
from orchestrator.engine.data_parallel import dropout_stream, shard
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.gradient_norms import gradient_norm
from orchestrator.engine.joint_pass import let_body_join
from orchestrator.engine.learning_rate import optimizer_groups, schedule, set_learning_rates
from orchestrator.engine.memory import MemoryGauge, held_bytes
from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.micro_batches import split_micro_batches
from orchestrator.engine.optimizers import make_optimizer, optimizer_tensors, restore_optimizer, step_optimizer
from orchestrator.engine.out_of_memory import FreeMemory, no_memory_to_free
from orchestrator.engine.pack_view import PackView
from orchestrator.engine.random_stream import RandomStream, restored_generators
from orchestrator.engine.scoring_limits import score_in_fitting_batches
from orchestrator.engine.skip_prefix import SkipPrefix
from orchestrator.engine.source_batches import source_batches
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.training_curve import TrainingCurve
from orchestrator.tasks import Evaluation


class DivergedError(ArithmeticError):
    """The loss or the gradient is not finite."""


class TrialRun:
    """A trial between two optimizer steps.

    It shares nothing with other trials but the frozen tensors: it has its own head, random stream, optimizer and
    position in the data. Its losses are therefore the same alone, in a pack, or continued from a checkpoint elsewhere.

    Args:
        job: first job of the trial; later jobs of the same trial continue where it ended.
        backbone: backbone to attach the method to.
        dataset: rows of the task.
        training: limits of a trial; the dataset's if left out.
        sources: datasets of the tasks that it may learn from before its own, by name.
        prefix: frozen prefix of the lane; without one, every pass runs all blocks.
        micro_batch_memory: record of the step sizes that fit into the worker's memory.
        fresh: ``False`` if :meth:`restore` is called next, so that the method need not compute initial values.
        free_memory: function that lets go of tensors where memory is short.
        on_pass: function that is called before each pass through the model: a step, an evaluation and a generated text
            are many.

    Raises:
        MethodError: if the method cannot be attached.
    """

    def __init__(
        self,
        job: Job,
        backbone: SharedBackbone,
        dataset: TaskDataset,
        training: Training | None = None,
        sources: Mapping[str, TaskDataset] = MappingProxyType({}),
        prefix: FrozenPrefix | None = None,
        micro_batch_memory: MicroBatchMemory | None = None,
        fresh: bool = True,
        free_memory: FreeMemory = no_memory_to_free,
        on_pass: Callable[[], None] | None = None,
    ) -> None:
        begin = time.perf_counter()
        self.device = backbone.device
        self._memory = MemoryGauge(device=self.device)
        self.job, self.dataset, self.step = job, dataset, 0
        self.tokens, self.alone_bytes, self.free_memory = 0, 0.0, free_memory
        self._training, self._sources = training or dataset.training, tuple(sources.values())
        self._pending: deque[tuple[dict[str, Tensor], float]] = deque()
        self._size, self._micro_batch_memory = StepSize(), micro_batch_memory or MicroBatchMemory()
        self._evaluations: dict[str, Evaluation] = {}
        self.curve = TrainingCurve(job.total)
        self._draws: bool | None = None
        spec = methods.get(job.trial.method)
        self.trains = spec.trains
        self.params: Hyperparameters = spec.params_type.from_dict(job.params)
        with restored_generators(self.device, job.seed):
            context = replace(
                backbone.context,
                text=dataset.text,
                sources=tuple(sources),
                source_labels=tuple(len(source.names) for source in sources.values()),
                fresh=fresh,
            )
            self._view = backbone.view(job.seed)
            heads = [self._view.get_submodule(name) for name in context.head]
            head_parameters = sum(p.numel() for head in heads for p in head.parameters())
            self.attached: Attached = spec.attach(self._view, self.params, context)
            self._random = self._random_before_step = RandomStream.capture(self.device)
        groups = optimizer_groups(self.attached.groups, self.params.learning_rate)
        self._optimizer = make_optimizer(self.attached.optimizer, groups, self.params.weight_decay)
        self._prefix, self._prefix_bytes = prefix, prefix.cached_bytes if prefix else 0
        self._skip_prefix = SkipPrefix.attach(prefix, self._view, self.attached.active) if prefix else None
        self._backbone = backbone
        self._pack_view: tuple[tuple[int, ...], PackView] | None = None
        self.joins = not self._skip_prefix and let_body_join(self._view, backbone.model)
        if on_pass:  # now: to the prefix, a hook is a change by the method
            self._view.register_forward_pre_hook(lambda *_: on_pass())
        self.measurements: dict[str, float] = {
            "trainable_parameters": float(sum(p.numel() for p in self.attached.trainable().values())),
            "head_parameters": float(head_parameters),
            "attach_seconds": time.perf_counter() - begin,
            "train_seconds": 0.0,
            "evaluation_seconds": 0.0,
            "peak_memory_bytes": 0.0,
            "micro_batches": 1.0,
            "mergeable": float(self.attached.merge is not None),
        }
        self._seek(0)

    @classmethod
    def start(
        cls,
        method: str,
        backbone: SharedBackbone,
        dataset: TaskDataset,
        *,
        steps: int,
        params: Mapping[str, Any] = MappingProxyType({}),
        seed: int = 0,
    ) -> Self:
        """Attach a method outside of a sweep.

        Args:
            method: name of the method, ``lora`` for instance.
            backbone: backbone to attach it to.
            dataset: rows of the task.
            steps: optimizer steps of the learning-rate schedule.
            params: hyperparameters that differ from the method's defaults.
            seed: seed of everything random in the trial.

        Raises:
            MethodError: if the method cannot be attached.
        """
        job = Job(trial=TrialKey(f"task/{method}", 0), params=dict(params), seed=seed, start=0, stop=steps, total=steps)
        return cls(job, backbone, dataset)

    def begin_job(self) -> None:
        """Begin another job of the same trial; memory that other trials took in the meantime does not count."""
        self._memory = MemoryGauge(self.held_bytes, self.device)
        self._prefix_bytes = self._prefix.cached_bytes if self._prefix else 0

    @property
    def draws_random_numbers(self) -> bool:
        """Whether a forward pass draws random numbers, as dropout does; ``True`` until one has shown that it does not.

        Methods draw in every pass or in none: which modules have dropout, and how much, is decided when they attach.
        """
        return self._draws is not False

    def forward(self, keep_random: bool = True) -> Tensor:
        """Return the loss of the next batch, a scalar with gradient history.

        If the batch is split into micro-batches, it is the loss of the next micro-batch, times its weight. Call it
        again while :attr:`has_micro_batches_left`, after the backward pass has freed the graph of the last loss.

        Args:
            keep_random: whether to continue the trial's random stream and keep it; ``False`` in a packed pass of a
                trial that draws nothing, where the generators are those of any neighbour.
        """
        if not self._pending:
            self._begin_step()
        batch, weight = self._pending.popleft()
        before = self._random
        if keep_random:
            before.restore()
        self.attached.train(True)
        with self._skipping_prefix():
            loss = self.dataset.type.loss(self.attached.module, batch)
        if self.attached.penalty:
            loss = loss + self.attached.penalty()
        if keep_random:
            self._random = RandomStream.capture(self.device)
            self._draws = bool(self._draws) or not self._random.equals(before)
        self._measure_memory()
        return loss if weight == 1 else loss * weight

    def pack_view(self, runs: Sequence[TrialRun]) -> PackView:
        """Return the joint body of trials, this one the first of them; the same as long as they are the same."""
        key = tuple(map(id, runs))
        if self._pack_view is None or self._pack_view[0] != key:
            self._pack_view = (
                key,
                PackView(
                    self._backbone,
                    [run._view for run in runs],
                    [run.attached.active for run in runs],
                    self.dataset.pad,
                    self.dataset.decoder and self.dataset.type.pads_left,
                ),
            )
        return self._pack_view[1]

    def prepare(self) -> None:
        """Fetch the next batch and cache its activations in the frozen prefix.

        Called for each trial before a packed pass: inside it, all trials of the pack would compute them.
        """
        if not self._pending:
            self._begin_step()
        if self._skip_prefix:
            self._skip_prefix.cache_batch(self._pending[0][0])

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds between two steps: trainable parameters and their optimizer state."""
        return held_bytes(self.attached, self._optimizer)

    @property
    def has_micro_batches_left(self) -> bool:
        """Whether the present step has micro-batches left."""
        return bool(self._pending)

    @property
    def checkpointed(self) -> bool:
        """Whether its blocks are checkpointed, so that it cannot be part of a packed pass."""
        return self._size.checkpointed

    def shrink_step(self) -> bool:
        """Use a smaller step size from the next step on, since the last did not fit. Returns whether there is one."""
        tokens = self.tokens // self._size.micro_batches
        size = self._size.smaller(self._parts, self.tokens, self.device)
        if size is None:
            return False
        if tokens:
            self._micro_batch_memory.record_out_of_memory(self.job.trial.method, tokens, self._size.checkpointed)
        self._resize(size)
        return True

    def rewind(self) -> None:
        """Return to the beginning of an unfinished step, so that it can be repeated."""
        self._optimizer.zero_grad(set_to_none=True)
        self._pending.clear()
        self._random = self._random_before_step
        self._seek(self.step)

    def finish_step(self, loss: Tensor, norm: Tensor | None = None) -> None:
        """Clip the gradients, update the parameters and advance by one step.

        Args:
            loss: loss of the whole batch, whose gradients are in place.
            norm: norm of the gradients, if it has been computed.

        Raises:
            DivergedError: if the loss or the gradient is not finite; the parameters are then unchanged.
        """
        parameters, max_norm = self.parameters, self._training.clip_norm
        norm = gradient_norm(self) if norm is None else norm
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise DivergedError(f"the loss is {loss.item():g} at step {self.step + 1}")
        if norm > max_norm:  # otherwise torch multiplies all gradients by 1
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        factor = schedule(self.step, self.job.total, self.params.warmup)
        set_learning_rates(self._optimizer, factor)
        step_optimizer(self._optimizer, self.free_memory, self.device)
        self._evaluations.clear()
        self.step += 1
        self.curve.add(
            self.step,
            loss=loss.item(),
            learning_rate=self.params.learning_rate * factor,
            gradient_norm=norm.item(),
            tokens=self.tokens * self.dataset.ranks.size,
            train_seconds=self.measurements["train_seconds"],
        )
        self._random_before_step = self._random
        if self.attached.on_step:
            self.attached.on_step(self.step, self.job.total)
        self._measure_memory()
        self._memory.end()
        self.alone_bytes = self.alone_bytes or self._memory.peak
        self._optimizer.zero_grad(set_to_none=True)

    def evaluate(self, split: str, *, packed: bool = False) -> Evaluation:
        """Score a split without gradients; the trial's random stream is unchanged.

        A second call without a step in between returns the same evaluation.

        Args:
            split: ``validation`` or ``test``.
            packed: whether other trials are scored in the same pass. Such a trial tries nothing again.
        """
        if split in self._evaluations:
            return self._evaluations[split]
        begin = time.perf_counter()
        self._memory.begin()
        self.attached.train(False)
        with restored_generators(self.device), torch.no_grad(), self._skipping_prefix():
            evaluation = self._score(split) if packed else self._score_in_fitting_batches(split)
        self.measurements["evaluation_seconds"] += time.perf_counter() - begin
        if not self.trains:
            self._measure_memory()
        self._evaluations[split] = evaluation
        return evaluation

    def _score(self, split: str, tokens: int | None = None) -> Evaluation:
        limit = self._micro_batch_memory.scoring.tokens(self.job.trial.method, split)
        return self.dataset.evaluate(self.attached.module, split, tokens or limit)

    def _score_in_fitting_batches(self, split: str) -> Evaluation:
        return score_in_fitting_batches(
            partial(self._score, split),
            partial(self.dataset.largest_evaluation_batch, split),
            self._micro_batch_memory.scoring,
            (self.job.trial.method, split),
            self.dataset.ranks,
            self.free_memory,
            self.device,
        )

    def evaluation_tokens(self, split: str) -> int:
        """Return the tokens of a typical evaluation batch of a split."""
        return self.dataset.evaluation_tokens(split)

    def save(self, folder: Path, resumable: bool = False) -> None:
        """Write ``adapter/`` and ``state.json`` into a folder.

        Args:
            folder: folder, made if it does not exist.
            resumable: whether to write ``state.safetensors`` too, which a trial before its end needs to continue.
        """
        adapter = folder / "adapter"
        adapter.mkdir(parents=True)
        self.attached.save(adapter)
        self.measurements["adapter_bytes"] = float(sum(f.stat().st_size for f in adapter.rglob("*") if f.is_file()))
        if self.step:
            self.measurements["seconds_per_step"] = self.measurements["train_seconds"] / self.step
        state = {"step": self.step, "measurements": self.measurements, "params": self.job.params, "seed": self.job.seed}
        if resumable:
            state["curve"] = self.curve.since(self.job.start)
            parameters = self.attached.trainable()
            places = state["in_adapter"] = places_in_adapter(adapter, parameters)
            tensors = {f"parameter:{name}": p.detach() for name, p in parameters.items() if name not in places}
            tensors |= {f"method:{name}": tensor for name, tensor in self.attached.state().items()}
            tensors |= optimizer_tensors(self._optimizer) | self._random.tensors()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps(state))

    def restore(self, folder: Path) -> None:
        """Continue from the folder that :meth:`save` wrote.

        Raises:
            ValueError: if it is of another configuration: a driver may be lost with its journal's last events, and a
                trial that is started after that has the number, and so the folder, of a trial before it.
        """
        state = json.loads((folder / "state.json").read_text())
        wanted = {"params": json.loads(json.dumps(self.job.params)), "seed": self.job.seed}
        if any(state.get(key, value) != value for key, value in wanted.items()):
            raise ValueError("it is of another configuration")
        # Release 0.1 wrote them under the key "facts".
        self.step, self.measurements = state["step"], state.get("measurements") or state["facts"]
        self.curve.restore(state.get("curve", {}), self.measurements["train_seconds"])
        self._resize(
            StepSize(int(self.measurements.get("micro_batches", 1)), bool(self.measurements.get("checkpointed")))
        )
        tensors = load_file(folder / "state.safetensors") if (folder / "state.safetensors").exists() else {}
        if not tensors:
            self.attached.load(folder / "adapter")
            return
        with torch.no_grad():
            parameters = read_places(folder / "adapter", state.get("in_adapter", {}))
            for name, parameter in self.attached.trainable().items():
                parameter.copy_(parameters[name] if name in parameters else tensors[f"parameter:{name}"])
        prefix = "method:"
        self.attached.load_state({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
        restore_optimizer(self._optimizer, tensors)
        self._random = RandomStream.from_tensors(tensors, self.device)
        self._seek(self.step)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters, group by group."""
        return [p for group in self.attached.groups for p in group.parameters]

    def _skipping_prefix(self) -> AbstractContextManager[None]:
        return self._skip_prefix.enabled() if self._skip_prefix else nullcontext()

    def _begin_step(self) -> None:
        batch, shard_weight = shard(self._next_batch(), self.dataset.ranks, self.dataset.type)
        stream = dropout_stream(self.job.seed, self.step, self.dataset.ranks, self._random)
        self._random_before_step = self._random = stream
        is_first = not self.tokens
        self.tokens = batch["input_ids"].numel()
        self._memory.begin(self.tokens)
        if is_first:
            method = self.job.trial.method
            fitting = self._micro_batch_memory.fitting_size(method, self._parts, self.tokens, self.device)
            self._resize(self._size.smallest_of(fitting))
        count = min(self._size.micro_batches, self._parts)
        micro_batches = split_micro_batches(batch, count, self.dataset.type.loss_terms)
        self._pending.extend((micro_batch, shard_weight * weight) for micro_batch, weight in micro_batches)
        self.measurements["micro_batches"] = float(self._size.micro_batches)
        if self._size.checkpointed:
            self.measurements["checkpointed"] = 1.0

    @property
    def _parts(self) -> int:
        """The most micro-batches of a batch."""
        return self.params.batch_size if self.dataset.type.is_divisible else 1

    def _resize(self, size: StepSize) -> None:
        if size.checkpointed and not self._size.checkpointed:
            skipped = self._skip_prefix.depth if self._skip_prefix else 0
            checkpoint_blocks(self._view, block_names(self._view)[skipped:], self.device)
        self._size = size

    def _next_batch(self) -> dict[str, Tensor]:
        if self.step < self._source_steps:
            return next(self._source_batches)
        return self.dataset.batch(next(self._batches))

    def _seek(self, step: int) -> None:
        """Go to the data of a step; the task's own batches begin at 0 after those of the source tasks."""
        size, total = self.params.batch_size, self.job.total
        first = self._source_steps = self.attached.source_steps(total) if self._sources else 0
        self._source_batches = source_batches(self._sources, size, step, first)
        # Retrainings differ in their data order too: their scores show how much another training would have differed.
        order = None if self.job.retraining is None else self.job.seed
        self._batches = self.dataset.training_batches(size, max(0, step - first), total - first, order)

    def _measure_memory(self) -> None:
        self._memory.measure()
        # The prefix's cache belongs to all trials, whichever trial has filled it.
        cached = self._prefix.cached_bytes - self._prefix_bytes if self._prefix else 0
        peak = self._memory.peak - max(0, cached)
        self.measurements["peak_memory_bytes"] = max(self.measurements["peak_memory_bytes"], peak)
