"""Lanes as Ray Train workers.

Lanes of one worker come in one worker group per node, whose workers are replicas of one another. A lane of several
workers is a worker group of its own, with a process group; if one worker dies, Ray Train starts all of them again.

A group per lane would need neither replicas nor most of what this file does about groups that end. But each group has
two processes on the driver's node, with 240 MB of their own memory: eight nodes of eight GPUs would take 15 GB there
instead of 2, and four lanes on a machine of two cores would start in 11 s instead of 6.5 s. Where an installed Ray has
no replicas, there is a group per lane all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig

from orchestrator.common.errors import describe_error
from orchestrator.lanes.loop import lane_loop
from orchestrator.lanes.ray_train import has_replicas, lane_backend, make_trainer

GROUP_START_LIMIT = 4
"""Ends of a group in a row, without any of its processes having run, after which it is given up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
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
            return lane_backend()
        return TorchConfig(backend="cpu:gloo,cuda:nccl" if self.gpus else "gloo")

    @property
    def resources(self) -> dict[str, float]:
        """Ray resources of one worker; a tenth of each core is left to the proxies, which Tune starts on it."""
        cpus = {"CPU": round(self.cpus * 0.9, 2)}
        return cpus | ({"GPU": self.gpus} if self.gpus else {})


class LaneGroup:
    """One group of lanes, in a thread that starts it again until its lanes retire.

    A group ends when all of its lanes have left a node that is taken back.

    Ray Train replaces a worker that dies, but gives up if two die at nearly the same time, or on an error of its own.

    Args:
        broker: actor that the lanes take their jobs from.
        lanes: numbers of the lanes.
        shape: resources of every lane.
        storage: folder for Ray Train's state, which nothing reads later.
        node: id of the node that the lanes start on; ``None`` for any.
    """

    def __init__(self, broker: Any, lanes: range, shape: LaneShape, storage: str, node: str | None = None) -> None:
        self.lanes, self.error = lanes, ""
        self._node = node
        self._broker, self._shape, self._storage = broker, shape, storage
        self._retiring = threading.Event()
        name = f"lanes-{lanes.start}"
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def alive(self) -> bool:
        """Return whether the group has lanes, or may have some again."""
        return self._thread.is_alive()

    def let_retire(self) -> None:
        """Let the group end with its lanes, instead of starting it again."""
        self._retiring.set()

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the group to end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        failures, starts = 0, 0
        for attempt in count(1):
            try:
                error = self._fit(attempt)
                # The pool lets groups retire before it disconnects: a call after that would connect to Ray again.
                if self._retiring.is_set():
                    return
                ended, now_started, placement_groups = ray.get(self._broker.group.remote(list(self.lanes)))
            except Exception as lost:
                self.error = f"the broker has ended: {describe_error(lost)}"
                return
            if ended:
                return
            if not error:
                log.info("%s have left their node and start again on another", self)
                continue
            failures, starts = (1 if now_started > starts else failures + 1), now_started
            if failures >= GROUP_START_LIMIT:
                self.error = f"{self} could not start, tried {failures} times: {describe_error(error)}"
                log.error(self.error, exc_info=error)
                return
            log.warning("%s have ended and start again: %s", self, describe_error(error))
            for placement_group in placement_groups:  # a controller that was killed has not removed its own
                with suppress(Exception):
                    ray.util.remove_placement_group(placement_group)
            self._retiring.wait(min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))

    def _fit(self, attempt: int) -> BaseException | None:
        """Run the group until its lanes have ended; returns why Ray Train gave up before, if it did."""
        try:
            self._trainer(attempt).fit()
        except BaseException as error:
            return error
        return None

    def __str__(self) -> str:
        return f"lanes {self.lanes.start} to {self.lanes.stop - 1}"

    def _trainer(self, attempt: int) -> Any:
        shape = self._shape
        config = {"broker": self._broker, "first": self.lanes.start, "threads": shape.threads, "gpus": shape.gpus}
        config["node"] = self._node if attempt == 1 else None
        return make_trainer(
            lane_loop,
            train_loop_config=config,
            backend_config=shape.backend,
            scaling_config=ScalingConfig(
                num_workers=len(self.lanes) * shape.workers,
                use_gpu=bool(shape.gpus),
                resources_per_worker=shape.resources,
                # A group starts on its planned node, see trainer.py, and later wherever there is room: bound to one
                # node for good, it would wait for ever for one that was lost, as a spot node's id never comes back.
                placement_strategy="PACK",
            ),
            run_config=RunConfig(
                storage_path=self._storage,
                name=f"lanes-{self.lanes.start}-{attempt}",
                failure_config=FailureConfig(max_failures=-1),
            ),
        )


class LaneGroups:
    """All lanes of a sweep, started in groups.

    Args:
        broker: actor that lanes take their jobs from.
        sizes: lanes per group, which starts when its resources are free. Lanes of several workers come one per group.
        shape: resources of every lane.
        storage: folder for Ray Train's state, which nothing reads later.
        nodes: id of the node that each group starts on; ``None`` for any.
    """

    def __init__(
        self, broker: Any, sizes: Sequence[int], shape: LaneShape, storage: str, nodes: Sequence[str | None] = ()
    ) -> None:
        self._broker = broker
        self._groups = []
        self._retired: list[LaneGroup] = []
        groups = list(zip(sizes, nodes or [None] * len(sizes), strict=True))
        if not has_replicas():
            groups = [(1, node) for size, node in groups for _ in range(size)]
        first = 0
        for size, node in sorted(groups, key=lambda group: -group[0]):  # large ones find a node that is still empty
            self._groups.append(LaneGroup(broker, range(first, first + size), shape, storage, node))
            first += size

    def retire(self, needed: int) -> None:
        """Let those groups end without which there are still ``needed`` lanes, and one for each open job."""
        groups = [group for group in self._groups if group not in self._retired and group.alive()]
        if len(groups) > 1:
            retired = ray.get(self._broker.retire.remote([group.lanes for group in groups], needed))
            self._retired += [group for group in groups if group.lanes in retired]

    def let_retire(self) -> None:
        """Start no group again: lanes that end from now on have retired."""
        for group in self._groups:
            group.let_retire()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all lanes to retire. Returns whether they did."""
        end = time.monotonic() + timeout
        for group in self._groups:
            group.join(max(0.0, end - time.monotonic()))
        return not self.alive()

    def alive(self) -> bool:
        """Return whether any group has lanes, or may have some again."""
        return any(group.alive() for group in self._groups)

    @property
    def ended_lanes(self) -> int:
        """Number of lanes whose groups have ended, or are about to."""
        return sum(len(group.lanes) for group in self._groups if group in self._retired or not group.alive())

    @property
    def errors(self) -> list[str]:
        """Why groups were given up."""
        return [group.error for group in self._groups if group.error]
