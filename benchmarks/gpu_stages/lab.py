"""Random models, rows and trials that the stages have in common."""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from benchmarks.gpu_stages.report import Report
from orchestrator.backbone.checkpoint import Header, freezable
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.weights import quantize
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine import FrozenPrefix, TaskDataset, TrialRun, train_step
from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.causal_lm import CausalLMTask
from orchestrator.tasks.classification import ClassificationTask
from orchestrator.tasks.tokens import token_column

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel

TASK, CLASSIFICATION = "causal-lm", "classification"
CLASSES, SPREAD = 3, 0.02
WARM_UP_STEPS, TIMED_STEPS, TIMED_S = 2, 5, 1.5


@dataclass(frozen=True)
class Size:
    """The size of a Llama.

    Args:
        hidden: width of the residual stream.
        ffn: width of the feed-forward.
        layers: blocks.
        heads: attention heads.
        kv_heads: heads of keys and values.
        vocab: tokens of the vocabulary.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int


TINY = Size(64, 128, 2, 4, 2, 256)
FEW_BLOCKS = Size(256, 512, 6, 8, 4, 1024)
ONE_BILLION = Size(2048, 8192, 16, 32, 8, 128256)
EIGHT_BILLION = Size(4096, 14336, 32, 32, 8, 128256)


class Lab:
    """Models, rows and trials on one device.

    Args:
        device: ``cuda`` or ``cpu``.
        small: whether every model is tiny.
        folder: folder for the models.
    """

    def __init__(self, device: str, small: bool, folder: Path) -> None:
        self.device = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
        self.small, self.folder = small, folder
        if small:  # tiny models gain nothing by threads, which wait for each other where other processes want the cores
            torch.set_num_threads(1)
        self.dtype = compute_dtype("auto", self.device)
        self._loaded: tuple[Any, SharedBackbone] | None = None

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def require_gpu(self, report: Report, what: str) -> bool:
        """Return whether the device is a GPU, and report what is skipped where it is not."""
        if not self.cuda:
            report.skip(what, "needs a GPU")
        return self.cuda

    def size(self, size: Size) -> Size:
        """Return the size to use: the one given, or a tiny one."""
        return TINY if self.small else size

    def config(self, size: Size) -> LlamaConfig:
        """Return the architecture of a size."""
        from transformers import LlamaConfig

        size = self.size(size)
        return LlamaConfig(
            vocab_size=size.vocab,
            hidden_size=size.hidden,
            intermediate_size=size.ffn,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=size.layers <= ONE_BILLION.layers,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            dtype=torch.bfloat16,
        )

    def file(self, size: Size, quantization: str = "nf4", task: str = TASK) -> Path:
        """Return the file of a random backbone, quantized on the device layer by layer; written at the first call."""
        file = self.folder / f"{task}-{self.size(size).hidden}-{quantization}.safetensors"
        if not file.exists():
            write_random_backbone(self.config(size), task, file, self.device, quantization)
        return file

    def backbone(self, size: Size, original: bool = False, task: str = TASK, **settings: Any) -> SharedBackbone:
        """Return a backbone on the device; the last one stays loaded until another is asked for.

        Args:
            size: size of the model.
            original: whether the unquantized weights are at hand too.
            task: task type.
            settings: settings of ``load`` that differ from its defaults.
        """
        key = (size, original, task, repr(settings))
        if self._loaded is None or self._loaded[0] != key:
            self.unload()
            unquantized = self.file(size, "none", task) if original else None
            backbone = load(
                self.file(size, task=task),
                task,
                name="random",
                dtype=self.dtype,
                labels=0 if task == TASK else CLASSES,
                device=self.device,
                original=unquantized,
                **settings,
            )
            self._loaded = key, backbone
        return self._loaded[1]

    def unload(self) -> None:
        """Drop the loaded backbone."""
        self._loaded = None
        self.collect()

    def collect(self) -> None:
        """Free what nothing refers to."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def dataset(self, backbone: SharedBackbone, rows: int, tokens: int, first_id: int = 3) -> TaskDataset:
        """Return random rows of one length, half of each row to be learned.

        Args:
            backbone: backbone that gives the vocabulary.
            rows: rows of each split.
            tokens: tokens of a row.
            first_id: smallest token id; ids end where the vocabulary does, or at this one if it is beyond.
        """
        vocabulary = max(int(backbone.model.config.vocab_size), first_id + 1)
        ids = np.random.default_rng(0).integers(first_id, vocabulary, (rows, tokens)).astype(np.int32)
        columns: dict[str, Any] = {"row": np.arange(rows), "input_ids": token_column(list(ids))}
        config: Any = CausalLMTask(type="causal-lm", data="rows.csv", prompt="{text}", completion="{label}")
        if backbone.context.task == TASK:
            columns["bytes"] = np.full(rows, tokens // 2, np.int32)
            columns["trained"] = token_column([np.arange(tokens) >= tokens - tokens // 2] * rows, np.uint8)
        else:
            columns["label"] = (np.arange(rows) % CLASSES).astype(np.int32)
            config = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
        tables = dict.fromkeys(("train", "validation", "test"), pa.table(columns))
        training = Training(max_length=max(4, tokens))
        return TaskDataset(config, tables, 0, backbone.decoder, training, 0, Storage.at(str(self.folder)))

    def trial(
        self,
        method: str,
        backbone: SharedBackbone,
        dataset: TaskDataset,
        *,
        prefix: FrozenPrefix | None = None,
        number: int = 0,
        **params: Any,
    ) -> TrialRun:
        """Return a new trial of a method with its default hyperparameters.

        Args:
            method: name of the method.
            backbone: backbone to attach it to.
            dataset: rows to train on.
            prefix: frozen prefix of the lane.
            number: number of the trial, and its seed.
            params: hyperparameters that differ from the defaults.
        """
        key = TrialKey(f"task/{method}", number)
        job = Job(trial=key, params=params, seed=number, start=0, stop=100, total=100)
        return TrialRun(job, backbone, dataset, prefix=prefix)

    def seconds_per_round(self, runs: Sequence[TrialRun], report: Report, steps: int = TIMED_STEPS) -> float:
        """Return the median seconds of a step of all trials, taken together.

        Raises:
            RuntimeError: if a trial fails.
        """
        for _ in range(WARM_UP_STEPS):
            take_step(runs)
        return self.median_seconds(lambda: take_step(runs), steps, report)

    def median_seconds(self, call: Callable[[], object], times: int, report: Report) -> float:
        """Return the median seconds of a call, made at least once, and not again once it took long enough."""
        seconds: list[float] = []
        while not seconds or (len(seconds) < times and sum(seconds) < TIMED_S and report.seconds_left() > 0):
            self.synchronize()
            begin = time.perf_counter()
            call()
            self.synchronize()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    def synchronize(self) -> None:
        """Wait until the device has computed everything."""
        if self.cuda:
            torch.cuda.synchronize(self.device)


def take_step(runs: Sequence[TrialRun]) -> None:
    """Take one step with all trials.

    Raises:
        RuntimeError: if one of them fails.
    """
    for run, error in train_step(runs):
        raise RuntimeError(f"{run.job.trial.method} failed: {error}") from error


def write_random_backbone(config: LlamaConfig, task: str, file: Path, device: torch.device, quantization: str) -> None:
    """Write the file of a backbone with random weights; one layer at a time is on the device."""
    generator = torch.Generator(device).manual_seed(0)
    model, head = skeleton_of(config, task), () if task == TASK else ("score",)
    frozen = freezable(model, head)
    tensors: dict[str, torch.Tensor] = {}
    parameters = 0
    for name, parameter in model.named_parameters():
        if name.partition(".")[0] in head:
            continue
        parameters += parameter.numel()
        if parameter.dim() == 1:
            tensors[name] = torch.ones(parameter.shape, dtype=torch.bfloat16)
            continue
        weight = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        weight.normal_(0, SPREAD, generator=generator)
        if (layer := name.removesuffix(".weight")) in frozen:
            packed = quantize(weight, quantization, True)  # type: ignore[arg-type]
            parts = packed.tensors() | packed.derived()
            tensors |= {f"{name}:{part}": tensor.cpu() for part, tensor in parts.items()}
            assert math.prod(packed.shape) == parameter.numel(), layer
        else:
            tensors[name] = weight.cpu()
    header = Header(TASK_TYPES[task].auto_class, json.loads(config.to_json_string()), tuple(frozen), head, parameters)
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata=header.metadata())
    partial.rename(file)


def skeleton_of(config: LlamaConfig, task: str = TASK) -> PreTrainedModel:
    """Return the model without weights in memory."""
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = getattr(transformers, TASK_TYPES[task].auto_class).from_config(config)
    return model
