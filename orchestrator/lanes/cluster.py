"""The Ray cluster that a sweep runs in: an existing one, or its own on this machine."""

from __future__ import annotations

import gc
import logging
import math
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, MachineryError, Problem, SweepError, first_line
from orchestrator.common.own_processes import mark_own_processes
from orchestrator.common.uris import is_uri, mask_secrets
from orchestrator.config import Lanes

if TYPE_CHECKING:
    import psutil

CONNECT_TIMEOUT_S = 5.0
DISCONNECT_TIMEOUT_S = 5.0
END_TIMEOUT_S = 3.0
MAX_TEMPORARY_PATH = 45
"""Bytes of the path of temporary files. Ray adds about 60 for its sockets, whose paths hold at most 107."""
OWN_PROCESSES = {"raylet": "node process (raylet)", "gcs_server": "control store (gcs_server)"}
"""Ray's processes on a node without which nothing else of it works."""
TOKEN_HINT = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's token, if it uses token authentication"
HEAP = ":".join(
    (
        "glibc.malloc.hugetlb=1",  # pages of 2 MiB
        "glibc.malloc.arena_max=1",  # one heap for all threads
        f"glibc.malloc.mmap_threshold={32 * 2**20}",  # smaller blocks come from the heap
        f"glibc.malloc.trim_threshold={128 * 2**20}",  # freed memory that the heap keeps
    )
)
"""glibc settings of the lanes' heap. A step allocates and frees tensors of megabytes; by default glibc maps each block
anew and returns it at once. With these settings a step on a processor takes a fifth less time."""
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A process per lane of several workers, which would start all of them again at a notice; see preemption.py.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # By default Ray starts as many processes at once as there are cores; most of ours wait for others at first.
    "RAY_worker_maximum_startup_concurrency": "8",
    "GLIBC_TUNABLES": HEAP,
    # Widths of batches vary all the time. Blocks of one fixed size each would leave gaps that no other batch fits.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def check_address(address: str | None) -> str | None:
    """Return the cluster's address, from the argument or ``RAY_ADDRESS``.

    Raises:
        InputError: if it is a URI. Ray Client's is none of a driver inside the cluster, and the dashboard's, to which
            jobs are submitted, none of a cluster.
    """
    origin = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address and is_uri(address):
        kind = "Ray Client is not supported" if address.startswith("ray://") else "is not the address of a Ray cluster"
        message = f"{kind}; run the command on a node of the cluster, with --address auto or HOST:PORT"
        raise InputError(origin, [Problem(mask_secrets(address), message)])
    return address


def require_short_paths() -> None:
    """Check the length of the path of temporary files, in which Ray makes its sockets.

    Raises:
        InputError: if it is too long for them.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > MAX_TEMPORARY_PATH:
        message = f"has {len(os.fsencode(folder))} bytes, and Ray's sockets need a path of {MAX_TEMPORARY_PATH} at most"
        raise InputError("TMPDIR", [Problem(folder, f"{message}; set TMPDIR to a short path, for instance /tmp")])


class Cluster:
    """A connection to a Ray cluster.

    Without an address, entering it starts a cluster on this machine in the background, so that the caller can read and
    plan meanwhile. A thread of its own makes the connection and ends it: processes that Ray starts die with the thread
    that started them, and outside of the main thread Ray does not replace the signal handlers.

    Args:
        address: address of the cluster; without one, it starts on this machine and ends with the connection.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = check_address(address)
        self._connected, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._hold, name="ray", daemon=True)
        self._processes: dict[str, psutil.Process] = {}

    def __enter__(self) -> Cluster:
        if not self.address:
            require_short_paths()
        mark_own_processes(starts_ray=not self.address)
        if not self.address:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def wait_until_connected(self) -> None:
        """Wait for the connection, starting it if it has not been started.

        Raises:
            InputError: if there is no cluster at the address.
        """
        if not self._thread.ident:
            self._thread.start()
        self._connected.wait()
        if self._error:
            raise self._error

    def disconnect(self) -> None:
        """End the connection, and the cluster too if it was started here; a second call does nothing.

        What is left of a Ray that has lost a process of its own may not answer: it is not waited for, and ends with
        this process.
        """
        self._ended.set()
        if self._thread.ident:
            self._thread.join(DISCONNECT_TIMEOUT_S if self._lost() else None)

    def require_alive(self) -> None:
        """Check that Ray's own processes live, which this process has started.

        Those of another cluster are not known: Ray ends its driver a minute after they have died.

        Raises:
            MachineryError: if one has died.
        """
        if lost := self._lost():
            raise MachineryError(f"Ray's {OWN_PROCESSES[lost]} has died; no trial is at fault")

    def _workers(self) -> list[psutil.Process]:
        """Return the processes that the cluster's own node has started."""
        raylet = self._processes.get("raylet")
        return raylet.children(recursive=True) if raylet and _lives(raylet) else []

    def _lost(self) -> str:
        return next((name for name, process in self._processes.items() if not _lives(process)), "")

    def _hold(self) -> None:
        try:
            with _connection(self.address):
                self._processes = _own_processes()
                self._connected.set()
                self._ended.wait()
                workers = self._workers()
            _end(workers)
        except BaseException as error:
            self._error = error
        finally:
            self._connected.set()


