"""Preparing a backbone on a node of a cluster: what the task asks for, and what it is given of the driver."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from orchestrator.backbone.hub import Hub
from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.backbone.source import resolve
from orchestrator.common.storage import Storage
from orchestrator.sweep import prepare as prepare_module
from orchestrator.sweep.prepare import memory_request

from ..backbone.conftest import save_checkpoint
from ..hub_server import hub_server
from ..small_plan import small_plan

GB = 10**9
TOKEN = "hf_of_the_user"


@pytest.mark.parametrize(
    ("nodes", "expected", "warns"),
    [
        ([], 5 * GB, False),  # an autoscaler brings a node that is large enough
        ([{"memory": 8.0 * GB}, {"memory": 2.0 * GB}], 5 * GB, False),
        ([{"memory": 3.0 * GB}, {"memory": 4.0 * GB}], 4 * GB, True),
    ],
)
def test_preparation_asks_for_memory_that_a_node_has(
    nodes: list[dict[str, float]], expected: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert memory_request(5 * GB, nodes) == expected
    assert ("the largest node has 4.0 GB" in caplog.text) == warns


def test_preparation_uses_the_cores_of_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives a task that asks for less than a core one thread."""
    threads: list[int] = []
    monkeypatch.setattr(prepare_module, "publish_backbone", lambda *_: threads.append(torch.get_num_threads()))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    before = torch.get_num_threads()
    try:
        prepare_module._publish_in_threads()
    finally:
        torch.set_num_threads(before)
    assert threads == [3]


def test_preparation_is_one_for_all_tasks_of_a_model_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def start(_: Any, task: Any, *__: Any, **___: Any) -> Callable[[], Any]:
        started.append(task.type.auto_class)
        published: Any = SimpleNamespace(digest="d")
        return lambda: PreparedBackbone(published, None, "checksum")

    class _Tokenizer:
        pad_token_id = 0

        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()

    tasks = {
        name: {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
        for name in ("mail", "news")
    }
    plan = replace(small_plan(["lora"], tasks), tokenizer=_Tokenizer())  # type: ignore[arg-type]
    monkeypatch.setattr(prepare_module, "_start_publishing", start)
    monkeypatch.setattr(prepare_module, "put_tokens", lambda *_: None)
    setup, backbones = prepare_module.prepare(plan, Storage(str(tmp_path)), "s", 1, remotely=False)
    assert started == ["AutoModelForSequenceClassification"]
    assert backbones["mail"] is backbones["news"]
    assert {task.backbone for task in setup.tasks.values()} == {"d"}


@pytest.mark.ray
def test_preparation_on_a_full_node_has_the_users_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane holds all but a sliver of the only core; the worker has no token of its own, and no log shows it."""
    for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    save_checkpoint(tmp_path / "repository", "bert")
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    node: Any = ray._private.worker.global_worker.node
    logs = Path(node.get_logs_dir_path())
    try:

        @ray.remote(num_cpus=0.9)  # as lanes do, which leave a sliver of each core
        class Lane:
            def ready(self) -> bool:
                return True

        lane = Lane.remote()  # type: ignore[attr-defined]
        assert ray.get(lane.ready.remote())
        with hub_server(tmp_path / "repository", TOKEN) as server:
            hub = Hub(server.url, str(tmp_path / "hub"), TOKEN)
            plan = small_plan(["lora"], backbone={"model": "team/model"})
            plan = replace(plan, source=resolve(plan.config.backbone, tmp_path, hub))
            assert "model.safetensors" not in server.downloads
            storage = Storage(str(tmp_path / "storage"))
            wait = prepare_module._start_publishing(plan, plan.tasks["mail"], storage, remotely=True)
            prepared = wait()
            assert server.downloads.count("model.safetensors") == 1
            assert set(server.tokens) == {TOKEN}
        assert storage.exists(prepared.quantized.path)
    finally:
        ray.shutdown()
    assert not [file for file in logs.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
