"""All lanes of a sweep, and the broker between them and the callers that have work for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

from orchestrator.common.errors import MachineryError, SweepError
from orchestrator.common.trial_types import Answer, Job
from orchestrator.config import Lanes
from orchestrator.lanes.broker import LaneStatus, start_broker
from orchestrator.lanes.cluster import lane_layout, node_resources, workers_that_fit
from orchestrator.lanes.group import LaneGroups, LaneShape
from orchestrator.lanes.placement import planned_nodes
from orchestrator.lanes.preemption import MovedJob, NodeWatch, Notice

if TYPE_CHECKING:
    from orchestrator.lanes.setup import LaneSetup

SHUTDOWN_TIMEOUT_S = 30.0
SHUTDOWN_WITHOUT_BROKER_S = 2.0
POLL_S = 1.0
log = logging.getLogger(__name__)


DefaultPack = Callable[[bool], int]


def no_packs(_: bool) -> int:
    """Return 1: every trial of a lane trains alone."""
    return 1


@contextmanager
def _broker_needed() -> Iterator[None]:
    """Say in one line that the broker's process has died.

    Raises:
        MachineryError: if it has. The sweep stops, and can be resumed.
    """
    try:
        yield
    except RayActorError as error:
        raise MachineryError("the process that hands out the trials' work has died; no trial is at fault") from error


class LanePool:
    """All lanes of a sweep, from their start to their end; see :func:`lane_pool`.

    Args:
        config: ``lanes`` of the configuration.
        folder: folder for Ray Train's state.
        growing: whether nodes may be added, as in a cluster with an autoscaler.
        default_pack: function that returns the slots per lane with ``pack: auto``, given whether lanes have a GPU.
        require_alive: function that raises an error if Ray itself has died, as calls never return then.
    """

    def __init__(
        self,
        config: Lanes,
        folder: str,
        *,
        growing: bool,
        default_pack: DefaultPack = no_packs,
        require_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._require_alive = require_alive
        self.lost = False
        """Whether no process answers any more."""
        nodes = node_resources()
        sizes, cpus, gpus = lane_layout(config, list(nodes.values()), growing=growing)
        self.count = sum(sizes)
        self.pack = default_pack(gpus > 0) if config.pack == "auto" else config.pack
        self.jobs = self.count * self.pack + 1
        self.lanes: dict[int, LaneStatus] = {}
        self.all_lanes: dict[int, LaneStatus] = {}  # with those that have retired or died
        self._min_lanes, self._most_lanes = min(config.min, self.count), 0
        self._given_up: dict[int, str] = {}
        self._any_lane: LaneStatus | None = None
        self._nodes = NodeWatch()
        self._lane_joined = threading.Event()
        self.broker: Any = start_broker(self._min_lanes)
        shape = LaneShape(cpus, gpus, config.workers, shares_cores=gpus > 0 and config.cpus is None)
        rooms = {node: workers_that_fit(resources, cpus, gpus) // config.workers for node, resources in nodes.items()}
        self._groups = LaneGroups(self.broker, sizes, shape, folder, planned_nodes(sizes, rooms))

    @_broker_needed()
    def open(self, setup: LaneSetup) -> None:
        """Publish the setup that lanes wait for."""
        self._ask(self.broker.open.remote(setup))
        self._nodes.start()

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        """Submit jobs and yield each with its answer as soon as it is answered."""
        waiting = {self.broker.run.remote(job): job for job in jobs}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            with _broker_needed():
                answer = ray.get(ready)
            yield waiting.pop(ready), answer
            self.retire(len(waiting))

    @_broker_needed()
    def poll(self) -> dict[int, LaneStatus]:
        """Fetch and return the last status of each living lane, by its number."""
        if self.lost:
            return self.lanes
        self.lanes, _ = self._ask(self.broker.status.remote())
        self.all_lanes |= self.lanes
        self._most_lanes = max(self._most_lanes, len(self.lanes))
        if self.lanes:
            self._any_lane = next(iter(self.lanes.values()))
            self._lane_joined.set()
        return self.lanes

    @_broker_needed()
    def expire_silent_lanes(self) -> None:
        """Declare silent lanes dead and queue their jobs again; see :meth:`Broker.expire_silent_lanes`."""
        self._ask(self.broker.expire_silent_lanes.remote())

    @_broker_needed()
    def follow_draining_nodes(self) -> tuple[list[Notice], list[MovedJob]]:
        """Let the lanes of nodes that are taken back leave.

        Returns:
            The notices that are new, without those of nodes that have no lanes: an autoscaler takes idle nodes back
            all the time. And the jobs that have moved since the last call.
        """
        nodes = self._nodes.news()
        notices = [
            Notice(node, seconds, lanes)
            for node, seconds in nodes.new.items()
            if (lanes := [lane for lane, status in self.lanes.items() if node in status.nodes])
        ]
        for notice in notices:
            log.warning("%s", notice)
        if not nodes.draining and not nodes.gone:
            return [], []
        return notices, self._ask(self.broker.drain.remote(nodes.draining, nodes.gone))

    def wait_for_lane(self) -> LaneStatus:
        """Wait until another thread's :meth:`poll` finds a lane, and return its status; it may have died since.

        Raises:
            SweepError: if the pool was cancelled before any lane joined.
        """
        self._lane_joined.wait()
        if self._any_lane is None:
            raise SweepError("no lane has started")
        return self._any_lane

    @_broker_needed()
    def fault(self) -> str:
        """Return why there will be no lanes any more, or they cannot work; empty while all is well or may still be."""
        if fault := self._ask(self.broker.fault.remote()):
            return str(fault)
        given_up: dict[int, str] = self._ask(self.broker.given_up.remote())
        for lane in given_up.keys() - self._given_up.keys():
            log.error("%s; the sweep continues without it", given_up[lane])
        self._given_up |= given_up
        reasons = [*self._groups.errors, *self._given_up.values()]
        if reasons and (not self._groups.alive() or len(self._given_up) == self.count):
            return f"every lane has ended: {reasons[-1]}"
        if self._most_lanes < self._min_lanes > self.count - len(self._given_up):
            return f"lanes.min is {self._min_lanes}, and not as many can start: {reasons[-1]}"
        return ""

    @_broker_needed()
    def retire(self, needed: int) -> None:
        """Let lanes end, by group, that neither an open job nor one of ``needed`` later ones will use.

        A cluster with an autoscaler takes their nodes back.
        """
        self._groups.retire(needed)

    @property
    def expected(self) -> int:
        """Number of lanes that work or are expected to."""
        return self.count - self._groups.ended_lanes

    def cancel(self) -> None:
        """Answer every open job with ``cancelled``; lanes drop their trials at the next heartbeat."""
        self._lane_joined.set()
        if not self.lost:
            with suppress(RayActorError, MachineryError):  # a broker that has died has no jobs
                self._ask(self.broker.cancel.remote())

    def shutdown(self) -> None:
        """Cancel open jobs, let all lanes retire, and wait for them up to 30 seconds."""
        self._nodes.end()
        self._groups.let_retire()
        self.cancel()
        if not self.lost:
            with suppress(RayActorError, MachineryError):
                self._ask(self.broker.close.remote())
                self._groups.join(SHUTDOWN_TIMEOUT_S)
                return
        # Nothing tells lanes that they retire; they end with the connection.
        self._groups.join(SHUTDOWN_WITHOUT_BROKER_S)

    def _ask(self, call: Any) -> Any:
        """Return the result of a call of the broker.

        Raises:
            MachineryError: if Ray has died meanwhile.
        """
        while not ray.wait([call], timeout=POLL_S)[0]:
            self._require_alive()
        return ray.get(call)


@contextmanager
def lane_pool(
    config: Lanes,
    folder: str,
    *,
    growing: bool,
    default_pack: DefaultPack = no_packs,
    require_alive: Callable[[], None] = lambda: None,
) -> Iterator[LanePool]:
    """Start a pool and shut it down at the end. Arguments as for :class:`LanePool`."""
    pool = LanePool(config, folder, growing=growing, default_pack=default_pack, require_alive=require_alive)
    try:
        yield pool
    finally:
        pool.shutdown()
