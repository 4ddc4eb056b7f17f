"""What AdaLoRA keeps beside its parameters: a schedule, how important each entry was, and which entries are left.

`peft` allocates the budget. It learns here how long the trial is, what it had found when a trial goes on elsewhere, and
which entries it may leave out of a saved adapter.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import AdaLoraConfig, PeftModel
from peft.tuners.adalora import AdaLoraLayer, RankAllocator
from peft.utils.warning import PeftWarning
from safetensors.torch import load_file
from torch import Tensor

from methods.base import peft_adapter
from methods.base.spec import MethodError

MEASURED = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # attributes of peft's allocator, a tensor per parameter
Pattern = dict[str, list[bool]]
"""Which entries of each ``lora_E`` are left."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When ranks fall, in steps and under `peft`'s names."""

    total_step: int
    tinit: int
    tfinal: int
    deltaT: int


def allocate(model: PeftModel, step: int, schedule: Schedule) -> None:
    """Measure importance from the gradients and set what is over budget to zero.

    Args:
        model: the adapter.
        step: how many are done; the last one's gradients are there.
        schedule: of the trial.
    """
    if schedule.total_step < 2:
        return  # too short to have measured anything
    for field, value in asdict(schedule).items():
        setattr(_config(model), field, value)
    model.base_model.update_and_allocate(step)


def skewness(model: PeftModel) -> Tensor:
    """How far the singular vectors are from orthogonal: the mean Frobenius norm of ``P P^T - I``, a scalar."""
    vectors = [
        v
        for _, layer in _layers(model)
        for v in (layer.lora_A[peft_adapter.ADAPTER], layer.lora_B[peft_adapter.ADAPTER].T)
    ]
    return torch.stack([torch.linalg.matrix_norm(v @ v.T - torch.eye(len(v), device=v.device)) for v in vectors]).mean()


def state(model: PeftModel) -> dict[str, Tensor]:
    """What a trial that goes on elsewhere must find again."""
    allocator, pattern = _allocator(model), _config(model).rank_pattern or {}
    measured = {f"{kind}:{name}": t for kind in MEASURED for name, t in getattr(allocator, kind).items()}
    return measured | {f"rank_pattern:{name}": torch.tensor(left) for name, left in pattern.items()}


def load_state(model: PeftModel, tensors: dict[str, Tensor]) -> None:
    """Take back what :func:`state` gave."""
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in (*MEASURED, "rank_pattern")}
    device = next(model.parameters()).device
    for key, tensor in tensors.items():
        kind, _, name = key.partition(":")
        found[kind][name] = tensor.to(device)
    pattern = found.pop("rank_pattern")
    for kind, measured in found.items():
        setattr(_allocator(model), kind, measured)
    _config(model).rank_pattern = {name: left.tolist() for name, left in pattern.items()} or None


def save(folder: Path, save_all: Callable[[Path], None], model: PeftModel) -> None:
    """Let `peft` leave out the entries that are over budget, once they are zero and stay so.

    Before that, an entry that was set to zero moves again until it is next measured.
    """
    pattern = _config(model).rank_pattern
    _config(model).rank_pattern = pattern if pattern and _is_final(model, pattern) else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*zero-sized lora_A", PeftWarning)  # a layer may keep no rank at all
        try:
            save_all(folder)
        finally:
            _config(model).rank_pattern = pattern


def load(folder: Path, model: PeftModel) -> None:
    """Read a saved adapter, with zeros for the entries that were left out: parameters keep their shapes."""
    stored = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("rank_pattern")
    tensors, pattern = load_file(folder / peft_adapter.WEIGHTS), Pattern(stored or {})
    for name, left in pattern.items():
        layer = name.removesuffix(".lora_E")
        for part, dim in (("lora_E", 0), ("lora_A", 0), ("lora_B", 1)):
            key = f"base_model.model.{layer}.{part}"
            if key not in tensors or tensors[key].shape[dim] != sum(left):
                raise MethodError(f"{folder} does not fit this backbone: {key} is no update of rank {sum(left)}")
            tensors[key] = _spread(tensors[key], torch.tensor(left), dim)
    _config(model).rank_pattern = None
    peft_adapter.load_tensors(tensors, model, folder)
    _config(model).rank_pattern = {f"{name}.{peft_adapter.ADAPTER}": left for name, left in pattern.items()} or None


def _spread(kept: Tensor, left: Tensor, dim: int) -> Tensor:
    shape = list(kept.shape)
    shape[dim] = len(left)
    return torch.zeros(shape).index_copy(dim, left.nonzero().view(-1), kept)


def _is_final(model: PeftModel, pattern: Pattern) -> bool:
    entries = {
        f"{name}.lora_E.{peft_adapter.ADAPTER}": layer.lora_E[peft_adapter.ADAPTER] for name, layer in _layers(model)
    }
    return not any(entries[name][~torch.tensor(left)].any() for name, left in pattern.items())


def _layers(model: PeftModel) -> list[tuple[str, AdaLoraLayer]]:
    return [(name, m) for name, m in model.get_base_model().named_modules() if isinstance(m, AdaLoraLayer)]


def _config(model: PeftModel) -> AdaLoraConfig:
    return model.peft_config[peft_adapter.ADAPTER]


def _allocator(model: PeftModel) -> RankAllocator:
    return model.base_model.rankallocator
