"""What the backbones of a sweep leave of a lane's GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.units import size
from orchestrator.config import SweepConfig
from orchestrator.engine.gpu import Gpu
from orchestrator.planning.lane_device import LaneDevice
from orchestrator.planning.task_estimates import TaskEstimates


@dataclass(frozen=True)
class GpuBudget:
    """The memory of the smallest GPU that holds the backbones.

    Args:
        gpu: that GPU.
        backbone_bytes: bytes of the backbones, one for each model class of the tasks.
        room_bytes: bytes that are left for a trial.
        too_small: the kinds of GPUs of the cluster that do not hold the backbones.
    """

    gpu: Gpu
    backbone_bytes: float
    room_bytes: float
    too_small: tuple[Gpu, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the fields of the JSON output of ``plan``."""
        return {
            "memory_bytes": self.gpu.memory_bytes,
            "backbone_bytes": self.backbone_bytes,
            "room_bytes": self.room_bytes,
        }


def gpu_budget(config: SweepConfig, device: LaneDevice, tasks: Sequence[TaskEstimates]) -> GpuBudget | None:
    """Return what a lane's GPU has for trials; ``None`` if lanes have no GPU, or one of unknown memory.

    Args:
        config: the sweep's configuration.
        device: device of the lanes.
        tasks: estimates of all tasks; those of one model class share a backbone in a lane.

    Raises:
        InputError: if the backbones do not fit any of the GPUs.
    """
    if not device.gpus:
        return None
    backbones = list({task.kind.auto_class: task for task in tasks}.values())
    backbone_bytes = sum(backbone.backbone_bytes for backbone in backbones)
    fitting = [gpu for gpu in device.gpus if device.usable_bytes(gpu) > backbone_bytes]
    if not fitting:
        raise _does_not_fit(config, device, backbones, backbone_bytes)
    smallest = fitting[0]
    too_small = tuple(gpu for gpu in device.gpus if gpu not in fitting)
    return GpuBudget(smallest, backbone_bytes, device.usable_bytes(smallest) - backbone_bytes, too_small)


def _does_not_fit(
    config: SweepConfig, device: LaneDevice, backbones: Sequence[TaskEstimates], backbone_bytes: float
) -> InputError:
    largest = device.gpus[-1]
    usable = max(0.0, device.usable_bytes(largest))
    in_classes = f" in {len(backbones)} model classes" if len(backbones) > 1 else ""
    part = f"{device.share:g} of a GPU" if device.share < 1 else "a GPU"
    message = (
        f"takes {size(backbone_bytes)}{in_classes}; a worker can use {size(usable)} of {part} with "
        f"{size(largest.memory_bytes)} ({device.source})"
    )
    four_bit_bytes = sum(backbone.backbone_bytes_as("nf4") for backbone in backbones)
    choices = ["a larger GPU", "a smaller model"]
    if config.backbone.quantization not in ("nf4", "fp4") and four_bit_bytes < usable:
        choices.insert(0, f"backbone.quantization: nf4, which takes {size(four_bit_bytes)}")
    if device.share < 1:
        choices.insert(0, "lanes.gpus: 1")
    hint = (
        "every worker holds the whole backbone, since lanes are data parallel and split no model over GPUs; use "
        + ", ".join(choices[:-1])
        + f" or {choices[-1]}"
    )
    return InputError("backbone.model", [Problem(config.backbone.model, message)], hint)
