"""How many lanes start on which node, and which addresses are refused."""

from typing import Any

import pytest

from orchestrator.common.errors import InputError
from orchestrator.config import Lanes
from orchestrator.lanes.cluster import check_address, lane_layout

HEAD = {"CPU": 2.0, "memory": 8e9}
GPU_NODE = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("lanes", "nodes", "sizes", "cpus", "gpus"),
    [
        ({}, [{"CPU": 2.0}], [2], 1, 0),
        ({}, [{"CPU": 2.0}, {"CPU": 8.0}], [2, 8], 1, 0),
        ({}, [GPU_NODE], [4], 1, 1),  # one per GPU where there are GPUs
        ({}, [HEAD, GPU_NODE, GPU_NODE], [4, 4], 1, 1),  # and none beside them
        ({}, [{"CPU": 2.0, "GPU": 8.0}], [2], 1, 1),  # cores are the narrower
        ({"gpus": 0}, [HEAD, GPU_NODE], [2, 16], 1, 0),
        ({"gpus": 0.5}, [GPU_NODE], [8], 1, 0.5),
        ({"gpus": 2}, [GPU_NODE, HEAD], [2], 1, 2),
        ({"cpus": 4}, [GPU_NODE], [4], 4, 1),
        ({"cpus": 8}, [GPU_NODE], [2], 8, 1),
        ({"cpus": 0.5}, [{"CPU": 2.0}], [4], 0.5, 0),
        ({"cpus": 0.1, "gpus": 0}, [{"CPU": 3.0}], [30], 0.1, 0),
        ({"cpus": 3, "gpus": 0}, [{"CPU": 2.0}, {"CPU": 7.0}], [2], 3, 0),
        ({}, [{"CPU": 0.0}, {"CPU": 2.0}], [2], 1, 0),  # a head that takes no work
        # max below what is there fills node by node, and leaves the others alone
        ({"max": 3}, [{"CPU": 2.0}, {"CPU": 8.0}], [2, 1], 1, 0),
        ({"max": 2}, [{"CPU": 2.0}, {"CPU": 8.0}], [2], 1, 0),
        ({"max": 1}, [GPU_NODE, GPU_NODE], [1], 1, 1),
        # max above it: groups of one wait for nodes to come
        ({"max": 5}, [{"CPU": 2.0}], [2, 1, 1, 1], 1, 0),
        ({"max": 2, "gpus": 1}, [HEAD], [1, 1], 1, 1),
        ({"max": 2, "gpus": 0}, [], [1, 1], 1, 0),
        ({"gpus": 0}, [], [1], 1, 0),  # one waits in any case
        ({"gpus": 1}, [HEAD], [1], 1, 1),
    ],
)
def test_lane_layout_by_node(
    lanes: dict[str, Any], nodes: list[dict[str, float]], sizes: list[int], cpus: float, gpus: float
) -> None:
    assert lane_layout(Lanes(**lanes), nodes) == (sizes, cpus, gpus)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.05])
def test_lane_layout_fills_every_core_with_fractions(share: float) -> None:
    for cores in range(1, 65):
        (size,), _, _ = lane_layout(Lanes(cpus=share, gpus=0), [{"CPU": float(cores)}])
        assert size * share <= cores + 1e-9 < (size + 1) * share


@pytest.mark.parametrize("from_environment", [True, False])
@pytest.mark.parametrize(
    ("address", "shown", "reason"),
    [
        ("ray://head:10001", "ray://head:10001", "Ray Client is not supported"),
        ("http://head:8265", "http://head:8265", "is not the address of a Ray cluster"),
        ("https://ann:pw@head:8265", "https://***@head:8265", "is not the address of a Ray cluster"),
    ],
)
def test_address_that_is_a_uri_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, shown: str, reason: str, from_environment: bool
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if from_environment:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError) as raised:
        check_address(None if from_environment else address)
    (line,) = raised.value.lines()
    assert line.startswith(f"{'RAY_ADDRESS' if from_environment else '--address'}: {shown}: {reason}; run the command")
    assert "--address auto or HOST:PORT" in line


@pytest.mark.parametrize(
    ("argument", "environment", "address"),
    [
        (None, None, None),
        (None, "", None),
        ("auto", None, "auto"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("auto", "ray://head:10001", "auto"),  # the argument counts
    ],
)
def test_check_address(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, environment: str | None, address: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert check_address(argument) == address


@pytest.mark.parametrize(
    ("lanes", "example"), [({}, "{max: N, gpus: 1}"), ({"max": 8}, "{max: 8, gpus: 1}"), ({"workers": 2}, "gpus: 0")]
)
@pytest.mark.parametrize("nodes", [[], [{"CPU": 0.0}]])
def test_lane_layout_asks_what_lanes_of_nodes_to_come_compute_on(
    lanes: dict[str, Any], example: str, nodes: list[dict[str, float]]
) -> None:
    with pytest.raises(InputError, match="no node has room for a lane yet") as raised:
        lane_layout(Lanes(**lanes), nodes)
    assert example in str(raised.value)


def test_lane_layout_on_one_machine_waits_for_no_nodes() -> None:
    assert lane_layout(Lanes(max=5), [{"CPU": 2.0}], growing=False)[0] == [2]
    with pytest.raises(InputError, match="a lane needs 1 cores and 1 GPUs; this machine has 2 cores and 0 GPUs"):
        lane_layout(Lanes(gpus=1), [{"CPU": 2.0}], growing=False)
