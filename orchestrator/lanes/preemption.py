"""Nodes that are taken back with notice: spot instances, pods that are deleted, nodes that ``ray drain-node`` names.

Ray calls such a node *draining*. It starts nothing new on it, and ends its processes once nothing is left there that
holds resources; whoever gave the notice turns the machine off at the deadline. Ray Train has a watcher of its own for
this. It is not used: it does not work with replicas, and starts all workers of a group again.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from orchestrator.common.errors import describe_error

INTERVAL_S = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """A notice that a node is taken back.

    Args:
        node: id of the node.
        seconds: seconds that were left to it; ``None`` where Ray has no time.
        lanes: numbers of the lanes that had a worker on it.
    """

    node: str
    seconds: float | None
    lanes: list[int]

    def __str__(self) -> str:
        lanes = ", ".join(map(str, self.lanes))
        return f"node {self.node} is taken back{_in_seconds(self.seconds)}: lanes {lanes} save their trials and leave"


@dataclass(frozen=True)
class MovedJob:
    """A job that a lane on a draining node handed back, or lost with its node.

    Args:
        lane: number of the lane.
        trial: the trial's identity.
        job: name of the training: the trial itself, or one of its retrainings.
        step: optimizer step from which another lane goes on.
    """

    lane: int
    trial: str
    job: str
    step: int


@dataclass(frozen=True)
class Nodes:
    """Nodes that are taken back.

    Args:
        new: seconds that are left to the nodes whose notice is new, by node id; ``None`` where Ray has no time.
        draining: ids of all nodes that are being taken back.
        gone: ids of those that are gone since the last look.
    """

    new: dict[str, float | None]
    draining: frozenset[str]
    gone: frozenset[str]


def draining_nodes() -> dict[str, float | None]:
    """Return the time until each draining node is taken back, by node id, in seconds; ``None`` where Ray has no time.

    It is one request to Ray's control store, of about a millisecond.
    """
    from ray._private.state import state

    now = time.time()
    return {node: deadline / 1000 - now if deadline else None for node, deadline in state.get_draining_nodes().items()}


def own_node() -> str:
    """Return the id of this process's node."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


class NodeWatch:
    """Follows the nodes that are taken back, from the notice to their end.

    A thread asks Ray: while Ray's control store is away, it does not answer for minutes. The driver's own node is left
    out, for the sweep ends with it.
    """

    def __init__(self) -> None:
        self._notices: dict[str, float | None] = {}
        self._draining: set[str] = set()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start to ask Ray, once a second."""
        threading.Thread(target=self._follow, name="draining nodes", daemon=True).start()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def news(self) -> Nodes:
        """Return what has changed since the last call."""
        notices = dict(self._notices)
        new = {node: seconds for node, seconds in notices.items() if node not in self._draining}
        gone = self._draining - notices.keys()
        self._draining = set(notices)
        return Nodes(new, frozenset(notices), frozenset(gone))

    def _follow(self) -> None:
        own, told = own_node(), False
        while not self._ended.wait(INTERVAL_S):
            try:
                notices = draining_nodes()
            except Exception as error:
                log.warning("Ray does not say which nodes are taken back: %s", describe_error(error))
                continue
            if own in notices and not told:
                told = True
                log.warning(
                    "the driver's node is taken back%s; the sweep ends with it, and is resumed with peft-sweep resume",
                    _in_seconds(notices[own]),
                )
            notices.pop(own, None)
            self._notices = notices


def _in_seconds(seconds: float | None) -> str:
    return "" if seconds is None else f" in {max(0.0, seconds):.0f} s"
