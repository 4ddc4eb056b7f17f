"""Which lanes go where, and which addresses are taken."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from ray.exceptions import AuthenticationError

from orchestrator.common.errors import InputError, SweepError
from orchestrator.config import Lanes
from orchestrator.lanes import cluster
from orchestrator.lanes.cluster import HEAP, Cluster, check_address, lane_layout

LAPTOP = {"CPU": 2.0}
HEAD = {"CPU": 0.0}
BIG = {"CPU": 8.0}
GPU = {"CPU": 4.0, "GPU": 1.0}
GPUS = {"CPU": 32.0, "GPU": 4.0}
STARVED = {"CPU": 2.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("lanes", "nodes", "layout"),
    [
        (Lanes(), [LAPTOP], ([2], 1.0, 0.0)),
        (Lanes(max=1), [LAPTOP], ([1], 1.0, 0.0)),
        (Lanes(cpus=2), [LAPTOP], ([1], 2.0, 0.0)),
        (Lanes(cpus=4), [LAPTOP, BIG], ([2], 4.0, 0.0)),  # the laptop is too small
        (Lanes(), [HEAD, BIG, BIG], ([8, 8], 1.0, 0.0)),
        (Lanes(), [HEAD, GPU, GPUS], ([1, 4], 1.0, 1.0)),  # a lane per GPU
        (Lanes(gpus=0), [GPU], ([4], 1.0, 0.0)),  # GPUs left alone
        (Lanes(gpus=0.5), [GPU], ([2], 1.0, 0.5)),
        (Lanes(), [STARVED], ([2], 1.0, 1.0)),  # cores run out before GPUs
        (Lanes(max=3), [BIG, BIG], ([3], 1.0, 0.0)),
        (Lanes(max=10), [BIG, BIG], ([8, 2], 1.0, 0.0)),
        (Lanes(gpus=0), [HEAD], ([1], 1.0, 0.0)),  # something must ask for a node
        (Lanes(max=3, gpus=1), [HEAD], ([1, 1, 1], 1.0, 1.0)),  # so that an autoscaler sees the demand
        (Lanes(max=4), [LAPTOP], ([2, 1, 1], 1.0, 0.0)),
        (Lanes(workers=2), [LAPTOP], ([1], 1.0, 0.0)),  # a group of workers for each lane
        (Lanes(workers=4), [HEAD, BIG, BIG], ([1, 1, 1, 1], 1.0, 0.0)),
        (Lanes(workers=4, cpus=2, max=1), [BIG], ([1], 2.0, 0.0)),
        (Lanes(workers=2), [GPUS], ([1, 1], 1.0, 1.0)),
        (Lanes(workers=2), [GPU, GPU, GPU], ([1], 1.0, 1.0)),  # across nodes, where no node holds a lane
        (Lanes(workers=2), [GPU, GPUS], ([1, 1], 1.0, 1.0)),  # else within them
        (Lanes(workers=2, max=3), [LAPTOP], ([1, 1, 1], 1.0, 0.0)),
    ],
)
def test_lane_layout_over_nodes(
    lanes: Lanes, nodes: list[dict[str, float]], layout: tuple[list[int], float, float]
) -> None:
    assert lane_layout(lanes, nodes) == layout


def test_lane_layout_refuses_a_lane_too_large_for_the_machine() -> None:
    with pytest.raises(InputError, match="a lane needs 3 cores and 0 GPUs; this machine has 2 cores and 0 GPUs"):
        lane_layout(Lanes(workers=3), [LAPTOP], growing=False)
    assert lane_layout(Lanes(workers=2, max=4), [LAPTOP], growing=False) == ([1], 1.0, 0.0)


def test_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for argument, environment in (("ray://head:10001", None), (None, "ray://head:10001")):
        if environment:
            monkeypatch.setenv("RAY_ADDRESS", environment)
        with pytest.raises(InputError, match="Ray Client"):
            check_address(argument)


@pytest.mark.parametrize(
    ("argument", "environment", "address"),
    [(None, "", None), ("auto", "", "auto"), (None, "head:6379", "head:6379"), ("auto", "head:6379", "auto")],
)
def test_address_comes_from_the_command_or_the_environment(
    argument: str | None, environment: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment)
    assert check_address(argument) == address


def test_cluster_starts_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on, ended = Event(), Event(), Event()
    threads = []

    @contextmanager
    def slow(address: str | None) -> Iterator[None]:
        begun.set()
        threads.append(current_thread())
        assert may_go_on.wait(10)
        yield
        threads.append(current_thread())
        ended.set()

    monkeypatch.setattr(cluster, "_connection", slow)
    with Cluster() as entered:
        assert begun.wait(10)
        may_go_on.set()
        entered.wait_until_connected()
        assert not ended.is_set()
        entered.disconnect()
        assert ended.is_set()
    assert threads[0] is threads[1], "Ray's processes die with the thread that started them"


def test_cluster_raises_its_connection_error_in_the_waiting_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none(address: str | None) -> Iterator[None]:
        raise InputError("--address", [])
        yield  # type: ignore[unreachable]  # it makes a generator

    monkeypatch.setattr(cluster, "_connection", none)
    with Cluster("head:6379") as entered, pytest.raises(InputError):
        entered.wait_until_connected()


def test_cluster_refuses_an_address_without_a_listener_at_once() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # without listening
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Cluster(address) as entered, pytest.raises(InputError, match=f"{address}: there is no Ray cluster"):
            entered.wait_until_connected()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Failed to connect"),
            "the server there lets nobody in without its token, or is no Ray cluster",
        ),
        (
            AuthenticationError("no token was found"),
            "there is no token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to",
        ),
    ],
)
def test_cluster_that_lets_nobody_in_says_what_to_set(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr("ray.init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Cluster(address) as entered, pytest.raises(InputError, match=f"{address}: {message}"):
            entered.wait_until_connected()


def test_cluster_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nTraceback")  # what Ray raises

    monkeypatch.setattr("ray.init", late)
    message = "Ray did not start on this machine: The current node timed out during startup; if the machine is busy"
    with Cluster() as entered, pytest.raises(SweepError, match=message):
        entered.wait_until_connected()


def test_process_that_misses_the_end_of_its_node_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "END_TIMEOUT_S", 0.1)
    with subprocess.Popen(["sleep", "600"]) as left:
        cluster._end([psutil.Process(left.pid)])
        assert left.wait(10.0) == -signal.SIGKILL


def test_cluster_sets_the_heap_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    for user_setting, expected in ((None, HEAP), ("glibc.malloc.check=1", "glibc.malloc.check=1")):
        with patch.dict(os.environ):  # restores what else is set
            os.environ.pop("GLIBC_TUNABLES", None)
            if user_setting:
                os.environ["GLIBC_TUNABLES"] = user_setting
            with Cluster() as entered:
                entered.wait_until_connected()
                assert os.environ["GLIBC_TUNABLES"] == expected


STEPS = """
import resource, threading
def steps():
    for number in range(20):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [bytearray(2**20) for _ in range(100)]
        del tensors
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_heap_settings_keep_pages_between_steps() -> None:
    """glibc ignores unknown settings without a message."""

    def faults(settings: list[str]) -> int:
        environment = {**os.environ, "GLIBC_TUNABLES": ":".join(settings)}
        return int(subprocess.check_output([sys.executable, "-c", STEPS], env=environment))

    *heap_settings, mapped, trimmed = HEAP.split(":")
    assert faults([*heap_settings, mapped, trimmed]) < 10
    assert faults([*heap_settings, trimmed]) > 1000, "every block is mapped again"
    assert faults([*heap_settings, mapped]) > 20, "every step ends with a trim, by large pages"


def test_cluster_ends_when_its_block_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    open_connections = []

    @contextmanager
    def counted(address: str | None) -> Iterator[None]:
        open_connections.append(address)
        yield
        open_connections.pop()

    monkeypatch.setattr(cluster, "_connection", counted)
    with pytest.raises(ValueError, match="no such file"), Cluster():
        raise ValueError("no such file")
    assert not open_connections
