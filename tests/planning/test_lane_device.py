"""What a plan knows of the device that lanes will compute on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from orchestrator.config import Lanes
from orchestrator.engine.gpu import Gpu, visible_gpus
from orchestrator.planning.lane_device import LaneDevice, device_here, device_of

T4, H100 = Gpu("T4", 16e9, bfloat16=False), Gpu("H100", 85e9, bfloat16=True)


@pytest.fixture
def gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has an H100."""
    properties = SimpleNamespace(name="H100", total_memory=85 * 10**9, major=9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)


@pytest.mark.usefixtures("gpu_here")
def test_visible_gpus_have_name_memory_and_dtype() -> None:
    assert visible_gpus() == [H100]


@pytest.mark.usefixtures("gpu_here")
def test_lane_device_here_is_the_gpu_of_this_machine() -> None:
    device = device_here(Lanes())
    assert device.gpus == (H100,)
    assert device.has_gpu
    assert device.here
    assert device.source == "this machine"


@pytest.mark.usefixtures("gpu_here")
def test_lane_device_with_gpus_0_is_the_processor_beside_a_gpu() -> None:
    assert device_here(Lanes(gpus=0)) == LaneDevice()
    assert device_of(Lanes(gpus=0), [H100], expected=True) == LaneDevice()


def test_lane_device_without_any_gpu_is_the_processor() -> None:
    assert device_here(Lanes()) == LaneDevice()
    assert device_of(Lanes(), ()) == LaneDevice()


def test_lane_device_of_a_cluster_is_not_here() -> None:
    device = device_of(Lanes(), [H100, T4, T4])
    assert device.gpus == (T4, H100)
    assert not device.here
    assert device.source == "the cluster"


def test_lane_device_is_known_by_its_setting() -> None:
    device = device_here(Lanes(gpu_memory="40GB"))  # type: ignore[arg-type]  # as YAML has it
    assert [gpu.memory_bytes for gpu in device.gpus] == [40e9]
    assert device.source == "lanes.gpu_memory"
    assert not device.here  # there is no GPU on this machine


@pytest.mark.parametrize("lanes", [Lanes(gpus=1), Lanes(gpus=0.5)])
def test_lane_device_of_unknown_memory_has_a_gpu(lanes: Lanes) -> None:
    device = device_here(lanes)
    assert device.has_gpu
    assert device.gpus == ()
    assert device.share == lanes.gpus


def test_lane_device_computes_in_bfloat16_where_all_gpus_do() -> None:
    assert LaneDevice(kind="cuda", gpus=(H100,)).dtype("auto") == torch.bfloat16
    assert LaneDevice(kind="cuda").dtype("auto") == torch.bfloat16
    assert LaneDevice(kind="cuda", gpus=(T4, H100)).dtype("auto") == torch.float32
    assert LaneDevice(kind="cuda", gpus=(H100,)).dtype("float32") == torch.float32


def test_lane_device_is_the_same_after_json() -> None:
    device = LaneDevice(kind="cuda", gpus=(T4, H100), share=0.5, source="the cluster", here=False)
    assert LaneDevice.of_fields(json.loads(json.dumps(device.fields()))) == device


@pytest.mark.parametrize(("text", "count"), [("80GB", 80e9), ("23.5 GB", 23.5e9), ("1GiB", 2**30), (4096, 4096)])
def test_gpu_memory_is_a_size_that_survives_json(text: Any, count: float) -> None:
    lanes = Lanes.model_validate({"gpu_memory": text})
    assert lanes.gpu_memory == count
    assert Lanes.model_validate(lanes.model_dump(mode="json")) == lanes


@pytest.mark.parametrize("value", ["80 apples", 0, True, "0GB", [1]])
def test_gpu_memory_refuses_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValidationError, match="is not a size"):
        Lanes.model_validate({"gpu_memory": value})


def test_gpu_memory_without_gpus_is_refused() -> None:
    with pytest.raises(ValidationError):
        Lanes.model_validate({"gpu_memory": "80GB", "gpus": 0})
