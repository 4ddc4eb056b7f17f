"""AdaLoRA's state beside its parameters: the schedule, the importance of each entry, and the entries within budget.

`peft` allocates the budget. This module gives it the trial's length, saves and restores its state when a trial pauses,
and decides which entries may be left out of a saved adapter.
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

IMPORTANCE_ATTRIBUTES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of peft's allocator: a tensor per parameter each
RankPattern = dict[str, list[bool]]
"""For each ``lora_E``, which of its entries are within the budget."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When ranks fall: numbers of steps, under `peft`'s names."""

    total_step: int
    tinit: int
    tfinal: int
    deltaT: int


def allocate(model: PeftModel, step: int, schedule: Schedule) -> None:
    """Update the importance from the gradients, and set the entries over budget to zero.

    Args:
        model: AdaLoRA's model, with the gradients of the last step.
        step: number of steps done.
        schedule: the trial's schedule.
    """
    if schedule.total_step < 2:
        return  # importance is measured over two steps at least
    for field, value in asdict(schedule).items():
        setattr(_config(model), field, value)
    model.base_model.update_and_allocate(step)


def skewness(model: PeftModel) -> Tensor:
    """Return the distance of the singular vectors from orthogonality: the mean Frobenius norm of ``P P^T - I``."""
    vectors = [
        v
        for _, layer in _layers(model)
        for v in (layer.lora_A[peft_adapter.ADAPTER], layer.lora_B[peft_adapter.ADAPTER].T)
    ]
    return torch.stack([torch.linalg.matrix_norm(v @ v.T - torch.eye(len(v), device=v.device)) for v in vectors]).mean()


def state(model: PeftModel) -> dict[str, Tensor]:
    """Return the importance and the rank pattern, by name, for a trial that pauses."""
    allocator, pattern = _allocator(model), _config(model).rank_pattern or {}
    importance = {
        f"{attribute}:{name}": tensor
        for attribute in IMPORTANCE_ATTRIBUTES
        for name, tensor in getattr(allocator, attribute).items()
    }
    return importance | {f"rank_pattern:{name}": torch.tensor(mask) for name, mask in pattern.items()}


def load_state(model: PeftModel, tensors: dict[str, Tensor]) -> None:
    """Restore what :func:`state` returned."""
    values: dict[str, dict[str, Tensor]] = {attribute: {} for attribute in (*IMPORTANCE_ATTRIBUTES, "rank_pattern")}
    device = next(model.parameters()).device
    for key, tensor in tensors.items():
        attribute, _, name = key.partition(":")
        values[attribute][name] = tensor.to(device)
    pattern = values.pop("rank_pattern")
    for attribute, importance in values.items():
        setattr(_allocator(model), attribute, importance)
    _config(model).rank_pattern = {name: mask.tolist() for name, mask in pattern.items()} or None


def save(folder: Path, save_all: Callable[[Path], None], model: PeftModel) -> None:
    """Write the adapter, without the entries over budget where the budget is final.

    Before that, an entry that was set to zero trains on until the next allocation, so that it has to be saved.
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
    """Read a saved adapter, with zeros for the entries that were left out, so that parameters keep their shapes."""
    stored = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("rank_pattern")
    tensors, pattern = load_file(folder / peft_adapter.WEIGHTS), RankPattern(stored or {})
    for name, mask in pattern.items():
        layer = name.removesuffix(".lora_E")
        for part, dim in (("lora_E", 0), ("lora_A", 0), ("lora_B", 1)):
            key = f"base_model.model.{layer}.{part}"
            if key not in tensors or tensors[key].shape[dim] != sum(mask):
                raise MethodError(f"{folder} does not fit this backbone: {key} is not an update of rank {sum(mask)}")
            tensors[key] = _insert_zeros(tensors[key], torch.tensor(mask), dim)
    _config(model).rank_pattern = None
    peft_adapter.load_tensors(tensors, model, folder)
    _config(model).rank_pattern = {f"{name}.{peft_adapter.ADAPTER}": mask for name, mask in pattern.items()} or None


def _insert_zeros(tensor: Tensor, mask: Tensor, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = len(mask)
    return torch.zeros(shape).index_copy(dim, mask.nonzero().view(-1), tensor)


def _is_final(model: PeftModel, pattern: RankPattern) -> bool:
    """Return whether every entry over budget is zero."""
    entries = {
        f"{name}.lora_E.{peft_adapter.ADAPTER}": layer.lora_E[peft_adapter.ADAPTER] for name, layer in _layers(model)
    }
    return not any(entries[name][~torch.tensor(mask)].any() for name, mask in pattern.items())


def _layers(model: PeftModel) -> list[tuple[str, AdaLoraLayer]]:
    return [(name, m) for name, m in model.get_base_model().named_modules() if isinstance(m, AdaLoraLayer)]


def _config(model: PeftModel) -> AdaLoraConfig:
    return model.peft_config[peft_adapter.ADAPTER]


def _allocator(model: PeftModel) -> RankAllocator:
    return model.base_model.rankallocator
