"""The Ray cluster that a sweep runs in: an existing one, or one of its own on this machine."""

from __future__ import annotations

import gc
import logging
import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.config import Lanes

PATIENCE = 5.0
HEAP = ":".join(
    (
        "glibc.malloc.hugetlb=1",  # pages of 2 MiB
        "glibc.malloc.arena_max=1",  # one heap for all threads
        f"glibc.malloc.mmap_threshold={32 * 2**20}",  # it serves what is smaller than that
        f"glibc.malloc.trim_threshold={128 * 2**20}",  # and keeps so much of what is freed
    )
)
"""A step's tensors come and go by the megabyte. Out of such a heap, a step on a processor takes a fifth less time."""
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # On one machine Ray starts as many processes at once as there are cores; most of ours wait for others at first.
    "RAY_worker_maximum_startup_concurrency": "8",
    "GLIBC_TUNABLES": HEAP,
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def check_address(address: str | None) -> str | None:
    """The cluster's address, from the argument or ``RAY_ADDRESS``.

    Raises:
        InputError: if it is a Ray Client address: the driver must run inside the cluster.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address and address.startswith("ray://"):
        message = "Ray Client is not supported; run the command on a node of the cluster, with --address auto"
        raise InputError("--address", [Problem(address, message)])
    return address


class Cluster:
    """A connection to a cluster. One on this machine starts while whoever enters it does something else.

    A thread of its own makes the connection and ends it: processes that Ray starts on this machine die with the thread
    that has started them, and elsewhere than in the main thread it leaves the signals' handlers alone.

    Args:
        address: of the cluster; without one, it starts on this machine and ends with the connection.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = check_address(address)
        self._answered, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._hold, name="ray", daemon=True)

    def __enter__(self) -> Cluster:
        if not self.address:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def connected(self) -> None:
        """Wait until it stands.

        Raises:
            InputError: if there is no cluster at the address.
        """
        if not self._thread.ident:
            self._thread.start()
        self._answered.wait()
        if self._error:
            raise self._error

    def leave(self) -> None:
        """End the connection, and the cluster with it if it started here. More than once does no harm."""
        self._over.set()
        if self._thread.ident:
            self._thread.join()

    def _hold(self) -> None:
        try:
            with _connection(self.address):
                self._answered.set()
                self._over.wait()
        except BaseException as error:
            self._error = error
        finally:
            self._answered.set()


@contextmanager
def _connection(address: str | None) -> Iterator[None]:
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray

    environment: dict[str, Any] = {}  # a cluster that starts here has ours, and workers at hand that fit it
    if address:
        here = Path(__file__).resolve().parents[2]
        modules = [str(here / name) for name in ("orchestrator", "methods", "search_spaces")]
        environment = {"env_vars": ENVIRONMENT, "py_modules": modules}
    # A handle of an earlier session in this process, collected later, would count against an actor of the same id.
    gc.collect()
    try:
        _answering(address)
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,  # the terminal is not Ray's while a plan is made
            log_to_driver=True,  # what workers print goes where our own output goes, the sweep's log
            include_dashboard=False if not address else None,
            runtime_env=environment,
        )
    except ConnectionError as error:
        raise InputError("--address", [Problem(str(address), "there is no Ray cluster at this address")]) from error
    logging.getLogger("ray").setLevel(logging.INFO)
    try:
        yield
    finally:
        ray.shutdown()


def _answering(address: str | None) -> None:
    """Ray itself asks for minutes.

    Raises:
        ConnectionError: if nobody listens there.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except OSError as error:
            raise ConnectionError(str(error)) from error


def lane_layout(lanes: Lanes, nodes: list[dict[str, float]], growing: bool = True) -> tuple[list[int], float, float]:
    """How many lanes to start on which node.

    Args:
        lanes: what the configuration says.
        nodes: the resources of every living node, ``CPU`` and ``GPU``.
        growing: nodes may come, as in a cluster that scales itself.

    Returns:
        Lanes per group, a group for each node; cores and GPUs of one worker. Where the configuration wants more
        lanes than the nodes of a growing cluster hold, further groups of one lane each wait for nodes to come.
        Lanes of several workers are groups of their own.

    Raises:
        InputError: if no lane fits any node, and none will come.
    """
    gpus = lanes.gpus if lanes.gpus is not None else float(any(node.get("GPU", 0) for node in nodes))
    cpus = lanes.cpus or 1.0
    fitting = [_fit(node, cpus, gpus) for node in nodes]
    sizes = [size for size in fitting if size] if lanes.workers == 1 else _lanes_of(lanes.workers, fitting)
    if not sizes and not growing:
        most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
        wanted = f"{lanes.workers * cpus:g} cores and {lanes.workers * gpus:g} GPUs"
        there = f"{most['CPU']:g} cores and {most['GPU']:g} GPUs"
        raise InputError("lanes", [Problem("", f"a lane needs {wanted}; this machine has {there}")])
    if lanes.max == "auto":
        return sizes or [1], cpus, gpus
    capped: list[int] = []
    for size in sizes:
        capped.append(min(size, lanes.max - sum(capped)))
    capped = [size for size in capped if size > 0]
    return capped + [1] * (lanes.max - sum(capped)) * growing, cpus, gpus


def _lanes_of(workers: int, fitting: list[int]) -> list[int]:
    """A group for each lane: within nodes, or across them where no node holds a lane."""
    within = sum(there // workers for there in fitting)
    return [1] * (within or sum(fitting) // workers)


def _fit(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / cpus)
    return min(by_cpu, math.floor(node.get("GPU", 0) / gpus)) if gpus else by_cpu


def node_resources() -> list[dict[str, float]]:
    """The resources of every living node of the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
