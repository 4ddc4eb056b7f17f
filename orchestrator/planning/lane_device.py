"""The device that lanes will compute on, as far as a plan knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from orchestrator.backbone.frozen import compute_dtype
from orchestrator.config import Lanes
from orchestrator.engine.gpu import Gpu, visible_gpus
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.gpus import cluster_gpus

CONTEXT_BYTES = 2**30
"""Memory that a process takes on its GPU for CUDA itself: its context, and the workspaces of its libraries."""
FRAGMENTATION = 0.05
"""Fraction of a GPU's memory that the allocator holds and cannot use, because its blocks have other sizes."""


@dataclass(frozen=True, kw_only=True)
class LaneDevice:
    """The device of each worker of a lane.

    Args:
        kind: ``cuda`` where lanes have GPUs.
        gpus: the kinds of GPUs that workers may get, the smallest first; empty if they are unknown.
        share: the part of a GPU that a worker gets.
        source: where the GPUs are known from; empty if they are unknown.
        here: whether it is a device of this machine, so that its speed can be measured.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    gpus: tuple[Gpu, ...] = ()
    share: float = 1.0
    source: str = ""
    here: bool = True

    @property
    def has_gpu(self) -> bool:
        """Whether lanes have GPUs."""
        return self.kind == "cuda"

    def dtype(self, setting: str) -> torch.dtype:
        """Return the dtype of frozen products; a GPU of an unknown kind counts as one that is fast at bfloat16.

        Args:
            setting: ``backbone.compute_dtype`` of the configuration.
        """
        if self.has_gpu and setting == "auto":
            return torch.bfloat16 if all(gpu.bfloat16 for gpu in self.gpus) else torch.float32
        return compute_dtype(setting, torch.device("cpu"))

    def usable_bytes(self, gpu: Gpu) -> float:
        """Return what a worker can use of a GPU for tensors: its share, without what CUDA itself and gaps take."""
        return gpu.memory_bytes * self.share * (1 - FRAGMENTATION) - CONTEXT_BYTES

    def fields(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> LaneDevice:
        """Return the device that :meth:`fields` describes."""
        return cls(**{**fields, "gpus": tuple(Gpu(**gpu) for gpu in fields["gpus"])})


def device_here(lanes: Lanes) -> LaneDevice:
    """Return the device of lanes on this machine.

    Args:
        lanes: ``lanes`` of the configuration.
    """
    return _device(lanes, () if lanes.gpus == 0 else visible_gpus(), "this machine", here=True)


def device_in(cluster: Cluster, lanes: Lanes) -> LaneDevice:
    """Return the device of lanes in a cluster, which is asked for its GPUs unless the configuration tells them.

    Args:
        cluster: the cluster, whose context is entered; it need not be connected yet. Without an address, this machine.
        lanes: ``lanes`` of the configuration.

    Raises:
        InputError: if there is no cluster at its address.
    """
    if not cluster.address:
        return device_here(lanes)
    if lanes.gpu_memory or lanes.gpus == 0:
        return device_of(lanes, ())
    cluster.wait_until_connected()
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return device_of(lanes, cluster_gpus(nodes), expected=any(node["Resources"].get("GPU", 0) for node in nodes))


def device_of(lanes: Lanes, gpus: Sequence[Gpu], *, expected: bool = False) -> LaneDevice:
    """Return the device of lanes in a cluster.

    Args:
        lanes: ``lanes`` of the configuration.
        gpus: the kinds of GPUs that its nodes have.
        expected: whether it has GPUs, even if they are not known.
    """
    return _device(lanes, gpus, "the cluster", here=False, expected=expected)


def _device(lanes: Lanes, gpus: Sequence[Gpu], source: str, *, here: bool, expected: bool = False) -> LaneDevice:
    wants_gpu = lanes.gpus != 0 and bool(lanes.gpus or lanes.gpu_memory or gpus or expected)
    if not wants_gpu:
        return LaneDevice()
    share = min(1.0, lanes.gpus or 1.0)
    if lanes.gpu_memory:
        bfloat16 = all(gpu.bfloat16 for gpu in gpus)
        name = " or ".join(dict.fromkeys(gpu.name for gpu in gpus))
        known: tuple[Gpu, ...] = (Gpu(name, lanes.gpu_memory, bfloat16),)
        return LaneDevice(kind="cuda", gpus=known, share=share, source="lanes.gpu_memory", here=here and bool(gpus))
    kinds = tuple(sorted(set(gpus), key=lambda gpu: gpu.memory_bytes))
    return LaneDevice(kind="cuda", gpus=kinds, share=share, source=source if kinds else "", here=here and bool(gpus))
