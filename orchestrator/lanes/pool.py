"""The lanes of a sweep, and the broker between them and whoever has work for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.common.errors import SweepError
from orchestrator.common.trial_types import Answer, Job
from orchestrator.config import Lanes
from orchestrator.lanes.broker import LaneStatus, start_broker
from orchestrator.lanes.cluster import lane_layout, node_resources
from orchestrator.lanes.group import LaneGroups, LaneShape

if TYPE_CHECKING:
    from orchestrator.lanes.setup import LaneSetup

FAULT_LIMIT = 3
SHUTDOWN_TIMEOUT_S = 30.0


class LanePool:
    """All lanes, from their start to the end of the last; see :func:`lane_pool`.

    Args:
        config: what the configuration says of lanes.
        folder: where Ray Train may keep its state.
        growing: nodes may come, as in a cluster that scales itself.
        default_pack: trials that a lane is offered at once, where the configuration leaves it open.
    """

    def __init__(self, config: Lanes, folder: str, *, growing: bool, default_pack: int = 1) -> None:
        sizes, cpus, gpus = lane_layout(config, node_resources(), growing=growing)
        self.count = sum(sizes)
        self.pack = default_pack if config.pack == "auto" else config.pack
        self.jobs = self.count * self.pack + 1
        self.lanes: dict[int, LaneStatus] = {}
        self._news = threading.Event()
        self.broker: Any = start_broker(min(config.min, self.count), 2 * self.jobs + 64, self.count)
        self._groups = LaneGroups(self.broker, sizes, LaneShape(cpus, gpus, config.workers), folder)

    def open(self, setup: LaneSetup) -> None:
        """Say what lanes need to know; they wait for it."""
        ray.get(self.broker.open.remote(setup))

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        """Have jobs done, as many at once as there are lanes; each comes when it is answered."""
        waiting = {self.broker.run.remote(job): job for job in jobs}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(ready), ray.get(ready)

    def look(self) -> dict[int, LaneStatus]:
        """What each lane said last."""
        self.lanes, _ = ray.get(self.broker.status.remote())
        if self.lanes:
            self._news.set()
        return self.lanes

    def first(self) -> LaneStatus:
        """What a lane said of itself; waits for one while somebody looks.

        Raises:
            SweepError: if none came.
        """
        self._news.wait()
        if not self.lanes:
            raise SweepError("no lane has started")
        return next(iter(self.lanes.values()))

    def fault(self) -> str:
        """Why there will be no lanes any more; empty while there is hope."""
        if self._groups.errors and not self._groups.alive():
            return f"every lane has ended: {self._groups.errors[0]}"
        faults: list[str] = ray.get(self.broker.faults.remote())
        return faults[-1] if len(faults) >= FAULT_LIMIT and not self.lanes else ""

    def cancel(self) -> None:
        """Answer every open job with "cancelled"; lanes drop them within a step."""
        self._news.set()
        ray.get(self.broker.cancel.remote())

    def shutdown(self) -> None:
        """Send the lanes home."""
        self.cancel()
        ray.get(self.broker.close.remote())
        self._groups.join(SHUTDOWN_TIMEOUT_S)


@contextmanager
def lane_pool(config: Lanes, folder: str, *, growing: bool, default_pack: int = 1) -> Iterator[LanePool]:
    """A crew that is sent home at the end. Arguments as for :class:`LanePool`."""
    pool = LanePool(config, folder, growing=growing, default_pack=default_pack)
    try:
        yield pool
    finally:
        pool.shutdown()
