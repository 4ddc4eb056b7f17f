"""Lanes as Ray Train workers.

Lanes of one worker come in one worker group per node, whose workers are replicas of one another. A lane of several
workers is a worker group of its own, with a process group; if one worker dies, Ray Train starts all of them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig

from orchestrator.lanes.backend import LaneBackendConfig
from orchestrator.lanes.loop import lane_loop
from orchestrator.lanes.trainer import LaneTrainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneShape:
    """The resources of one lane.

    Args:
        cpus: processor cores of each worker.
        gpus: GPUs of each worker, or a fraction of one.
        workers: workers that train every trial together.
        shares_cores: whether a worker computes with the share of its node's cores that it has of the node's GPUs.
    """

    cpus: float
    gpus: float = 0.0
    workers: int = 1
    shares_cores: bool = False

    @property
    def threads(self) -> int | None:
        """Processor threads that a worker computes with; ``None`` for its share of the node's cores."""
        return None if self.shares_cores else max(1, round(self.cpus))

    @property
    def backend(self) -> BackendConfig:
        """Backend of the process group; a lane's messages go through gloo, its GPU tensors through NCCL."""
        if self.workers == 1:
            return LaneBackendConfig()
        return TorchConfig(backend="cpu:gloo,cuda:nccl" if self.gpus else "gloo")

    @property
    def resources(self) -> dict[str, float]:
        """Ray resources of one worker; a tenth of each core is left to the proxies, which Tune starts on it."""
        cpus = {"CPU": round(self.cpus * 0.9, 2)}
        return cpus | ({"GPU": self.gpus} if self.gpus else {})


class LaneGroups:
    """All lanes of a sweep, started in groups.

    Args:
        broker: actor that lanes take their jobs from.
        sizes: lanes per group. A group fits a node and starts when its resources are free. Lanes of several workers
            come one per group, and may span nodes.
        shape: resources of every lane.
        storage: folder for Ray Train's state, which nothing reads later.
    """

    def __init__(self, broker: Any, sizes: list[int], shape: LaneShape, storage: str) -> None:
        self._threads = []
        self._retiring = threading.Event()
        self.errors: list[BaseException] = []
        first = 0
        for index, size in enumerate(sizes):
            make_trainer = partial(self._trainer, broker, first, size, shape, storage)
            arguments = (make_trainer, f"lanes-{index}")
            thread = threading.Thread(target=self._fit, args=arguments, daemon=True, name=f"lanes-{index}")
            thread.start()
            self._threads.append(thread)
            first += size

    def let_retire(self) -> None:
        """Start no group again: lanes that end from now on have retired."""
        self._retiring.set()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all lanes to retire. Returns whether they did."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not self.alive()

    def alive(self) -> bool:
        """Return whether any group may still have lanes."""
        return any(thread.is_alive() for thread in self._threads)

    def _fit(self, make_trainer: Callable[[str], LaneTrainer], name: str) -> None:
        """Run a group, and start it again where there is room whenever its lanes have left a node."""
        try:
            for attempt in count(1):
                make_trainer(name if attempt == 1 else f"{name}-{attempt}").fit()
                if self._retiring.is_set():
                    return
                log.info("%s have left their node and start again on another", name)
        except BaseException as error:
            log.exception("a group of lanes ended")
            self.errors.append(error)

    @staticmethod
    def _trainer(broker: Any, first: int, size: int, shape: LaneShape, storage: str, name: str) -> LaneTrainer:
        return LaneTrainer(
            lane_loop,
            train_loop_config={"broker": broker, "first": first, "threads": shape.threads, "gpus": shape.gpus},
            backend_config=shape.backend,
            scaling_config=ScalingConfig(
                num_workers=size * shape.workers,
                use_gpu=bool(shape.gpus),
                resources_per_worker=shape.resources,
                placement_strategy="STRICT_PACK" if shape.workers == 1 else "PACK",
            ),
            run_config=RunConfig(storage_path=storage, name=name, failure_config=FailureConfig(max_failures=-1)),
        )
