"""The device of a lane: by what the lane was given, not by what its machine has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.backbone import stored
from orchestrator.config import Lanes
from orchestrator.engine.memory import MemoryGauge
from orchestrator.engine.ranks import Ranks
from orchestrator.lanes import group, loop, pool
from orchestrator.lanes import worker as worker_module
from orchestrator.lanes import worker_memory as memory_module
from orchestrator.lanes.group import LaneGroup, LaneShape
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import Lab
from .test_worker import DEADLINE, Site, make_site, until

__all__ = ["make_site"]
SECOND_GPU = torch.device("cuda", 1)
CUDA_FUNCTIONS = (
    *("mem_get_info", "memory_allocated", "max_memory_allocated", "memory_reserved", "reset_peak_memory_stats"),
    *("get_rng_state", "set_rng_state", "manual_seed", "manual_seed_all", "empty_cache", "synchronize"),
    *("current_device", "device_count", "is_bf16_supported"),
)


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with a GPU; calls of CUDA functions are recorded by name, but for those of earlier tests' threads."""
    calls: list[str] = []
    earlier = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def forbidden(name: str) -> Callable[..., None]:
        def call(*_: Any, **__: Any) -> None:
            if threading.get_ident() in earlier:
                return
            calls.append(name)
            raise AssertionError(f"torch.cuda.{name} was called")

        return call

    for name in CUDA_FUNCTIONS:
        monkeypatch.setattr(torch.cuda, name, forbidden(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return calls


def test_cpu_lane_never_uses_cuda(make_site: Callable[..., Site], lab: Lab, gpu_machine: list[str]) -> None:
    site = make_site(3)
    methods = ("linear_probe", "lora", "lora")
    first = site.submit(*(lab.job(method, number, stop=6) for number, method in enumerate(methods)))
    until(lambda: site.broker.status()[1] == 3)
    lane: Future[None] = site.start_lane()
    answers = [answer.result(DEADLINE) for answer in first]
    assert [(answer.status, answer.reason) for answer in answers] == [("done", "")] * 3
    jobs = (
        lab.job(method, number, start=6, checkpoint=str(answer.checkpoint), split="test")
        for number, (method, answer) in enumerate(zip(methods, answers, strict=True))
    )
    later = [answer.result(DEADLINE) for answer in site.submit(*jobs)]
    assert [(answer.status, answer.reason) for answer in later] == [("done", "")] * 3
    assert site.workers[0]._status().device == "cpu"
    site.broker.close()
    lane.result(DEADLINE)
    assert gpu_machine == []


def test_memory_gauge_of_a_cpu_lane_reads_the_process(gpu_machine: list[str]) -> None:
    gauge = MemoryGauge(device=torch.device("cpu"))
    block = torch.ones(2**24)
    gauge.measure()
    assert block.nbytes / 2 < gauge.peak
    assert gpu_machine == []


@pytest.mark.parametrize(("gpus", "device", "visible"), [(0.0, "cpu", ""), (0.5, "cuda:1", "0,1")])
def test_lane_loop_uses_the_gpus_it_was_given(
    gpus: float, device: str, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[torch.device] = []

    def record_worker(_: int, __: Any, ___: Ranks, device: torch.device, own_gpu: bool) -> Any:
        devices.append(device)
        assert not own_gpu, "half of one may be another lane's"
        return SimpleNamespace(run=lambda: None)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(Ranks, "current", lambda: Ranks(1, 2))
    monkeypatch.setattr(loop, "_import_all", lambda: None)
    monkeypatch.setattr(loop, "_enter", lambda broker, lane: None)
    monkeypatch.setattr(worker_module, "Worker", record_worker)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    loop.lane_loop({"broker": None, "first": 0, "threads": torch.get_num_threads(), "gpus": gpus})
    assert devices == [torch.device(device)]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize(
    ("node", "gpus", "threads"),
    [
        ({"CPU": 64.0, "GPU": 8.0}, 1.0, 8),
        ({"CPU": 4.0, "GPU": 1.0}, 1.0, 4),
        ({"CPU": 4.0, "GPU": 1.0}, 0.25, 1),
        ({"CPU": 6.0, "GPU": 4.0}, 1.0, 1),
        ({"CPU": 2.0, "GPU": 4.0}, 1.0, 1),
        ({}, 1.0, 1),
    ],
)
def test_lane_threads_are_the_gpus_share_of_the_cores(node: dict[str, float], gpus: float, threads: int) -> None:
    assert loop.threads_of_share(node, gpus) == threads


@pytest.mark.parametrize(("lanes", "threads"), [({"gpus": 1}, None), ({"gpus": 1, "cpus": 2}, 2), ({"gpus": 0}, 1)])
def test_lanes_share_cores_unless_the_configuration_gives_them(
    lanes: dict[str, Any], threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[LaneShape] = []
    packs: list[bool] = []
    monkeypatch.setattr(pool, "node_resources", lambda: {"node": {"CPU": 8.0, "GPU": 2.0}})
    monkeypatch.setattr(pool, "start_broker", lambda *_: None)
    monkeypatch.setattr(pool, "LaneGroups", lambda _, __, shape, *___: shapes.append(shape))
    pool.LanePool(Lanes(**lanes), "", growing=False, default_pack=lambda gpu: packs.append(gpu) or 3)
    assert [shape.threads for shape in shapes] == [threads]
    assert packs == [bool(lanes["gpus"])]


def test_lane_group_passes_the_gpus_of_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = []

    def make_trainer(_: Any, **arguments: Any) -> Any:
        options.append(arguments)
        return SimpleNamespace(fit=lambda: lane_group.let_retire())

    monkeypatch.setattr(group, "make_trainer", make_trainer)
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    lane_group = LaneGroup(None, range(2), LaneShape(4.0, gpus=0.5), str(tmp_path))
    lane_group._run()
    assert options[0]["train_loop_config"]["gpus"] == 0.5
    assert options[0]["scaling_config"].total_resources == {"CPU": 2 * 3.6, "GPU": 1.0}


def test_backbone_of_a_lane_is_loaded_onto_its_own_gpu(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two GPUs of a node; plain ``cuda`` is the first one for safetensors."""
    devices: list[str] = []

    def record_device(_: Any, device: torch.device, __: Any) -> None:
        devices.append(str(device))
        raise LookupError("no GPU here")

    monkeypatch.setattr(stored, "_copied", record_device)
    monkeypatch.setattr(memory_module, "fetch", lambda digest, _: lab.folder / f"{digest}.safetensors")
    task = TaskSetup(lab.dataset._config, lab.dataset._tables, 3, "tiny", "original", 0)
    setup = LaneSetup(str(tmp_path), "mail-1", "tiny", "float32", {"mail": task}, lab.training, 0, 1)
    with pytest.raises(LookupError):
        WorkerMemory(setup, SECOND_GPU, torch.float32).backbone("mail")
    assert devices == ["cuda:1"]