def _own_processes() -> dict[str, psutil.Process]:
    """Return Ray's own processes that this process has started, by their names."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return {process.name(): process for process in children if process.name() in OWN_PROCESSES}


def _end(processes: list[psutil.Process]) -> None:
    """End processes that should have ended by themselves: once in some tens of times one misses the end of its node."""
    import psutil

    _, left = psutil.wait_procs(processes, timeout=END_TIMEOUT_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _connection(address: str | None) -> Iterator[None]:
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray

    # A cluster on this machine inherits os.environ. A runtime environment would keep it from using prestarted workers.
    environment: dict[str, Any] = {}
    if address:
        root = Path(__file__).resolve().parents[2]
        modules = [str(root / name) for name in ("orchestrator", "methods", "search_spaces")]
        environment = {"env_vars": ENVIRONMENT, "py_modules": modules}
    # An actor handle of an earlier session in this process, collected later, would decrement the count of an actor
    # with the same id in the new session.
    gc.collect()
    listens = False
    try:
        listens = _require_listener(address)
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,  # Ray must not print into the plan
            log_to_driver=True,  # workers' output goes where ours goes, into the sweep's log
            include_dashboard=False if not address else None,
            runtime_env=environment,
        )
    except ConnectionError as error:
        raise InputError("--address", [Problem(str(address), _refusal(listens))]) from error
    except ray.exceptions.AuthenticationError as error:
        raise InputError("--address", [Problem(str(address), f"there is no token; {TOKEN_HINT}")]) from error
    except Exception as error:  # Ray names none of its own: a node that is not there in time, another version
        what = f"did not connect to {address}" if address else "did not start on this machine"
        reason = first_line(error).rstrip(".")
        raise SweepError(f"Ray {what}: {reason}; if the machine is busy, run the command again") from error
    logging.getLogger("ray").setLevel(logging.INFO)
    try:
        yield
    finally:
        ray.shutdown()


def _refusal(listens: bool) -> str:
    """Return why no connection was made; Ray does not say that a token is missing, but on standard error."""
    if listens:
        return f"the server there lets nobody in without its token, or is no Ray cluster of this version; {TOKEN_HINT}"
    return "there is no Ray cluster at this address"


def _require_listener(address: str | None) -> bool:
    """Check that a server listens at an address; Ray itself would retry for minutes.

    Returns:
        Whether one is known to listen; ``False`` for ``auto``.

    Raises:
        ConnectionError: if none does.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise ConnectionError(str(error)) from error
        return True
    return False


def lane_layout(lanes: Lanes, nodes: list[dict[str, float]], growing: bool = True) -> tuple[list[int], float, float]:
    """Decide how many lanes to start on which node.

    Args:
        lanes: ``lanes`` of the configuration.
        nodes: resources of every living node, ``CPU`` and ``GPU``.
        growing: whether nodes may be added, as in a cluster with an autoscaler.

    Returns:
        Lanes per group, with one group per node; cores and GPUs of one worker. If the configuration wants more lanes
        than the nodes of a growing cluster hold, further groups of one lane each wait for new nodes; the autoscaler
        sees their demand. Lanes of several workers are groups of their own.

    Raises:
        InputError: if no lane fits any node, and none will be added, or it is not known whether those that will be have
            GPUs: Ray has no public way to ask what nodes an autoscaler may add.
    """
    gpus = lanes.gpus if lanes.gpus is not None else float(any(node.get("GPU", 0) for node in nodes))
    cpus = lanes.cpus or 1.0
    workers = [workers_that_fit(node, cpus, gpus) for node in nodes]
    sizes = [size for size in workers if size] if lanes.workers == 1 else _multi_worker_groups(lanes.workers, workers)
    if not sizes and not growing:
        most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
        needs = f"{lanes.workers * cpus:g} cores and {lanes.workers * gpus:g} GPUs"
        has = f"{most['CPU']:g} cores and {most['GPU']:g} GPUs"
        raise InputError("lanes", [Problem("", f"a lane needs {needs}; this machine has {has}")])
    if not sizes and lanes.gpus is None and not gpus:
        count = "N" if lanes.max == "auto" else lanes.max
        message = f"no node has room for a lane yet; write gpus: 1 for nodes with GPUs, as in {{max: {count}, gpus: 1}}"
        raise InputError("lanes", [Problem("", f"{message}, or gpus: 0")])
    if lanes.max == "auto":
        return sizes or [1], cpus, gpus
    capped: list[int] = []
    for size in sizes:
        capped.append(min(size, lanes.max - sum(capped)))
    capped = [size for size in capped if size > 0]
    return capped + [1] * (lanes.max - sum(capped)) * growing, cpus, gpus


def _multi_worker_groups(lane_workers: int, node_workers: list[int]) -> list[int]:
    """Return a group for each lane: within nodes, or across nodes if no node holds a whole lane."""
    within_nodes = sum(count // lane_workers for count in node_workers)
    return [1] * (within_nodes or sum(node_workers) // lane_workers)


def workers_that_fit(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many workers a node holds.

    Args:
        node: its resources, ``CPU`` and ``GPU``.
        cpus: cores of a worker.
        gpus: GPUs of a worker, or a fraction of one.
    """
    by_cpu = math.floor(node.get("CPU", 0) / cpus)
    return min(by_cpu, math.floor(node.get("GPU", 0) / gpus)) if gpus else by_cpu


def node_resources() -> dict[str, dict[str, float]]:
    """Return the resources of every living node of the connected cluster, by node id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
